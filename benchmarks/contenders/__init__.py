"""What runs inside a contender's process: the protocol's other side, and one adapter per library.

A peer's environment has neither this project nor its dependencies, so nothing but the standard
library is imported here before an adapter needs it.
"""
