"""The A2A client over HTTP+JSON: 1.0 below the interface's URL, 0.3 below its `/v1`."""

import json
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from adapters.a2a_client.stream_batching import StreamBatches
from adapters.a2a_client.wire import tolerant, v03_proto, v1
from adapters.a2a_client.wire.rpc import V1, check_size
from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import (
    ANSWER_LIMIT,
    CODES_BY_REASON,
    METHOD_NOT_FOUND,
    TASK_NOT_FOUND,
    A2APeer,
    PeerError,
    PeerEvents,
    Transport,
    seconds_left,
)
from adapters.contract import Call, Challenged, InvalidAnswer, UpstreamFault
from adapters.task import Message, StreamResponse, Task, encode
from adapters.upstream.aws_access import AWS_OPTION
from adapters.upstream.egress import Egress
from adapters.upstream.request_signing import RequestSigner, Signer
from adapters.upstream.retry_after import add_retry_after
from policies.strict_json import LARGE, BadJson, parse, run_off_loop

_SEND: Final = "/message:send"
_STREAM: Final = "/message:stream"
_STATUS_CODES: Final = {400: -32602, 404: METHOD_NOT_FOUND, 405: METHOD_NOT_FOUND, 415: -32005, 501: METHOD_NOT_FOUND}
# Plain JSON, which every server accepts: some know no other type, and none may refuse it (A2A 1.0 s11.2).
_HEADERS: Final = {"Content-Type": "application/json"}
_ACCEPT: Final = "application/a2a+json, application/json"
_decode_event: Final = msgspec.json.Decoder(StreamResponse).decode
_decode_task: Final = msgspec.json.Decoder(Task).decode


