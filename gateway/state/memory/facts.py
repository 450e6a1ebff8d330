"""Facts, their scopes and sources, and what a caller may write."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from policies.delegation.chain import Principal
from policies.delegation.history import SENSITIVITY_MAX
from policies.delegation.rights import MEMORY_KIND
from policies.delegation.rulings import Act
from registry.cards.card import strip_hidden
from registry.names import BadName, InvalidMember, check_name

TEXT_MAX: Final = 8192  # bytes of a fact in UTF-8
VERSIONS_MAX: Final = 100  # of one fact, with the current one
PERSON: Final = "person"
WORKFLOW_PREFIX: Final = "workflow:"


class BadFact(InvalidMember):
    """A member of what is to be remembered, or of a request for it, is invalid."""


class UnknownFact(Exception):
    """There is no such fact, or the caller may not know of it."""


class FactChanged(Exception):
    """The fact has another version than the one that the caller has read."""


class MemoryFull(Exception):
    """A scope has as many facts, or a fact as many versions, as it may; the message says which."""


class WrittenByPerson(Exception):
    """An agent wants to correct or forget what a person wrote."""


class MemoryScope(Struct, frozen=True):
    """Whose facts: those of a person (`owner`, tenant|issuer|subject), or those of a workflow."""

    tenant: str
    owner: str = ""
    workflow: str = ""

    @property
    def name(self) -> str:
        """The scope as callers and permissions name it."""
        return f"{WORKFLOW_PREFIX}{self.workflow}" if self.workflow else PERSON

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.tenant, self.owner, self.workflow


class Authorship(Struct, frozen=True):
    """The author of a version: a person, with an empty `agent`, or an agent that acted for the person `author`."""

    author: str
    agent: str = ""
    task_id: str = ""


class NewFact(Struct, frozen=True):
    """What is to be remembered. `expires` is in microseconds since 1970; None: never."""

    text: str
    sensitivity: int = 0
    expires: int | None = None


class Correction(Struct, frozen=True):
    """What changes in a fact; None: it stays. `version` is the one that the caller has read; None: whichever there is."""

    text: str | None = None
    sensitivity: int | None = None
    expires: int | None = None
    version: int | None = None


class Fact(Struct, frozen=True):
    """A fact as it is now. Times are microseconds since 1970."""

    id: str
    scope: MemoryScope
    version: int
    text: str
    sensitivity: int
    source: Authorship
    created: int
    updated: int
    expires: int | None = None


class OldVersion(Struct, frozen=True):
    """What a fact said before it was corrected."""

    version: int
    text: str
    sensitivity: int
    source: Authorship
    at: int


def scope_named(name: str, asker: Principal) -> MemoryScope:
    """The scope that the asker means by `person` or `workflow:NAME`. Raises BadFact."""
    if name == PERSON:
        return MemoryScope(asker.tenant, asker.owner_key)
    workflow = name.removeprefix(WORKFLOW_PREFIX)
    try:
        if workflow != name:
            return MemoryScope(asker.tenant, workflow=check_name(workflow))
    except BadName:
        pass
    raise BadFact("scope", "must be person, or workflow: with the name of a workflow")


def act_of_reading(scope: MemoryScope) -> Act:
    """Reading the facts of a scope. An agent needs `memory: read` in its entry too, which the authority checks."""
    return Act("readMemory", MEMORY_KIND, scope.name, f"memory:read:{scope.name}", scope.name)


def act_of_writing(scope: MemoryScope) -> Act:
    """Writing, correcting and forgetting facts of a scope. An agent needs `memory: write` in its entry too."""
    return Act("writeMemory", MEMORY_KIND, scope.name, f"memory:write:{scope.name}", scope.name)


def checked_text(text: str) -> str:
    """The text without hidden characters, which a model would read and a person would not see. Raises BadFact."""
    plain = strip_hidden(text).strip()
    try:
        size = len(plain.encode())
    except UnicodeEncodeError:
        raise BadFact("text", "must be Unicode text") from None
    if not 0 < size <= TEXT_MAX:
        raise BadFact("text", f"must have 1 to {TEXT_MAX} bytes that can be seen")
    return plain


def check_sensitivity(sensitivity: int | None) -> None:
    """Raises BadFact."""
    if sensitivity is not None and (isinstance(sensitivity, bool) or not 0 <= sensitivity <= SENSITIVITY_MAX):
        raise BadFact("sensitivity", f"must be a whole number from 0 to {SENSITIVITY_MAX}")


def check_expiry(expires: int | None, now: int) -> None:
    """Raises BadFact."""
    if expires is not None and expires <= now:
        raise BadFact("expires", "must be in the future")


def source_columns(source: Authorship) -> Mapping[str, Any]:
    return {"agent": source.agent, "task_id": source.task_id, "author": source.author}
