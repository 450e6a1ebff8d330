"""From a server's answer to the client's: results and refusals of the other era, and the rounds that a server's questions take."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Challenged, Failure, Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import Exchange
from adapters.mcp_client.exchange.server_messages import ANSWER_SECONDS
from adapters.mcp_client.wire.eras import (
    decode_checked,
    input_required_members,
    missing_capabilities,
    refusal_from,
    translate_question,
    translate_result,
)
from adapters.mcp_client.wire.messages import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    URL_REQUIRED,
    HeadersDiffer,
    McpAnswer,
    McpRefused,
    McpRequest,
    Members,
    WireError,
    members_of,
)
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from adapters.upstream.retry_after import add_retry_after
from policies.strict_json import LARGE, run_in_reader

ROUNDS_MAX: Final = 8
QUESTIONS_MAX: Final = 16  # of one round
_OTHER_ERA_STATUSES: Final = frozenset({400, 404, 405, 406})  # what a server of the other era answers to a request it does not know
_OUTAGE_STATUSES: Final = frozenset({502, 503, 504})  # what stands before a server that is gone
_decode_questions: Final = msgspec.json.Decoder(dict[str, dict[str, Raw]]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class InputRound(NamedTuple):
    """Which repetition of a request it is (0: none), the members that it adds, and for how many seconds the client was asked so far."""

    number: int = 0
    answers: Mapping[str, Any] = {}
    paused_seconds: float = 0.0


SendRound = Callable[[InputRound], Awaitable[Exchange]]


class WrongEra(Exception):
    """The server answers as one of the other era would. Nothing was done for the call."""


def client_answer(request: McpRequest, exchange: Exchange, from_modern: bool) -> McpAnswer:
    """The answer, where the server (`modern` is its era) asks for nothing more. Raises as McpPool.call, and WrongEra."""
    answer = exchange.answer
    if answer is not None and isinstance(answer.result, Raw) and exchange.status == 200:
        result = bytes(answer.result)
        return McpAnswer(result if request.is_modern == from_modern else translate_result(request, result, from_modern))
    raise _failure_of(request, exchange, from_modern)


async def client_answer_off_loop(request: McpRequest, exchange: Exchange, from_modern: bool) -> McpAnswer:
    """Reads the answer as `answered` does; a large one that has to cross between the eras beside the event loop."""
    result = exchange.answer.result if exchange.answer is not None else UNSET
    if request.is_modern == from_modern or not isinstance(result, Raw) or memoryview(result).nbytes <= LARGE:
        return client_answer(request, exchange, from_modern)
    return await run_in_reader(client_answer, request, exchange, from_modern)


async def run_rounds(request: McpRequest, peer: McpPeer, to_modern: bool, send_round: SendRound, clock: Callable[[], float]) -> McpAnswer:
    """The answer after as many rounds as it takes; `once` sends the request. While the client is asked, the call's time stands still:
    `clock` counts its seconds.

    Only questions that can't reach the client as they are are asked here: a modern server's for an older client, and the refusal
    of an older server (-32042) for a modern one.
    """
    answers: Mapping[str, Any] = {}
    thought = 0.0
    for number in range(ROUNDS_MAX):
        exchange = await send_round(InputRound(number, answers, thought))
        began = clock()
        required = None
        if to_modern and not request.is_modern:
            required = _input_required_in(exchange)
        if required is not None:
            answers = await _ask_questions(peer, required)
            thought += clock() - began
            continue
        try:
            return await client_answer_off_loop(request, exchange, to_modern)
        except McpRefused as refused:
            if not (request.is_modern and not to_modern and refused.code == URL_REQUIRED and refused.data):
                raise
            await _ask_to_open_urls(peer, refused.data["elicitations"])
            thought += clock() - began
    raise McpRefused(-32603, "the server asks without end")


def _input_required_in(exchange: Exchange) -> Members | None:
    answer = exchange.answer
    return (
        input_required_members(answer.result) if answer is not None and isinstance(answer.result, Raw) and exchange.status == 200 else None
    )


async def _ask_questions(peer: McpPeer, required: Members) -> dict[str, Any]:
    """Puts each question to the client, one after the other."""
    questions: dict[str, dict[str, Raw]] = decode_checked(required.get("inputRequests", Raw(b"{}")), _decode_questions)
    if len(questions) > QUESTIONS_MAX or not (questions or "requestState" in required):
        raise UpstreamFault("The server's message is not valid", f"{len(questions)} input requests")
    if "requestState" in required:
        decode_checked(required["requestState"], _decode_text)
    results: dict[str, Raw] = {}
    for key, question in questions.items():
        method = decode_checked(question.get("method", Raw(b"null")), _decode_text)
        params = members_of(question.get("params", Raw(b"{}")))
        if missing_capabilities(peer, method, params) is not None:
            raise McpRefused(MISSING_CAPABILITY, f"asks for {method[:100]}, which the client did not declare")
        results[key] = await _ask_peer(peer, method, translate_question(False, True, method, params))
    state = {"requestState": required["requestState"]} if "requestState" in required else {}
    return {"inputResponses": results, **state}


async def _ask_peer(peer: McpPeer, method: str, params: Raw) -> Raw:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await peer.ask(method, params)
    except TimeoutError:
        raise McpRefused(-32603, "the client does not answer in time") from None
    except PeerRefused as refused:
        raise McpRefused(-32603, f"the client does not answer: {refused.code}") from None


async def _ask_to_open_urls(peer: McpPeer, elicitations: list[Any]) -> None:
    """Asks a modern client to visit the addresses that an older server needs visited. Raises McpRefused where it does not."""
    if not 0 < len(elicitations) <= QUESTIONS_MAX:
        raise UpstreamFault("The server's message is not valid", f"{len(elicitations)} elicitations")
    for one in elicitations:
        params = members_of(msgspec.json.encode(one))
        needed = missing_capabilities(peer, "elicitation/create", {**params, "mode": Raw(b'"url"')})
        if needed:
            raise McpRefused(MISSING_CAPABILITY, "an elicitation by URL", {"requiredCapabilities": needed})
        said = members_of(await _ask_peer(peer, "elicitation/create", translate_question(True, False, "elicitation/create", params)))
        if bytes(said.get("action", Raw(b""))) != b'"accept"':
            raise McpRefused(URL_REQUIRED, "the person did not visit the address")


def _failure_of(request: McpRequest, exchange: Exchange, from_modern: bool) -> Exception:
    """The exception that an answer without a result means."""
    answer, status = exchange.answer, exchange.status
    error = answer.error if answer is not None and isinstance(answer.error, WireError) else None
    detail = f"status {status}" + (f", {error.code}: {error.message[:300]}" if error else "")
    if status in (401, 403):
        return Challenged(status, exchange.headers.get("www-authenticate", ""), detail)
    if error is not None and _is_refusal(error.code, status):
        return refusal_from(request, error, detail)
    if error is not None and error.code == HEADER_MISMATCH:
        return HeadersDiffer("The server finds fault with the gateway's request", detail)
    if (from_modern and status in _OTHER_ERA_STATUSES) or (error is not None and error.code == UNSUPPORTED_VERSION):
        return WrongEra(f"{'modern' if from_modern else 'legacy'}, {detail}")
    fault = Unreachable("The server failed", detail) if status in _OUTAGE_STATUSES else UpstreamFault("The server failed", detail)
    if status == 429:
        fault = UpstreamFault("The server is busy", detail, Failure.BUSY)
    return add_retry_after(fault, status, exchange.headers)


def _is_refusal(code: int, status: int) -> bool:
    """A JSON-RPC error about the call itself: any over 200, else the codes that a modern server gives with 400 and 404."""
    if code in (HEADER_MISMATCH, UNSUPPORTED_VERSION):
        return False
    return status == 200 or code in (-32601, -32602, -32603, MISSING_CAPABILITY)
