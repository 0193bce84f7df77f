"""Exit statuses of our own; what a command that runs under a lock adds stands in
`redlock/supervise.py`."""

NO_MAJORITY, CONTENDED, UNAVAILABLE, UNFIT = 1, 4, 5, 7
NOBODY = UNCLEAR = 1
SYSTEM = 71
"""EX_OSERR of sysexits(3): a full disk, no process, thread or descriptor left."""
