"""The entry of a contender's process: `python -I serve.py ADAPTER`.

-I, and this repository last on the path: redlock-py and redlock-ng install packages that are called
`redlock` too, and in their environments that name must mean theirs.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from benchmarks.contenders.harness import serve

    serve(sys.argv[1])
