"""Calls of modern clients that wait for answers: an older server asks while it works, a modern client is asked by a result.

The call goes on in the process that took it in; the client's next request, to whichever process, brings the answers to it.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec
import structlog
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.mcp_client.wire.messages import INVALID_PARAMS, MISSING_CAPABILITY
from adapters.mcp_client.wire.peer import Peer, PeerRefused
from gateway.background import let_go
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.protocol.client_wishes import Wanted, lacking
from gateway.ingress.mcp_server.protocol.errors import refusal_of
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import Seal, Sealed, bad_state
from gateway.ingress.mcp_server.protocol.response import Outlet, event
from gateway.storage.database import NotKept, NotRead
from gateway.storage.mailbox import Mailbox
from policies.ids import new_id

ANSWER_SECONDS = 300.0  # for which a person may think about a question
KEPT_SECONDS = 300.0  # for which a repeated answer gets the same result again
REMOTE_SECONDS = 120.0  # for which another process may work on an answer
RESPONSES_MAX = 4 << 20  # bytes that one process hands to another
LOOK_SECONDS = 0.5  # between two looks whether that process is still there
ALL_MAX, HOLDER_MAX, ASKS_MAX = 1000, 20, 16
UNASKABLE, LATE = -32601, -32001
FAILED = re.compile(rb'"isError"\s*:\s*true')
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()
Handler = Callable[[Peer], Coroutine[Any, Any, bytes]]


class Running:
    """One call and the Peer behind it. `front` is the client's request of the moment, if one is under way."""

    def __init__(self, holder: str, capabilities: Mapping[str, Any], wanted: Wanted, outlet: Outlet) -> None:
        self.id = new_id("k")
        self.holder = holder
        self.front: tuple[Outlet, Wanted] | None = (outlet, wanted)
        self.missing: dict[str, Any] = {}
        self.round = 0
        self.outcomes: dict[int, asyncio.Future[bytes]] = {}
        self.answered: set[int] = set()
        self.waiting = 0
        self.work: asyncio.Task[bytes] | None = None
        self._capabilities = capabilities
        self._asked = 0
        self._asks: dict[str, tuple[str, Raw, asyncio.Future[Raw]]] = {}
        self._changed = asyncio.Event()

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._capabilities

    async def notify(self, method: str, params: Raw) -> None:
        if self.front is not None and self.front[1].takes(method, params):
            self.front[0].say(event(b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (encode(method), params)))

    async def ask(self, method: str, params: Raw) -> Raw:
        missing = lacking(self._capabilities, method, params)
        if missing or len(self._asks) >= ASKS_MAX:
            self.missing |= missing
            raise PeerRefused(UNASKABLE, "The client did not declare that it can be asked this")
        self._asked += 1
        key, answer = f"{method.partition('/')[0]}-{self._asked}", asyncio.get_running_loop().create_future()
        self._asks[key] = (method, params, answer)
        self._changed.set()
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            raise PeerRefused(LATE, "The client did not answer in time") from None
        finally:
            self._asks.pop(key, None)

    def begin(self, handler: Handler) -> None:
        self.work = asyncio.create_task(handler(self))
        self.work.add_done_callback(lambda _: self._changed.set())

    def cancel(self) -> None:
        if self.work is not None:
            self.work.cancel()

    def answer(self, responses: Mapping[str, Any]) -> None:
        """Unknown keys mean nothing; what is no object is no answer."""
        for key, given in responses.items():
            if key in self._asks and isinstance(given, dict):
                answer = self._asks.pop(key)[2]
                if not answer.done():
                    answer.set_result(Raw(encode(given)))

    async def pause(self) -> Mapping[str, Any] | None:
        """Returns when the server asks something, with all that it asks, or when the call has ended, with None."""
        while self.work is not None and not self.work.done():
            if self._asks:
                return {key: {"method": method, "params": params} for key, (method, params, _) in self._asks.items()}
            self._changed.clear()
            await self._changed.wait()
        return None

    def result(self) -> bytes:
        """Of a call that has ended; raises what ended it. Where it failed for want of what the client can't do, that is what is said."""
        if self.work is None or self.work.cancelled():
            raise bad_state()
        failed = self.work.exception() is not None or FAILED.search(self.work.result()) is not None
        if self.missing and failed:
            raise BadEnvelope(MISSING_CAPABILITY, "the server asks what the client did not declare", {"requiredCapabilities": self.missing})
        return self.work.result()


