"""The only I/O: clock, dialling, one ordered link per node and connection, the blocking and the
asyncio driver."""

from redlock._here import check_project

check_project()
