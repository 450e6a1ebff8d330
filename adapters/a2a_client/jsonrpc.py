"""The A2A client over JSON-RPC: one HTTP request per call, in either version."""

import itertools
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from adapters.a2a_client.stream_batching import StreamBatches
from adapters.a2a_client.wire import rpc
from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import ANSWER_LIMIT, A2APeer, PeerEvents, Transport, seconds_left
from adapters.contract import Call, UpstreamFault
from adapters.task import Message, Task
from adapters.upstream.aws_access import AWS_OPTION
from adapters.upstream.egress import Egress, StreamedResponse
from adapters.upstream.http1.responses import HttpResponse
from adapters.upstream.request_signing import RequestSigner, Signer
from adapters.upstream.retry_after import add_retry_after
from policies.strict_json import LARGE, run_off_loop


class JsonRpcTransport:
    """Transport of JSON-RPC over `egress`."""

    def __init__(self, egress: Egress, signer: Signer | None = None, limit: int = ANSWER_LIMIT) -> None:
        """`limit`: maximum bytes of one response, or of one event of a stream."""
        self._limit = limit
        self._egress = egress
        self._signer = signer or RequestSigner(str)
        self._ids = itertools.count(1)

    async def send(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> PeerEvent:
        dialect = _dialect(peer)
        params = dialect.send_params(message, modes, peer.tenant, peer.push_url, peer.metadata)
        body, request_id = await self._request(peer, call, dialect.send, params)
        return rpc.read_event(body, request_id) if len(body) <= LARGE else await run_off_loop(rpc.read_event, body, request_id)

    def stream(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> AsyncGenerator[PeerEvents, None]:
        dialect = _dialect(peer)
        params = dialect.send_params(message, modes, peer.tenant, "", peer.metadata)
        return self._stream_events(peer, call, dialect.stream, params)

    def subscribe(self, peer: A2APeer, call: Call, task_id: str) -> AsyncGenerator[PeerEvents, None]:
        return self._stream_events(peer, call, _dialect(peer).subscribe, _task_params(peer, task_id))

    async def _stream_events(self, peer: A2APeer, call: Call, method: str, params: Any) -> AsyncGenerator[PeerEvents, None]:
        request_id = next(self._ids)
        body = rpc.request_bytes(request_id, method, params)
        headers: Mapping[str, str] = _headers(peer, call, "text/event-stream")
        if AWS_OPTION in call.target.upstream:
            headers = await self._signer.signed_headers(call.target.upstream, "POST", peer.url, body, headers)
        async with self._egress.stream(
            "POST", peer.url, headers=headers, body=body, timeout=seconds_left(call), carries_call=True
        ) as answer:
            if answer.status != 200 or not answer.headers.get("content-type", "").startswith("text/event-stream"):
                response_body = await answer.read(self._limit)
                if answer.status != 200:
                    raise _refusal(answer, response_body)
                yield (await run_off_loop(rpc.read_event, response_body, request_id),)
                return
            decode = partial(rpc.read_event, request_id=request_id)
            batches = StreamBatches(answer, self._limit, call.on_activity, decode)
            while (events := await batches.next_batch()) is not None:
                yield events

    async def get_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        return await run_off_loop(rpc.read_task, *await self._request(peer, call, _dialect(peer).get, _task_params(peer, task_id)))

    async def cancel_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        return await run_off_loop(rpc.read_task, *await self._request(peer, call, _dialect(peer).cancel, _task_params(peer, task_id)))

    async def _request(self, peer: A2APeer, call: Call, method: str, params: Any) -> tuple[bytes, int]:
        request_id = next(self._ids)
        body = rpc.request_bytes(request_id, method, params)
        headers: Mapping[str, str] = _headers(peer, call, "application/json")
        if AWS_OPTION in call.target.upstream:
            headers = await self._signer.signed_headers(call.target.upstream, "POST", peer.url, body, headers)
        answer = await self._egress.request(
            "POST",
            peer.url,
            headers=headers,
            body=body,
            timeout=seconds_left(call),
            limit=self._limit,
            idempotent=method == _dialect(peer).get,
            carries_call=True,
        )
        if answer.status != 200:
            raise _refusal(answer, answer.body)
        return answer.body, request_id


def _refusal(answer: HttpResponse | StreamedResponse, body: bytes) -> UpstreamFault:
    """The fault for a status other than 200, with the agent's Retry-After."""
    fault = rpc.http_fault(answer.status, body, answer.headers.get("www-authenticate", ""))
    return add_retry_after(fault, answer.status, answer.headers)


def _dialect(peer: A2APeer) -> rpc.Dialect:
    return rpc.V03 if peer.is_v03 else rpc.V1


def _task_params(peer: A2APeer, task_id: str) -> dict[str, str]:
    return {"id": task_id, "tenant": peer.tenant} if peer.tenant else {"id": task_id}


def _headers(peer: A2APeer, call: Call, accept: str) -> dict[str, str]:
    return {**call.headers, **_dialect(peer).headers, "Content-Type": "application/json", "Accept": accept}


_: type[Transport] = JsonRpcTransport