class _Letter(Struct, omit_defaults=True):
    """What came of a round: a result, or an error with its HTTP status."""

    result: Raw | UnsetType = UNSET
    code: int = 0
    message: str = ""
    data: dict[str, Any] | None = None
    status: int = 400


_letter = msgspec.json.Decoder(_Letter).decode


def _letter_of(outcome: asyncio.Future[bytes]) -> _Letter:
    error = outcome.exception()
    if error is None:
        return _Letter(Raw(outcome.result()))
    refusal = refusal_of(error)
    return _Letter(UNSET, refusal.code, refusal.message, dict(refusal.data or {}), refusal.status)


class Parked:
    """The calls of this process that wait. `lives` tells of a process whether it is still there."""

    def __init__(self, seal: Seal, mailbox: Mailbox, process: str, lives: Callable[[str], Awaitable[bool]]) -> None:
        self._seal = seal
        self._mailbox = mailbox
        self._process = process
        self._lives = lives
        self._calls: dict[str, Running] = {}
        self._holders: Counter[str] = Counter()
        self._rounds: set[asyncio.Task[None]] = set()

    async def begin(self, running: Running, handler: Handler, bound: bytes) -> bytes:
        """Makes the call; its result, or that it asks something. Cancelled, it cancels the call."""
        running.begin(handler)
        try:
            return await self._turn(running, bound)
        except asyncio.CancelledError:
            running.cancel()
            raise

    async def resume(self, state: Sealed, responses: Mapping[str, Any], front: tuple[Outlet, Wanted], bound: bytes) -> bytes:
        """Brings answers to a call that waits. The same answers again get the same result. Raises BadEnvelope."""
        running = self._calls.get(state.parked)
        if running is None:
            return await self._elsewhere(state, responses)
        if state.round not in running.outcomes:
            raise bad_state()
        if state.round not in running.answered:
            running.front = front
            self._drive(running, state.round, responses, bound)
        running.waiting += 1
        try:
            return await asyncio.shield(running.outcomes[state.round])
        except asyncio.CancelledError:
            if running.waiting == 1 and not running.outcomes[state.round].done():
                running.cancel()
            raise
        finally:
            running.waiting -= 1

    async def close(self) -> None:
        """Ends all of them: nobody could answer any more."""
        for running in list(self._calls.values()):
            running.cancel()
        for task in list(self._rounds):
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)

    async def _turn(self, running: Running, bound: bytes) -> bytes:
        questions = await running.pause()
        running.front = None
        if questions is None:
            return running.result()
        return self._park(running, questions, bound)

    def _park(self, running: Running, questions: Mapping[str, Any], bound: bytes) -> bytes:
        if running.id not in self._calls:
            if len(self._calls) >= ALL_MAX or self._holders[running.holder] >= HOLDER_MAX:
                running.cancel()
                raise TooManyWaiting
            self._calls[running.id] = running
            self._holders[running.holder] += 1
            assert running.work is not None
            running.work.add_done_callback(lambda _: self._forget_later(running))
        running.round += 1
        outcome = running.outcomes[running.round] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting
        state = Sealed(self._seal.until(ANSWER_SECONDS), None, running.id, self._process, running.round)
        if self._mailbox.shared:
            self._task(self._answered_elsewhere(running, running.round, bound))
        return encode({"resultType": "input_required", "inputRequests": questions, "requestState": self._seal.close(state, bound)})

    def _forget_later(self, running: Running) -> None:
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, running)

    def _forget(self, running: Running) -> None:
        if self._calls.pop(running.id, None) is not None:
            self._holders[running.holder] -= 1
            if not self._holders[running.holder]:
                del self._holders[running.holder]

    def _drive(self, running: Running, number: int, responses: Mapping[str, Any], bound: bytes) -> None:
        """The next turn, whose outcome is for whoever brings the answers of this round, once or again."""
        running.answered.add(number)
        running.answer(responses)
        self._task(self._driven(running, number, bound))

    async def _driven(self, running: Running, number: int, bound: bytes) -> None:
        outcome = running.outcomes[number]
        try:
            outcome.set_result(await self._turn(running, bound))
        except Exception as error:  # noqa: BLE001 (a task's root: whoever waits is told, and the door logs what is unexpected)
            log.debug("parked_call_failed", error=type(error).__name__)
            outcome.set_exception(error)

    async def _elsewhere(self, state: Sealed, responses: Mapping[str, Any]) -> bytes:
        """Hands answers to the process that keeps the call, and waits for what comes of them."""
        if state.process == self._process or not self._mailbox.shared:
            raise bad_state()
        call, said = f"{state.parked}/{state.round}", encode(responses)
        if len(said) > RESPONSES_MAX:
            raise BadEnvelope(INVALID_PARAMS, f"params.inputResponses are larger than {RESPONSES_MAX} bytes")
        await self._mailbox.send(f"resume/{call}", said, ANSWER_SECONDS)
        try:
            letter = _letter(await self._answer_from(state.process, f"resumed/{call}"))
        except TimeoutError:
            raise bad_state() from None
        except asyncio.CancelledError:
            await asyncio.shield(self._mailbox.send(f"cancel/{call}", b"{}", ANSWER_SECONDS))
            raise
        if letter.result is UNSET:
            raise BadEnvelope(letter.code, letter.message, letter.data, letter.status)
        return bytes(letter.result)

    async def _answer_from(self, process: str, address: str) -> bytes:
        """A letter from another process. Raises TimeoutError when none came in time, or none can come: the process is no more."""
        letter = asyncio.create_task(self._mailbox.wait(address, REMOTE_SECONDS))
        try:
            while not letter.done():
                await asyncio.wait([letter], timeout=LOOK_SECONDS)
                if not letter.done() and not await self._is_there(process):
                    raise TimeoutError
            return letter.result()
        finally:
            letter.cancel()

    async def _is_there(self, process: str) -> bool:
        try:
            return await self._lives(process)
        except NotRead:
            return True  # as far as one can see

    async def _answered_elsewhere(self, running: Running, number: int, bound: bytes) -> None:
        """The other end of `_elsewhere`, for one round, which may also be answered here."""
        call, outcome = f"{running.id}/{number}", running.outcomes[number]
        given = await self._first(outcome, f"resume/{call}")
        if given is not None and number not in running.answered:
            self._drive(running, number, msgspec.json.decode(given), bound)
        if number not in running.answered:
            return
        if await self._first(outcome, f"cancel/{call}") is not None:
            running.cancel()
        await asyncio.wait([outcome])
        try:
            await self._mailbox.send(f"resumed/{call}", encode(_letter_of(outcome)), KEPT_SECONDS)
        except NotKept as error:  # whoever waits there is told that the state is good for nothing
            log.warning("parked_answer_not_sent", error=str(error))

    async def _first(self, outcome: asyncio.Future[bytes], address: str) -> bytes | None:
        """A letter, or None when the round is over before one comes."""
        letter = asyncio.create_task(self._mailbox.wait(address, ANSWER_SECONDS))
        try:
            await asyncio.wait([letter, outcome], return_when=asyncio.FIRST_COMPLETED)
            return letter.result() if letter.done() and letter.exception() is None else None
        finally:
            letter.cancel()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = let_go(work, "parked_call_lost")
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)
