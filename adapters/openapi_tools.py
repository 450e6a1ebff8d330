"""HTTP APIs that are described by an OpenAPI document, called as MCP servers are."""

import asyncio
import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml
from msgspec import Raw
from yaml.events import AliasEvent

from adapters.contract import Call, Challenged, UpstreamFault
from adapters.egress import LIMIT, Egress
from adapters.http1 import Fetched
from adapters.mcp_wire import McpAnswer, McpRefused, McpRequest, encode
from adapters.openapi_document import Api, operation_of, read_api
from adapters.openapi_encoding import BadArguments, HttpCall, encoded
from policies.strict_json import BadJson, parse

KIND: Final = "openapi"
DOCUMENT_MAX: Final = 4 << 20  # bytes
YAML_MAX: Final = 1 << 20  # bytes, which are read much more slowly
READ_SECONDS: Final = 20.0
NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")


class OpenApi:
    """`clock` counts the seconds that deadlines are given in."""

    def __init__(self, egress: Egress, clock: Callable[[], float]) -> None:
        self._egress = egress
        self._clock = clock

    async def read(self, source: str, headers: Mapping[str, str]) -> Api:
        """The API that a document describes, JSON or YAML. Raises UpstreamFault and EgressRefused."""
        asking = {"accept": "application/json, application/yaml;q=0.9, */*;q=0.1", **headers}
        answer = await self._egress.request("GET", source, headers=asking, body=None, timeout=READ_SECONDS, limit=DOCUMENT_MAX)
        if answer.status != 200:
            raise UpstreamFault("The OpenAPI document can't be had", f"status {answer.status}")
        return await asyncio.to_thread(lambda: read_api(parsed(answer.body), source))

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Makes one call. Raises UpstreamFault, McpRefused and EgressRefused; an answer that is no success is a result with isError."""
        if request.method != "tools/call":
            raise McpRefused(-32601, request.method)
        tool = next((tool for tool in call.target.tools if tool.name == request.name), None)
        arguments = parse(request.params).get("arguments", {})
        if tool is None or not isinstance(arguments, dict):
            raise McpRefused(-32602, "no such tool")
        try:
            wanted = encoded(operation_of(tool.definition), arguments)
        except BadArguments as error:
            return _result(request, {"content": [{"type": "text", "text": str(error)}], "isError": True})
        return _result(request, _content(await self._sent(call, wanted)))

    async def _sent(self, call: Call, wanted: HttpCall) -> Fetched:
        ours = {name.lower() for name in call.headers}  # no argument takes their place
        given = {name: value for name, value in wanted.headers.items() if name not in ours}
        headers = {"accept": "application/json, */*;q=0.5", **given, **call.headers}
        seconds = call.deadline - self._clock()
        if seconds <= 0:
            raise UpstreamFault("The server did not answer in time", "the deadline has passed")
        url = call.target.url.rstrip("/") + wanted.url
        answer = await self._egress.request(wanted.method, url, headers=headers, body=wanted.body, timeout=seconds, limit=LIMIT)
        challenge = answer.headers.get("www-authenticate", "")
        if "auth" in call.target.upstream and (answer.status == 401 or (answer.status == 403 and "insufficient_scope" in challenge)):
            raise Challenged(answer.status, challenge)
        return answer


def parsed(text: bytes) -> Any:
    """A document, JSON or YAML without aliases, which could make a small text endless. Raises UpstreamFault."""
    try:
        return parse(text)
    except BadJson:
        if len(text) > YAML_MAX:
            raise UpstreamFault("The OpenAPI document is no JSON, and too large for YAML", f"more than {YAML_MAX} bytes") from None
        try:
            return parse(encode(yaml.load(text, _Plain)))  # noqa: S506 (a safe loader, and stricter)
        except (yaml.YAMLError, BadJson, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UpstreamFault("The OpenAPI document is neither JSON nor YAML", str(error)[:200]) from None


class _Plain(yaml.SafeLoader):
    """Numbers are those of JSON: others, such as `1:1:1`, take longer the longer they are."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)

    def number(self, node: yaml.ScalarNode) -> Any:
        text = str(self.construct_scalar(node))
        return parse(text.encode()) if NUMBER.fullmatch(text) else text


for _kind in ("int", "float"):
    _Plain.add_constructor(f"tag:yaml.org,2002:{_kind}", _Plain.number)


def _result(request: McpRequest, result: Mapping[str, Any]) -> McpAnswer:
    return McpAnswer(encode({**result, "resultType": "complete"} if request.modern else result))


def _content(answer: Fetched) -> dict[str, Any]:
    """The answer's body as one block; a JSON object as structured content too."""
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
