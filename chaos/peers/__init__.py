"""Other libraries' locks under the same faults: each in an environment of its own, behind the
worker's interface."""
