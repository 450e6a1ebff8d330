"""Calls of modern clients that wait for answers, since a legacy server asks during a call and a modern client is asked by a result.

The call continues in the process that received it. The client's next request brings the answers to it, through any process.
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
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from gateway.concurrency.background import run_in_background
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.protocol.client_wishes import ClientWishes, missing_capabilities
from gateway.ingress.mcp_server.protocol.errors import json_rpc_error_of
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestState, RequestStateCipher, invalid_state_error
from gateway.ingress.mcp_server.protocol.response import HttpResponseWriter, frame_event
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.mailbox import ProcessMailbox
from policies.ids import new_id

ANSWER_SECONDS = 300.0  # a question waits that long for its answer
OUTCOME_SECONDS = 300.0  # a repeated answer gets the same result that long
REMOTE_SECONDS = 120.0  # how long another process may work on an answer
RESPONSES_MAX = 4 << 20  # bytes of answers that one process sends to another
POLL_SECONDS = 0.5  # between two checks that the other process is alive
CALLS_MAX, CALLS_PER_HOLDER, QUESTIONS_MAX = 1000, 20, 16
NOT_ASKABLE_CODE, TIMEOUT_CODE = -32601, -32001
IS_ERROR_PATTERN = re.compile(rb'"isError"\s*:\s*true')
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()
CallHandler = Callable[[McpPeer], Coroutine[Any, Any, bytes]]


class PendingCall:
    """One call, and the McpPeer that its server asks. `current_request` is the client's request in flight, if there is one."""

    def __init__(self, holder: str, capabilities: Mapping[str, Any], wishes: ClientWishes, response: HttpResponseWriter) -> None:
        self.id = new_id("k")
        self.holder = holder
        self.current_request: tuple[HttpResponseWriter, ClientWishes] | None = (response, wishes)
        self.missing_capabilities: dict[str, Any] = {}
        self.round = 0
        self.outcomes: dict[int, asyncio.Future[bytes]] = {}
        self.answered_rounds: set[int] = set()
        self.waiting_count = 0
        self.task: asyncio.Task[bytes] | None = None
        self._capabilities = capabilities
        self._asked_count = 0
        self._open_questions: dict[str, tuple[str, Raw, asyncio.Future[Raw]]] = {}
        self._changed = asyncio.Event()

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._capabilities

    async def notify(self, method: str, params: Raw) -> None:
        if self.current_request is not None and self.current_request[1].wants(method, params):
            self.current_request[0].send_event(frame_event(b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (encode(method), params)))

    async def ask(self, method: str, params: Raw) -> Raw:
        missing = missing_capabilities(self._capabilities, method, params)
        if missing or len(self._open_questions) >= QUESTIONS_MAX:
            self.missing_capabilities |= missing
            raise PeerRefused(NOT_ASKABLE_CODE, "The client did not declare the capability for this request")
        self._asked_count += 1
        key, answer = f"{method.partition('/')[0]}-{self._asked_count}", asyncio.get_running_loop().create_future()
        self._open_questions[key] = (method, params, answer)
        self._changed.set()
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            raise PeerRefused(TIMEOUT_CODE, "The client did not answer in time") from None
        finally:
            self._open_questions.pop(key, None)

    def start(self, handler: CallHandler) -> None:
        self.task = asyncio.create_task(handler(self))
        self.task.add_done_callback(lambda _: self._changed.set())

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def accept_answers(self, responses: Mapping[str, Any]) -> None:
        """Sets the answers of open questions. Unknown keys, and values that are not objects, are ignored."""
        for key, response in responses.items():
            if key in self._open_questions and isinstance(response, dict):
                answer = self._open_questions.pop(key)[2]
                if not answer.done():
                    answer.set_result(Raw(encode(response)))

    async def wait_for_pause(self) -> Mapping[str, Any] | None:
        """Returns all open questions as soon as the server asks, or None when the call has ended."""
        while self.task is not None and not self.task.done():
            if self._open_questions:
                return {key: {"method": method, "params": params} for key, (method, params, _) in self._open_questions.items()}
            self._changed.clear()
            await self._changed.wait()
        return None

    def result(self) -> bytes:
        """Returns the result of a call that has ended, or raises its error.

        Raises BadEnvelope when the call failed because the client lacks a capability.
        """
        if self.task is None or self.task.cancelled():
            raise invalid_state_error()
        failed = self.task.exception() is not None or IS_ERROR_PATTERN.search(self.task.result()) is not None
        if self.missing_capabilities and failed:
            raise BadEnvelope(
                MISSING_CAPABILITY,
                "the client lacks a capability that the server needs",
                {"requiredCapabilities": self.missing_capabilities},
            )
        return self.task.result()


