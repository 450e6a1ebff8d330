"""What callers do with the board: each act is ruled on and recorded, and a write is stored in the commit that records its decision."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Struct, structs

from gateway.state.board.feed import BoardFeed
from gateway.state.board.held_values.questions import ask_about
from gateway.state.board.held_values.rows import HeldValue, build_held_value, hold_value
from gateway.state.board.keys import check_key, check_prefix, is_key
from gateway.state.board.merge_patch import Edit
from gateway.state.board.permissions import BoardAuthorizer, act_of_reading, act_of_reading_below, act_of_writing
from gateway.state.board.problems import BoardProblem, MisfitValue, NotBacked, UnknownValue
from gateway.state.board.rules import Backing, PrefixRules
from gateway.state.board.store import BoardStore
from gateway.state.board.values import Change, Precondition, StoredValue, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, check_size, delete_value, lock_current, set_locked_value
from gateway.storage.batch import Batch
from gateway.storage.paging import BadCursor
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.history import SENSITIVITY_MAX, read_totals
from policies.delegation.rulings import Act, Grant
from policies.delegation.terms import DEFAULT_TERMS, Terms

T = TypeVar("T")
SCANNED_MAX: Final = 2000  # keys that one page of a list looks at


class BackingTools(Protocol):
    """The registered tools that hold values (gateway/ingress/built_in/backing.py). They are called with the rights of the caller."""

    async def read(self, caller: Caller, backing: Backing, key: str) -> Any:
        """The value. Raises BackingFailed, BadKey, NotBacked, and what the calls of servers raise."""
        ...

    async def write(self, caller: Caller, backing: Backing, key: str, value: Any) -> None:
        """Sets the value. Raises as `read` does."""
        ...


class WriteOptions(Struct, frozen=True):
    """What a write asks for: of the current value, and of the new one. `ttl`: seconds that it lives; `sensitivity`: at least."""

    precondition: Precondition = Precondition()
    ttl: int | None = None
    sensitivity: int = 0


class BackedValue(Struct, frozen=True):
    """A value that a registered tool holds. The gateway stores nothing of it, and knows no version."""

    key: str
    value: Any
    server: str
    tool: str


class BoardPage(Struct, frozen=True):
    """One page of a list; `next` is the key after which the next page begins, empty at the end."""

    values: tuple[StoredValue, ...]
    next: str = ""


class FollowedChanges(Struct, frozen=True):
    """What a follower gets at once. `seq` and `is_complete` are those of FeedPage."""

    changes: tuple[Change, ...]
    seq: int
    is_complete: bool


class Board:
    """The board for callers. Rights, schemas and backing tools count here; gateway/state/board/writes.py stores."""

    def __init__(
        self, store: BoardStore, authorizer: BoardAuthorizer, rules: PrefixRules, feed: BoardFeed, backing_tools: BackingTools
    ) -> None:
        self._store = store
        self._authorizer = authorizer
        self._rules = rules
        self._feed = feed
        self._backing_tools = backing_tools

    async def get(self, caller: Caller, key: str) -> StoredValue | BackedValue:
        """The value of a key. Raises BadKey, CallRefused, UnknownValue, and what backing tools raise."""
        ref = _ref_of(caller, key)
        if (backing := self._rules.rule_of(key).backing) is not None:
            await self._authorizer.authorize(caller, _request(caller, act_of_reading(key), self._rules.rule_of(key).sensitivity))
            return BackedValue(key, await self._backing_tools.read(caller, backing, key), backing.server, backing.read)
        found = await self._store.find(ref)
        await self._authorizer.authorize(caller, _request(caller, act_of_reading(key), found.source.sensitivity if found else 0))
        if found is None:
            raise UnknownValue(key)
        return found

    async def write(self, caller: Caller, key: str, edit: Edit, options: WriteOptions) -> StoredValue | HeldValue | BackedValue:
        """Sets or patches a value. One that misses its schema is refused or held back, as the operator says.

        Raises BadKey, CallRefused, BoardProblem, and what backing tools raise.
        """
        ref, rule = _ref_of(caller, key), self._rules.rule_of(key)
        shown = rule.sensitivity if rule.backing is not None and edit.is_patch else 0  # of what the tool has, which the answer shows
        request = _request(caller, act_of_writing(key), shown, edit.arguments)
        if rule.backing is not None:
            return await self._write_backed(caller, request, rule.backing, edit, options)
        return await self.write_recorded(caller, request, lambda batch, grant: self._store_value(batch, grant, ref, edit, options))

    async def shows_patched(self, caller: Caller, key: str) -> bool:
        """Whether the answer to a patch may show the whole value, which a caller that may only write has not read.

        An agent reads it by key, so that it counts in its transaction.
        """
        return not caller.delegation.path and await self._authorizer.would_allow(caller, act_of_reading(key))

    async def delete(self, caller: Caller, key: str, precondition: Precondition) -> int:
        """Deletes a value and returns the version of the deletion. Raises BadKey, CallRefused and BoardProblem."""
        ref = _ref_of(caller, key)
        if (backing := self._rules.rule_of(key).backing) is not None:
            raise NotBacked(f"The value of {key} is held by the server {backing.server}, which can't delete it through the board.")

        def write(batch: Batch, grant: Grant) -> int:
            return delete_value(batch, ref, _source_of(batch, grant, 0), precondition, self._store.now())

        return await self.write_recorded(caller, _request(caller, act_of_writing(key, "delete"), 0, {}), write)

    async def list_values(self, caller: Caller, prefix: str, after: str, limit: int, *, with_values: bool = False) -> BoardPage:
        """The values of a prefix that the caller could read, by key. Reading them all at once is an act that needs state:read:PREFIX/*.

        Without values the page says only what there is, and nothing is recorded. Raises BadKey, BadCursor and CallRefused.
        """
        if after and not is_key(after):
            raise BadCursor
        prefix = check_prefix(prefix)
        page = await self._visible_page(caller, prefix, after, limit)
        if with_values:
            highest = max((value.source.sensitivity for value in page.values), default=0)
            await self._authorizer.authorize(caller, _request(caller, act_of_reading_below(prefix, "list"), highest))
        return page

    async def history(self, caller: Caller, key: str, before: int | None, limit: int) -> list[Change]:
        """The changes of a key with their values, the newest first, before version `before`. Raises BadKey, CallRefused and NotBacked."""
        ref = _ref_of(caller, key)
        if (backing := self._rules.rule_of(key).backing) is not None:
            raise NotBacked(f"The value of {key} is held by the server {backing.server}; the gateway has no history of it.")
        changes = await self._store.history(ref, before, limit)
        highest = max((change.source.sensitivity for change in changes), default=0)
        await self._authorizer.authorize(caller, _request(caller, act_of_reading(key, "history"), highest))
        return changes

    async def begin_following(self, caller: Caller, prefix: str) -> str:
        """Records that the caller follows the changes of a prefix, and returns the checked prefix. Raises BadKey and CallRefused."""
        prefix = check_prefix(prefix)
        await self._authorizer.authorize(caller, _request(caller, act_of_reading_below(prefix, "watch")))
        return prefix

    async def follow(self, caller: Caller, prefix: str, after: int | None) -> AsyncIterator[FollowedChanges]:
        """Yields the changes of a prefix that the caller may read, as they are made. `begin_following` comes first.

        An agent gets the changes without their values, which it reads by key, so that each of them counts in its transaction.
        """
        async for page in self._feed.follow(caller.principal.tenant, prefix, after):
            allowed = [change for change in page.changes if await self._authorizer.would_allow(caller, act_of_reading(change.key))]
            shown = tuple(_without_value(change) if caller.delegation.path else change for change in allowed)
            yield FollowedChanges(shown, page.seq, page.is_complete)

    async def _visible_page(self, caller: Caller, prefix: str, after: str, limit: int) -> BoardPage:
        visible, scanned, place = list[StoredValue](), 0, after
        while scanned < SCANNED_MAX:
            found = await self._store.list_below(caller.principal.tenant, prefix, place, limit + 1)
            for value in found.values:
                if len(visible) == limit:
                    return BoardPage(tuple(visible), place)
                place = value.key
                if await self._authorizer.would_allow(caller, act_of_reading(value.key)):
                    visible.append(value)
            if found.is_last:
                return BoardPage(tuple(visible))
            scanned, place = scanned + limit + 1, found.place
        return BoardPage(tuple(visible), place)

    async def write_recorded(self, caller: Caller, request: RulingRequest, write: Callable[[Batch, Grant], T]) -> T:
        """Runs a write in the commit of its decision. A refusal of the board leaves the decision recorded, and nothing else.

        Raises CallRefused, and the BoardProblem that `write` raises.
        """

        def write_or_refuse(batch: Batch, grant: Grant) -> T | BoardProblem:
            try:
                result = write(batch, grant)
            except BoardProblem as problem:  # as a value, so that the commit of others with it is not repeated
                return problem
            if isinstance(result, StoredValue | int):
                self._store.record_event(batch, caller, request.act.resource, result)
            return result

        result = await self._authorizer.authorize_and_write(caller, request, write_or_refuse)
        if isinstance(result, BoardProblem):
            raise result
        self._feed.announce()
        return result

    def _store_value(self, batch: Batch, grant: Grant, ref: KeyRef, edit: Edit, options: WriteOptions) -> StoredValue | HeldValue:
        now, rule = self._store.now(), self._rules.rule_of(ref.key)
        counters, current = lock_current(batch, ref, now)
        version = current.version if current else 0
        options.precondition.check(ref.key, version)
        value = msgspec.json.encode(edit.apply(current.decode() if current else None)).decode()
        check_size(value)
        patched = current if edit.is_patch else None  # what a patch leaves of the value keeps its sensitivity and its end
        at_least = max(rule.sensitivity, options.sensitivity, patched.source.sensitivity if patched else 0)
        expires = patched.expires if patched and options.ttl is None else rule.expiry_of(options.ttl, now)
        new = NewValue(ref, value, _source_of(batch, grant, at_least), options.precondition, expires)
        problem = self._rules.problem_of(ref.key, value)
        if not problem:
            return set_locked_value(batch, counters, current, new, now=now, limits=self._store.limits)
        if rule.on_misfit == "refuse":
            raise MisfitValue(ref.key, problem, rule.owner)
        held = build_held_value(batch.connection, new, version, problem, now)
        return ask_about(batch, held, grant, rule.ask_seconds) if rule.on_misfit == "ask" else hold_value(batch, held)

    async def _write_backed(
        self, caller: Caller, request: RulingRequest, backing: Backing, edit: Edit, options: WriteOptions
    ) -> BackedValue:
        """Has the tool of a prefix set a value. The tool is called with the caller's rights, and has a decision of its own."""
        key = request.act.resource
        if options.precondition.versions or options.precondition.no_value or options.ttl is not None:
            raise NotBacked(f"The value of {key} is held by the server {backing.server}, which has no versions and no expiry.")
        await self._authorizer.authorize(caller, request)
        value = edit.apply(await self._backing_tools.read(caller, backing, key) if edit.is_patch else None)
        encoded = msgspec.json.encode(value).decode()
        check_size(encoded)
        if problem := self._rules.problem_of(key, encoded):
            raise MisfitValue(key, problem, self._rules.rule_of(key).owner)
        await self._backing_tools.write(caller, backing, key, value)
        return BackedValue(key, value, backing.server, backing.write)


def _ref_of(caller: Caller, key: str) -> KeyRef:
    return KeyRef(caller.principal.tenant, check_key(key))


def _request(caller: Caller, act: Act, sensitivity: int = 0, arguments: Mapping[str, Any] | None = None) -> RulingRequest:
    """`sensitivity` is that of what the caller would learn, which raises the transaction's."""
    terms = Terms(sensitivity) if sensitivity else DEFAULT_TERMS
    return RulingRequest(act, caller.principal.tenant, arguments, terms=terms)


def _source_of(batch: Batch, grant: Grant, at_least: int) -> ValueSource:
    """Returns the author that this grant allows to write. The value is as sensitive as what the transaction has read."""
    delegation = grant.delegation
    principal, chain = delegation.principal, tuple(hop.agent for hop in delegation.path)
    taint = read_totals(batch.connection, principal.tenant, delegation.txn).taint if delegation.txn else 0
    sensitivity = min(max(taint, at_least), SENSITIVITY_MAX)
    return ValueSource(principal.owner_key, chain, delegation.task_id, grant.decision.id, sensitivity)


def _without_value(change: Change) -> Change:
    return structs.replace(change, value=None)