class RestTransport:
    """Transport of HTTP+JSON over `egress`."""

    def __init__(self, egress: Egress, signer: Signer | None = None, limit: int = ANSWER_LIMIT) -> None:
        """`limit`: maximum bytes of one response, or of one event of a stream."""
        self._limit = limit
        self._egress = egress
        self._signer = signer or RequestSigner(str)

    async def send(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> PeerEvent:
        body = await self._request("POST", peer, call, _SEND, _send_params(peer, message, modes))
        return _read_event(body, peer) if len(body) <= LARGE else await run_off_loop(_read_event, body, peer)

    def stream(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> AsyncGenerator[PeerEvents, None]:
        return self._stream_events(peer, call, _STREAM, _send_params(peer, message, modes))

    def subscribe(self, peer: A2APeer, call: Call, task_id: str) -> AsyncGenerator[PeerEvents, None]:
        return self._stream_events(peer, call, f"/tasks/{quote(task_id, safe='')}:subscribe", {})

    async def _stream_events(self, peer: A2APeer, call: Call, path: str, params: Any) -> AsyncGenerator[PeerEvents, None]:
        body, url = encode(params), _url(peer, path)
        headers: Mapping[str, str] = {**_headers(peer, call), "Accept": "text/event-stream"}
        if AWS_OPTION in call.target.upstream:
            headers = await self._signer.signed_headers(call.target.upstream, "POST", url, body, headers)
        async with self._egress.stream("POST", url, headers=headers, body=body, timeout=seconds_left(call), carries_call=True) as answer:
            if answer.status != 200 or not answer.headers.get("content-type", "").startswith("text/event-stream"):
                response_body = await answer.read(self._limit)
                if answer.status != 200:
                    raise _challenge_in(answer) or _fault_of_status(
                        answer, response_body, METHOD_NOT_FOUND if path == _STREAM else TASK_NOT_FOUND
                    )
                yield (await run_off_loop(_read_event, response_body, peer),)
                return
            batches = StreamBatches(answer, self._limit, call.on_activity, partial(_read_event, peer=peer))
            while (events := await batches.next_batch()) is not None:
                yield events

    async def get_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        return await run_off_loop(_read_task, await self._request("GET", peer, call, f"/tasks/{quote(task_id, safe='')}"), peer)

    async def cancel_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        return await run_off_loop(_read_task, await self._request("POST", peer, call, f"/tasks/{quote(task_id, safe='')}:cancel", {}), peer)

    async def _request(self, method: str, peer: A2APeer, call: Call, path: str, params: Any = None) -> bytes:
        body, url = None if params is None else encode(params), _url(peer, path)
        headers: Mapping[str, str] = {**_headers(peer, call), "Accept": _ACCEPT}
        if AWS_OPTION in call.target.upstream:
            headers = await self._signer.signed_headers(call.target.upstream, method, url, body or b"", headers)
        answer = await self._egress.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=seconds_left(call),
            limit=self._limit,
            idempotent=method == "GET",
            carries_call=True,
        )
        if answer.status != 200:
            raise _challenge_in(answer) or _fault_of_status(answer, answer.body, METHOD_NOT_FOUND if path == _SEND else TASK_NOT_FOUND)
        return answer.body


def _url(peer: A2APeer, path: str) -> str:
    """The URL of a method (A2A 1.0 s11.3): a tenant is the first segment of the path."""
    base = peer.url.rstrip("/")
    if peer.is_v03:
        return f"{base.removesuffix('/v1')}/v1{path}"
    return f"{base}/{quote(peer.tenant, safe='')}{path}" if peer.tenant else base + path


def _headers(peer: A2APeer, call: Call) -> dict[str, str]:
    return {**call.headers, **_HEADERS} if peer.is_v03 else {**call.headers, **_HEADERS, **V1.headers}


def _send_params(peer: A2APeer, message: Message, modes: tuple[str, ...]) -> Any:
    if peer.is_v03:
        return v03_proto.build_send_params(message, modes, peer.push_url, peer.metadata)
    return V1.send_params(message, modes, "", peer.push_url, peer.metadata)


def _read_event(body: bytes, peer: A2APeer) -> PeerEvent:
    """Decodes a response. Clean 1.0 is decoded by type; anything else by its shape."""
    check_size(body)
    if not peer.is_v03:
        try:
            response = _decode_event(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            if (member := v1.clean_member(response)) is not None:
                return member
    value = _parse_json(body)
    if isinstance(value, dict) and "error" in value:
        raise _error_in(value, "an error", -32603)
    return tolerant.read_event(v03_proto.lift_event(value) if peer.is_v03 else value)


def _read_task(body: bytes, peer: A2APeer) -> Task:
    check_size(body)
    if not peer.is_v03:
        try:
            task = _decode_task(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            if v1.is_clean_task(task):
                return task
    value = _parse_json(body)
    return tolerant.read_task(v03_proto.lift_event(value) if peer.is_v03 else value)


def _parse_json(body: bytes) -> Any:
    try:
        return parse(body)
    except BadJson as bad:
        raise InvalidAnswer("The agent did not answer in JSON", str(bad)) from None


class _StatusAndHeaders(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


def _challenge_in(answer: _StatusAndHeaders) -> UpstreamFault | None:
    """The challenge of a response that requires another credential; else None."""
    challenge = answer.headers.get("www-authenticate", "")
    if answer.status != 401 and not (answer.status == 403 and challenge):
        return None
    return Challenged(answer.status, challenge, public=f"The agent refused the gateway's credential (HTTP {answer.status})")


def _fault_of_status(answer: _StatusAndHeaders, body: bytes, not_found_code: int) -> UpstreamFault:
    """The fault for a status other than 200. `not_found_code`: the code for a 404 without a known reason."""
    status = answer.status
    if status in (401, 403):
        return UpstreamFault(f"The agent refused the gateway's credential (HTTP {status})")
    try:
        value = parse(body)
    except BadJson:
        value = None
    code = not_found_code if status == 404 else _STATUS_CODES.get(status, 0)
    return add_retry_after(_error_in(value, f"HTTP {status}", code), status, answer.headers)


def _error_in(value: Any, status_text: str, code: int) -> UpstreamFault:
    """The fault of an error body (A2A 1.0 s11.6), by the reason of its ErrorInfo. Some agents send a JSON-RPC code instead."""
    error = value.get("error", value) if isinstance(value, dict) else None
    error = error if isinstance(error, Mapping) else {}
    details = error.get("details")
    reasons = [detail.get("reason") for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    code = next((CODES_BY_REASON[reason] for reason in reasons if isinstance(reason, str) and reason in CODES_BY_REASON), code)
    declared_code = error.get("code")
    if type(declared_code) is int and declared_code < -32000:
        code = declared_code
    detail = json.dumps(error)[:500]
    return PeerError(code, status_text, detail) if code else UpstreamFault(f"The agent answered with {status_text}", detail)


_: type[Transport] = RestTransport