class _RoundOutcome(Struct, omit_defaults=True):
    """The outcome of a round: a result, or an error with its HTTP status."""

    result: Raw | UnsetType = UNSET
    code: int = 0
    message: str = ""
    data: Any = None  # of a server's error: any JSON
    status: int = 400


_decode_outcome = msgspec.json.Decoder(_RoundOutcome).decode


def _round_outcome_of(outcome: asyncio.Future[bytes]) -> _RoundOutcome:
    error = outcome.exception()
    if error is None:
        return _RoundOutcome(Raw(outcome.result()))
    refusal = json_rpc_error_of(error)
    return _RoundOutcome(UNSET, refusal.code, refusal.message, refusal.data, refusal.status)


class PendingCalls:
    """The waiting calls of this process. `is_process_alive` returns whether another process still runs."""

    def __init__(
        self, state_cipher: RequestStateCipher, mailbox: ProcessMailbox, process: str, is_process_alive: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._state_cipher = state_cipher
        self._mailbox = mailbox
        self._process = process
        self._is_process_alive = is_process_alive
        self._calls: dict[str, PendingCall] = {}
        self._calls_per_holder: Counter[str] = Counter()
        self._round_tasks: set[asyncio.Task[None]] = set()

    async def start(self, pending: PendingCall, handler: CallHandler, state_context: bytes) -> bytes:
        """Makes the call and returns its result, or the questions it asks. Canceling it cancels the call."""
        pending.start(handler)
        try:
            return await self._run_turn(pending, state_context)
        except asyncio.CancelledError:
            pending.cancel()
            raise

    async def resume(
        self,
        state: RequestState,
        responses: Mapping[str, Any],
        state_context: bytes,
        *,
        response: HttpResponseWriter,
        wishes: ClientWishes,
    ) -> bytes:
        """Passes answers to a waiting call and returns its next result. Repeated answers get the same result. Raises BadEnvelope."""
        running = self._calls.get(state.pending_call_id)
        if running is None:
            return await self._resume_remotely(state, responses)
        if state.round not in running.outcomes:
            raise invalid_state_error()
        if state.round not in running.answered_rounds:
            running.current_request = (response, wishes)
            self._start_turn(running, state.round, responses, state_context)
        running.waiting_count += 1
        try:
            return await asyncio.shield(running.outcomes[state.round])
        except asyncio.CancelledError:
            if running.waiting_count == 1 and not running.outcomes[state.round].done():
                running.cancel()
            raise
        finally:
            running.waiting_count -= 1

    async def close(self) -> None:
        """Cancels all calls, since no answer can reach them any more."""
        for running in list(self._calls.values()):
            running.cancel()
        for task in list(self._round_tasks):
            task.cancel()
        await asyncio.gather(*self._round_tasks, return_exceptions=True)

    async def _run_turn(self, pending: PendingCall, state_context: bytes) -> bytes:
        questions = await pending.wait_for_pause()
        pending.current_request = None
        if questions is None:
            return pending.result()
        return self._request_input(pending, questions, state_context)

    def _request_input(self, pending: PendingCall, questions: Mapping[str, Any], state_context: bytes) -> bytes:
        if pending.id not in self._calls:
            if len(self._calls) >= CALLS_MAX or self._calls_per_holder[pending.holder] >= CALLS_PER_HOLDER:
                pending.cancel()
                raise TooManyWaiting
            self._calls[pending.id] = pending
            self._calls_per_holder[pending.holder] += 1
            assert pending.task is not None
            pending.task.add_done_callback(lambda _: self._remove_later(pending))
        pending.round += 1
        outcome = pending.outcomes[pending.round] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks the exception as retrieved
        state = RequestState(self._state_cipher.expiry_after(ANSWER_SECONDS), None, pending.id, self._process, pending.round)
        if self._mailbox.is_shared:
            self._run_in_background(self._serve_remote_answers(pending, pending.round, state_context))
        return encode(
            {"resultType": "input_required", "inputRequests": questions, "requestState": self._state_cipher.encrypt(state, state_context)}
        )

    def _remove_later(self, pending: PendingCall) -> None:
        asyncio.get_running_loop().call_later(OUTCOME_SECONDS, self._remove, pending)

    def _remove(self, pending: PendingCall) -> None:
        if self._calls.pop(pending.id, None) is not None:
            self._calls_per_holder[pending.holder] -= 1
            if not self._calls_per_holder[pending.holder]:
                del self._calls_per_holder[pending.holder]

    def _start_turn(self, pending: PendingCall, round_number: int, responses: Mapping[str, Any], state_context: bytes) -> None:
        """Starts the next turn. Its outcome is returned to every request with the answers of this round."""
        pending.answered_rounds.add(round_number)
        pending.accept_answers(responses)
        self._run_in_background(self._run_answered_turn(pending, round_number, state_context))

    async def _run_answered_turn(self, pending: PendingCall, round_number: int, state_context: bytes) -> None:
        outcome = pending.outcomes[round_number]
        try:
            outcome.set_result(await self._run_turn(pending, state_context))
        except Exception as error:  # noqa: BLE001 (a task's root: the waiting request gets the error and logs it)
            log.debug("pending_call_failed", error=type(error).__name__)
            outcome.set_exception(error)

    async def _resume_remotely(self, state: RequestState, responses: Mapping[str, Any]) -> bytes:
        """Sends answers to the process that has the call, and returns the outcome. Raises BadEnvelope."""
        if state.process == self._process or not self._mailbox.is_shared:
            raise invalid_state_error()
        call, body = f"{state.pending_call_id}/{state.round}", encode(responses)
        if len(body) > RESPONSES_MAX:
            raise BadEnvelope(INVALID_PARAMS, f"params.inputResponses are larger than {RESPONSES_MAX} bytes")
        await self._mailbox.send(f"resume/{call}", body, ANSWER_SECONDS)
        try:
            letter = _decode_outcome(await self._wait_for_outcome(state.process, f"resumed/{call}"))
        except TimeoutError:
            raise invalid_state_error() from None
        except asyncio.CancelledError:
            await asyncio.shield(self._mailbox.send(f"cancel/{call}", b"{}", ANSWER_SECONDS))
            raise
        if letter.result is UNSET:
            raise BadEnvelope(letter.code, letter.message, letter.data, letter.status)
        return bytes(letter.result)

    async def _wait_for_outcome(self, process: str, address: str) -> bytes:
        """Returns a message of another process. Raises TimeoutError when none came in time, or that process has ended."""
        letter = asyncio.create_task(self._mailbox.wait_for(address, REMOTE_SECONDS))
        try:
            while not letter.done():
                await asyncio.wait([letter], timeout=POLL_SECONDS)
                if not letter.done() and not await self._is_alive(process):
                    raise TimeoutError
            return letter.result()
        finally:
            letter.cancel()

    async def _is_alive(self, process: str) -> bool:
        try:
            return await self._is_process_alive(process)
        except ReadFailed:
            return True  # unknown, so wait until the timeout

    async def _serve_remote_answers(self, pending: PendingCall, round_number: int, state_context: bytes) -> None:
        """Receives answers and cancellations of one round from `_resume_remotely` of other processes, and sends the outcome back."""
        call, outcome = f"{pending.id}/{round_number}", pending.outcomes[round_number]
        mail = await self._wait_for_mail(outcome, f"resume/{call}")
        if mail is not None and round_number not in pending.answered_rounds:
            self._start_turn(pending, round_number, msgspec.json.decode(mail), state_context)
        if round_number not in pending.answered_rounds:
            return
        if await self._wait_for_mail(outcome, f"cancel/{call}") is not None:
            pending.cancel()
        await asyncio.wait([outcome])
        try:
            await self._mailbox.send(f"resumed/{call}", encode(_round_outcome_of(outcome)), OUTCOME_SECONDS)
        except WriteFailed as error:  # the other process reports an invalid state after its timeout
            log.warning("pending_call_outcome_not_sent", error=str(error))

    async def _wait_for_mail(self, outcome: asyncio.Future[bytes], address: str) -> bytes | None:
        """Returns a message, or None when the round ends first."""
        letter = asyncio.create_task(self._mailbox.wait_for(address, ANSWER_SECONDS))
        try:
            await asyncio.wait([letter, outcome], return_when=asyncio.FIRST_COMPLETED)
            return letter.result() if letter.done() and letter.exception() is None else None
        finally:
            letter.cancel()

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = run_in_background(work, "pending_call_task_failed")
        self._round_tasks.add(task)
        task.add_done_callback(self._round_tasks.discard)
