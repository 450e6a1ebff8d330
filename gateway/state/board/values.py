"""What the board stores: values with their source and version, changes of them, and preconditions of a change."""

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.state.board.problems import StaleVersion, VersionRequired

DELETED: Final = "deleted"
EXPIRED: Final = "expired"
SET: Final = "set"
VALUE_BYTES_MAX: Final = 256 << 10
ChangeKind = Literal["set", "deleted", "expired"]


class ValueSource(Struct, frozen=True):
    """The author of a value: the person (tenant|issuer|subject), the agents that acted for the person, the task and the decision.

    `sensitivity` (0..3) is that of what the writer's transaction had read.
    """

    owner: str
    chain: tuple[str, ...] = ()
    task_id: str = ""
    decision_id: str = ""
    sensitivity: int = 0

    @property
    def agent(self) -> str:
        """The agent that wrote the value; empty where the person did."""
        return self.chain[-1] if self.chain else ""

    @property
    def columns(self) -> tuple[int, str, str, str, str, str]:
        """The values of the columns sensitivity, updated_by, agent, chain, task_id and decision_id."""
        chain = msgspec.json.encode(self.chain).decode()
        return self.sensitivity, self.owner, self.agent, chain, self.task_id, self.decision_id


EXPIRY: Final = ValueSource("")
"""The source of the change by which a value expires."""


class StoredValue(Struct, frozen=True):
    """A value of the board. Times are microseconds since 1970; `value` is its JSON."""

    tenant: str
    key: str
    version: int
    value: str
    source: ValueSource
    created: int
    updated: int
    expires: int | None = None

    def decode(self) -> Any:
        return msgspec.json.decode(self.value)

    def is_expired(self, now: int) -> bool:
        return self.expires is not None and self.expires <= now


class Change(Struct, frozen=True):
    """One change of a key, in the history and in the feed. `value` is JSON, None after a deletion or an expiry."""

    tenant: str
    seq: int
    key: str
    version: int
    kind: str
    value: str | None
    source: ValueSource
    at: int

    def decode(self) -> Any:
        return None if self.value is None else msgspec.json.decode(self.value)


class Precondition(Struct, frozen=True):
    """What a change asks of the current value: one of these versions, any version, or that there is none."""

    versions: tuple[int, ...] = ()
    any_version: bool = False
    no_value: bool = False

    def check(self, key: str, current: int) -> None:
        """`current`: the version of the value, 0 without one. Raises StaleVersion and VersionRequired."""
        if self.no_value and current:
            raise StaleVersion(key, current)
        if self.versions and current not in self.versions:
            raise StaleVersion(key, current)
        if self.any_version and not current:
            raise StaleVersion(key, current)
        if current and not (self.versions or self.any_version):
            raise VersionRequired(key, current)


NO_PRECONDITION: Final = Precondition()
ANY_VERSION: Final = Precondition(any_version=True)
