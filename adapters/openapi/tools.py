"""HTTP APIs with an OpenAPI document, called like MCP servers."""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import Raw

from adapters.contract import Call, Challenged, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, answer_with
from adapters.openapi.document import ApiTools, operation_of, read_api
from adapters.openapi.encoding import HttpCall, encode_call
from adapters.openapi.multipart import BadArguments
from adapters.openapi.text import DOCUMENT_MAX, parse_document
from adapters.upstream.egress import BODY_MAX, Egress
from adapters.upstream.http1.responses import HttpResponse
from policies.strict_json import BadJson, parse

OPENAPI_KIND: Final = "openapi"
READ_SECONDS: Final = 20.0
CONCURRENT_READS_MAX: Final = 2  # in one process, since parsing a large document takes hundreds of megabytes
READER_VERSION: Final = b"2"  # changes whenever the same document would give other tools


class DocumentUnchanged(Exception):
    """The document has not changed since it was last read."""


class OpenApiServers:
    """Calls HTTP APIs. `clock` counts the seconds of deadlines."""

    def __init__(self, egress: Egress, clock: Callable[[], float]) -> None:
        self._egress = egress
        self._clock = clock
        self._read_slots = asyncio.Semaphore(CONCURRENT_READS_MAX)

    async def read(self, source: str, headers: Mapping[str, str], known_digest: str = "") -> ApiTools:
        """Fetches and reads a document, JSON or YAML. `known_digest` is the digest of the last one.

        Raises UpstreamFault, EgressRefused and DocumentUnchanged.
        """
        request_headers = {"accept": "application/json, application/yaml;q=0.9, */*;q=0.1", **headers}
        async with self._read_slots:
            answer = await self._egress.request("GET", source, headers=request_headers, body=None, timeout=READ_SECONDS, limit=DOCUMENT_MAX)
            if answer.status != 200:
                raise UpstreamFault("The OpenAPI document can't be fetched", f"status {answer.status}")
            return await asyncio.to_thread(_read_document, answer.body, source, known_digest)

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Makes one call. Raises UpstreamFault, McpRefused and EgressRefused; an unsuccessful status is a result with isError."""
        if request.method != "tools/call":
            raise McpRefused(-32601, request.method)
        tool = next((tool for tool in call.target.tools if tool.name == request.name), None)
        arguments = parse(request.params).get("arguments", {})
        if tool is None or not isinstance(arguments, dict):
            raise McpRefused(-32602, "no such tool")
        try:
            wanted = encode_call(operation_of(tool.definition), arguments)
        except BadArguments as error:
            return answer_with(request, {"content": [{"type": "text", "text": str(error)}], "isError": True})
        return answer_with(request, _result_of_response(await self._send(call, wanted)))

    async def _send(self, call: Call, http_call: HttpCall) -> HttpResponse:
        reserved_names = {name.lower() for name in call.headers}  # arguments can't override them
        argument_headers = {name: value for name, value in http_call.headers.items() if name not in reserved_names}
        headers = {"accept": "application/json, */*;q=0.5", **argument_headers, **call.headers}
        seconds = call.deadline - self._clock()
        if seconds <= 0:
            raise UpstreamFault("The server did not answer in time", "the deadline has passed")
        url = call.target.url.rstrip("/") + http_call.url
        answer = await self._egress.request(
            http_call.method, url, headers=headers, body=http_call.body, timeout=seconds, limit=BODY_MAX, carries_call=True
        )
        challenge = answer.headers.get("www-authenticate", "")
        if "auth" in call.target.upstream and (answer.status == 401 or (answer.status == 403 and "insufficient_scope" in challenge)):
            raise Challenged(answer.status, challenge)
        return answer


def _read_document(text: bytes, source: str, known_digest: str) -> ApiTools:
    """Parses a fetched document. Raises UpstreamFault and DocumentUnchanged."""
    digest = hashlib.sha256(READER_VERSION + text).hexdigest()
    if digest == known_digest:
        raise DocumentUnchanged
    return replace(read_api(parse_document(text), source), digest=digest)


def _result_of_response(answer: HttpResponse) -> dict[str, Any]:
    """The response's body as one content block; a JSON object also as structured content."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    failed = {} if 200 <= answer.status < 300 else {"isError": True}
    if kind.startswith(("image/", "audio/")) and not failed:
        return {"content": [{"type": kind.partition("/")[0], "data": base64.b64encode(answer.body).decode(), "mimeType": kind}]}
    try:
        text = answer.body.decode()
    except UnicodeDecodeError:
        text = f"{len(answer.body)} bytes of {kind or 'an unnamed type'}"
    content = [{"type": "text", "text": f"HTTP status {answer.status}\n{text}".strip() if failed else text}]
    try:
        structured = isinstance(parse(answer.body), dict) and not failed
    except BadJson:
        structured = False
    return {"content": content, **failed} | ({"structuredContent": Raw(answer.body)} if structured else {})
