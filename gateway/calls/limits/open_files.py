"""Open files: the system's limit for this process, raised as far as it may be, and how much of everything fits within it."""

import resource
from dataclasses import dataclass
from typing import Final

WANTED_LIMIT: Final = 65_536  # more than all bounds of one process together take
RESERVED_FILES: Final = 128  # for the database, listening sockets, logs, commands and libraries
STREAMS_MAX: Final = 10_000  # open streams of clients, which hold memory too


@dataclass(frozen=True, slots=True)
class OpenFileBudget:
    """What fits within a limit of open files: a quarter of it are calls, with a client and an upstream each, and half of it streams."""

    limit: int

    @property
    def calls_max(self) -> int:
        return max(2, (self.limit - RESERVED_FILES) // 4)

    @property
    def streams_max(self) -> int:
        return max(2, min(STREAMS_MAX, (self.limit - RESERVED_FILES) // 2))

    @property
    def connections(self) -> int:
        """Connections of clients, with a call, a stream or nothing under way."""
        return max(2, (self.limit - RESERVED_FILES) * 3 // 4)


def raise_limit() -> OpenFileBudget:
    """Raises this process's limit of open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_LIMIT if hard == resource.RLIM_INFINITY else min(WANTED_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return OpenFileBudget(WANTED_LIMIT if soft == resource.RLIM_INFINITY else soft)
