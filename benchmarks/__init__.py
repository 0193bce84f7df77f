"""Side-by-side measurements of this library, of the other libraries of every language, and of two
yardsticks.

Contenders run in processes of their own and are measured in shuffled turns of one run, so that only
ratios within a run count. `python -m benchmarks` measures; nothing here is installed with the
package.
"""
