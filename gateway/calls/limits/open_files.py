"""Raises the limit of open files (RLIMIT_NOFILE) and derives the bounds of calls, streams and connections from it."""

import resource
from dataclasses import dataclass
from typing import Final

WANTED_LIMIT: Final = 65_536  # more than all bounds of one process together use
RESERVED_FILES: Final = 128  # for the database, listening sockets, logs, commands and libraries
STREAMS_MAX: Final = 10_000  # open streams of clients, which also use memory


@dataclass(frozen=True, slots=True)
class OpenFileBudget:
    """Divides a limit of open files. A quarter is for calls, which use a client and an upstream socket each, and half for streams."""

    limit: int

    @property
    def calls_max(self) -> int:
        return max(2, (self.limit - RESERVED_FILES) // 4)

    @property
    def streams_max(self) -> int:
        return max(2, min(STREAMS_MAX, (self.limit - RESERVED_FILES) // 2))

    @property
    def connections(self) -> int:
        """Returns how many client connections fit, busy and idle ones together."""
        return max(2, (self.limit - RESERVED_FILES) * 3 // 4)


def raise_limit() -> OpenFileBudget:
    """Raises the soft limit of open files up to WANTED_LIMIT or the hard limit, and returns the budget."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_LIMIT if hard == resource.RLIM_INFINITY else min(WANTED_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return OpenFileBudget(WANTED_LIMIT if soft == resource.RLIM_INFINITY else soft)
