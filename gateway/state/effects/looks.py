"""Looks at subjects with the rights of the caller: the view of one, and lists of conflicts."""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.state.claims.operations import BadClaim, act_of_reading_subject
from gateway.state.effects.view import ConflictPage, SubjectReader, list_open_conflicts, read_subject
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import BadSubject, check_subject
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant


class SubjectLooks:
    """Reads what is known of subjects. `sees_people` says whether a caller sees the names of other people."""

    def __init__(
        self,
        database: Database,
        clock: SubjectClock,
        authorize: Callable[[Caller, Act], Awaitable[Grant]],
        sees_people: Callable[[Caller], bool],
    ) -> None:
        self._database = database
        self._clock = clock
        self._authorize = authorize
        self._sees_people = sees_people

    async def show(self, caller: Caller, subject: str) -> dict[str, Any]:
        """The view of a subject, which needs state:read:KIND/ID. Raises BadClaim, CallRefused and TooManyFacts."""
        try:
            name = check_subject(subject)
        except BadSubject as error:
            raise BadClaim("subject", str(error)) from error
        await self._authorize(caller, act_of_reading_subject(name))
        reader = SubjectReader(caller.principal.tenant, caller.principal.owner_key, self._sees_people(caller))
        return await self._database.read(lambda connection: read_subject(connection, reader, name, self._clock))

    async def list_conflicts(self, caller: Caller, page: ConflictPage) -> tuple[list[dict[str, Any]], tuple[int, str] | None]:
        """Open conflicts and the place of the next page: the caller's own, or all of them for a caller that was authorized to read them."""
        reader = SubjectReader(caller.principal.tenant, caller.principal.owner_key, not page.owner)
        return await self._database.read(lambda connection: list_open_conflicts(connection, reader, page, self._clock))
