"""Memory under the rights of its callers: each read and each write is ruled on, and what is read raises the transaction's taint."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.state.memory.facts import (
    PERSON,
    Authorship,
    Correction,
    Fact,
    MemoryScope,
    NewFact,
    UnknownFact,
    act_of_reading,
    act_of_writing,
    scope_named,
)
from gateway.state.memory.reading import FactPage, FactReader, FactView, StoredFact
from gateway.state.memory.store import FactStore, FactWriter
from policies.authority import RulingRequest
from policies.callers import Caller, caller_of_grant
from policies.delegation.history import SENSITIVITY_MAX
from policies.delegation.rulings import Act, Grant
from policies.delegation.terms import DEFAULT_TERMS, Terms
from policies.environment import ClearanceNow

RELATED_MAX: Final = 5  # facts of a hand-off


class RulingsOnMemory(Protocol):
    """gateway/calls/authorizer.py. Both methods raise CallRefused, recorded."""

    async def grant_or_refuse(self, caller: Caller, request: RulingRequest) -> Grant: ...

    async def authorize_and_record(self, caller: Caller, request: RulingRequest) -> Grant: ...


@dataclass(frozen=True, slots=True)
class MemoryRights:
    """What decides about memory."""

    rulings: RulingsOnMemory
    could_allow: Callable[[Caller, Act], bool]
    clearance_now: ClearanceNow

    def clearance_of(self, caller: Caller) -> int:
        """The highest sensitivity that every agent of the chain may receive."""
        tenant = caller.principal.tenant
        return min((self.clearance_now(tenant, hop.agent) for hop in caller.delegation.path), default=SENSITIVITY_MAX)


class MemoryAccess:
    """Puts, finds, corrects and forgets facts for callers. All methods raise CallRefused, recorded."""

    def __init__(self, store: FactStore, reader: FactReader, rights: MemoryRights) -> None:
        self._store = store
        self._reader = reader
        self._rights = rights

    async def put(self, caller: Caller, scope_name: str, new: NewFact) -> tuple[Fact, bool]:
        """Stores a fact, and returns it and whether it is new. Raises BadFact and MemoryFull."""
        scope = scope_named(scope_name, caller.principal)
        return await self._store.put(scope, new, await self._authorize_writing(caller, scope))

    async def find(self, caller: Caller, scope_name: str, page: FactPage) -> tuple[list[Fact], str | None]:
        """A page of facts, and the cursor of the next. Raises BadFact and BadCursor."""
        scope = scope_named(scope_name, caller.principal)
        await self._rights.rulings.grant_or_refuse(caller, RulingRequest(act_of_reading(scope), scope.tenant))
        facts, following = await self._reader.read_page(self._view(caller, scope), page)
        await note_reading(self._rights, caller, act_of_reading(scope), [fact.sensitivity for fact in facts])
        return facts, following

    async def find_related(self, grant: Grant, text: str) -> list[Fact]:
        """Facts of the person that the callee of a grant acts for, with words of a text; none where the callee may not read them.

        What is found raises the taint of the transaction. Raises CallRefused.
        """
        caller = caller_of_grant(grant)
        scope = scope_named(PERSON, caller.principal)
        act = act_of_reading(scope)
        if not text.strip() or not self._rights.could_allow(caller, act):
            return []
        facts, _ = await self._reader.read_page(self._view(caller, scope), FactPage(text, limit=RELATED_MAX))
        if facts:
            await note_reading(self._rights, caller, act, [fact.sensitivity for fact in facts])
        return facts

    async def show(self, caller: Caller, fact_id: str) -> StoredFact:
        """A fact with its history. Raises UnknownFact."""
        scope = (await self._find_readable(caller, fact_id)).scope
        await self._rights.rulings.grant_or_refuse(caller, RulingRequest(act_of_reading(scope), scope.tenant))
        stored = await self._reader.read_with_history(self._view(caller, scope), fact_id)
        sensitivities = [stored.fact.sensitivity, *(older.sensitivity for older in stored.history)]
        await note_reading(self._rights, caller, act_of_reading(scope), sensitivities)
        return stored

    async def correct(self, caller: Caller, fact_id: str, change: Correction) -> Fact:
        """Raises UnknownFact, BadFact, FactChanged, MemoryFull and WrittenByPerson."""
        fact = await self._find_readable(caller, fact_id)
        newer = await self._store.correct(fact, change, await self._authorize_writing(caller, fact.scope))
        if change.text is None:  # the text is shown to one who did not write it
            await note_reading(self._rights, caller, act_of_reading(fact.scope), [newer.sensitivity])
        return newer

    async def forget(self, caller: Caller, fact_id: str) -> None:
        """Raises UnknownFact and WrittenByPerson."""
        fact = await self._find_readable(caller, fact_id)
        await self._store.forget(fact, await self._authorize_writing(caller, fact.scope))

    async def erase(self, caller: Caller, person: str, grant: Grant | None) -> int:
        """Deletes everything of a person (tenant|issuer|subject), and returns how many facts.

        `grant` allows that; None: the caller is that person.
        """
        return await self._store.erase(caller.principal.tenant, person, self._writer(caller, grant))

    async def find_people(self, tenant: str, subject: str) -> list[str]:
        """The people (tenant|issuer|subject) with this subject of whom something is remembered; the caller has checked the right to it."""
        return await self._reader.find_people(tenant, subject)

    def export(self, tenant: str, person: str) -> AsyncIterator[StoredFact]:
        """Yields everything of a person; the caller of this method has checked the right to it."""
        return self._reader.export(tenant, person)

    async def _find_readable(self, caller: Caller, fact_id: str) -> Fact:
        """Raises UnknownFact for a fact that the caller may not know of."""
        fact = await self._reader.find(caller.principal.tenant, fact_id)
        is_foreign = bool(fact.scope.owner) and fact.scope.owner != caller.principal.owner_key
        if is_foreign or not self._rights.could_allow(caller, act_of_reading(fact.scope)):
            raise UnknownFact
        return fact

    async def _authorize_writing(self, caller: Caller, scope: MemoryScope) -> FactWriter:
        grant = await self._rights.rulings.authorize_and_record(caller, RulingRequest(act_of_writing(scope), scope.tenant))
        return self._writer(caller, grant)

    def _writer(self, caller: Caller, grant: Grant | None) -> FactWriter:
        held = caller.delegation
        source = Authorship(caller.principal.owner_key, held.actor, held.task_id)
        return FactWriter(source, held.txn, grant.decision.id if grant else "", self._rights.clearance_of(caller))

    def _view(self, caller: Caller, scope: MemoryScope) -> FactView:
        return FactView(scope, self._rights.clearance_of(caller), self._store.now())


async def note_reading(rights: MemoryRights, caller: Caller, act: Act, sensitivities: Sequence[int]) -> None:
    """Records the ruling on what is about to be shown, and raises the taint of the caller's transaction by it. Raises CallRefused."""
    highest = max(sensitivities, default=0)
    terms = Terms(highest) if highest else DEFAULT_TERMS
    await rights.rulings.authorize_and_record(caller, RulingRequest(act, caller.principal.tenant, terms=terms))
