"""Converts a server's response for the client: results and errors of the other era, and rounds of questions to the client."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.exchange.http import Exchange, client_answer
from adapters.mcp_client.exchange.server_messages import ANSWER_SECONDS
from adapters.mcp_client.wire.eras import (
    decode_checked,
    input_required_members,
    missing_capabilities,
    translate_question,
)
from adapters.mcp_client.wire.messages import (
    MISSING_CAPABILITY,
    URL_REQUIRED,
    McpAnswer,
    McpRefused,
    McpRequest,
    Members,
    members_of,
)
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from policies.strict_json import LARGE, run_in_reader

ROUNDS_MAX: Final = 8
QUESTIONS_MAX: Final = 16  # of one round
_decode_questions: Final = msgspec.json.Decoder(dict[str, dict[str, Raw]]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class InputRound(NamedTuple):
    """A repetition of a request: its number (0: the first), the members that it adds, and the seconds that the client was asked so far."""

    number: int = 0
    answers: Mapping[str, Any] = {}
    paused_seconds: float = 0.0


SendRound = Callable[[InputRound], Awaitable[Exchange]]


async def client_answer_off_loop(request: McpRequest, exchange: Exchange, from_modern: bool) -> McpAnswer:
    """Like `client_answer`; translates a large result of the other era in a thread."""
    result = exchange.answer.result if exchange.answer is not None else UNSET
    if request.is_modern == from_modern or not isinstance(result, Raw) or memoryview(result).nbytes <= LARGE:
        return client_answer(request, exchange, from_modern)
    return await run_in_reader(client_answer, request, exchange, from_modern)


async def run_rounds(request: McpRequest, peer: McpPeer, to_modern: bool, send_round: SendRound, clock: Callable[[], float]) -> McpAnswer:
    """Sends a request with `send_round` until it has a response, and asks the client in between, which pauses the call's time.

    Asks only questions that can't be passed on: a modern server's for a client of the older era, and the refusal of an older server
    (-32042) for a modern client. `clock` counts seconds.
    """
    answers: Mapping[str, Any] = {}
    paused_seconds = 0.0
    for number in range(ROUNDS_MAX):
        exchange = await send_round(InputRound(number, answers, paused_seconds))
        began = clock()
        required = None
        if to_modern and not request.is_modern:
            required = _input_required_in(exchange)
        if required is not None:
            answers = await _ask_questions(peer, required)
            paused_seconds += clock() - began
            continue
        try:
            return await client_answer_off_loop(request, exchange, to_modern)
        except McpRefused as refused:
            if not (request.is_modern and not to_modern and refused.code == URL_REQUIRED and refused.data):
                raise
            await _ask_to_open_urls(peer, refused.data["elicitations"])
            paused_seconds += clock() - began
    raise McpRefused(-32603, "the server asked more than the allowed rounds")


def _input_required_in(exchange: Exchange) -> Members | None:
    answer = exchange.answer
    return (
        input_required_members(answer.result) if answer is not None and isinstance(answer.result, Raw) and exchange.status == 200 else None
    )


async def _ask_questions(peer: McpPeer, required: Members) -> dict[str, Any]:
    """Asks the client each question, one after the other, and returns the members of the repetition."""
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
        raise McpRefused(-32603, "the client did not answer in time") from None
    except PeerRefused as refused:
        raise McpRefused(-32603, f"the client did not answer: {refused.code}") from None


async def _ask_to_open_urls(peer: McpPeer, elicitations: list[Any]) -> None:
    """Asks a modern client to open the URLs that an older server requires. Raises McpRefused where it does not."""
    if not 0 < len(elicitations) <= QUESTIONS_MAX:
        raise UpstreamFault("The server's message is not valid", f"{len(elicitations)} elicitations")
    for one in elicitations:
        params = members_of(msgspec.json.encode(one))
        needed = missing_capabilities(peer, "elicitation/create", {**params, "mode": Raw(b'"url"')})
        if needed:
            raise McpRefused(MISSING_CAPABILITY, "an elicitation by URL", {"requiredCapabilities": needed})
        answer = members_of(await _ask_peer(peer, "elicitation/create", translate_question(True, False, "elicitation/create", params)))
        if bytes(answer.get("action", Raw(b""))) != b'"accept"':
            raise McpRefused(URL_REQUIRED, "the person did not open the URL")
