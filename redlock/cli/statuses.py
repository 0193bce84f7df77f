"""Exit statuses of our own; what a command that runs under a lock adds stands in
`redlock/supervise.py`."""

NO_MAJORITY, CONTENDED, UNAVAILABLE, UNFIT = 1, 4, 5, 7
NOBODY = UNCLEAR = 1
