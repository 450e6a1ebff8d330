"""Looks at subjects with the rights of the caller: the view of one, and lists of conflicts."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from gateway.state.board.permissions import BoardAuthorizer, act_of_reading
from gateway.state.claims.operations import BadClaim, act_of_reading_subject
from gateway.state.effects.facts import BoardFacts, board_values
from gateway.state.effects.reading import HOLDS, OPT_OUTS
from gateway.state.effects.view import ConflictPage, PlannedEffect, SubjectReader, list_open_conflicts, read_subject
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import BadSubject, check_subject, key_prefix_of
from gateway.storage.database import Database
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.delegation.terms import Terms

T = TypeVar("T")
FindPlans = Callable[[Caller, str], Awaitable[Sequence[PlannedEffect]]]


class SubjectLooks:
    """Reads what is known of subjects. `sees_people` says whether a caller sees the names of other people."""

    def __init__(
        self,
        database: Database,
        clock: SubjectClock,
        authorize: Callable[[Caller, Act], Awaitable[Grant]],
        sees_people: Callable[[Caller], bool],
        *,
        rulings: BoardAuthorizer,
        find_plans: FindPlans,
    ) -> None:
        """`find_plans` returns what runs and schedules that the caller may know of are going to do to a subject."""
        self._database = database
        self._clock = clock
        self._authorize = authorize
        self._rulings = rulings
        self._sees_people = sees_people
        self._find_plans = find_plans

    async def show(self, caller: Caller, subject: str) -> dict[str, Any]:
        """The view of a subject, which needs state:read:KIND/ID. Raises BadClaim, CallRefused and TooManyFacts.

        Values are read as from the board: without those that a policy forbids, and with their sensitivity for the transaction.
        """
        try:
            name = check_subject(subject)
        except BadSubject as error:
            raise BadClaim("subject", str(error)) from error
        act, tenant = act_of_reading_subject(name), caller.principal.tenant
        await self._authorize(caller, act)
        found = await self._database.read(lambda connection: board_values(connection, tenant, name, self._clock.read(connection)))
        facts, highest = await self._readable(caller, key_prefix_of(name), found)
        if highest:
            await self._rulings.authorize(caller, RulingRequest(act, tenant, terms=Terms(highest)))
        planned = await self._find_plans(caller, name)
        reader = SubjectReader(tenant, caller.principal.owner_key, self._sees_people(caller))
        return await self._database.read(lambda connection: read_subject(connection, reader, name, facts, self._clock, planned=planned))

    async def _readable(self, caller: Caller, prefix: str, found: BoardFacts) -> tuple[BoardFacts, int]:
        """The facts whose values the caller may read by key, and the highest sensitivity of these values."""
        holds, opt_outs, plain = found
        shown = (
            await self._allowed(caller, prefix + HOLDS, holds),
            await self._allowed(caller, prefix + OPT_OUTS, opt_outs),
            await self._allowed(caller, prefix, plain),
        )
        sources = [*shown[0].values(), *shown[1].values(), *(source for _, source in shown[2].values())]
        return shown, max((source.sensitivity for source in sources), default=0)

    async def _allowed(self, caller: Caller, start: str, found: Mapping[str, T]) -> dict[str, T]:
        return {name: each for name, each in found.items() if await self._rulings.would_allow(caller, act_of_reading(start + name))}

    async def list_conflicts(self, caller: Caller, page: ConflictPage) -> tuple[list[dict[str, Any]], tuple[int, str] | None]:
        """Open conflicts and the place of the next page: the caller's own, or all of them for a caller that was authorized to read them."""
        reader = SubjectReader(caller.principal.tenant, caller.principal.owner_key, not page.owner)
        return await self._database.read(lambda connection: list_open_conflicts(connection, reader, page, self._clock))
