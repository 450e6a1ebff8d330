"""The upstream of the benchmark: an MCP server of revision 2026-07-28 at /mcp and A2A agents, which say what they hear."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.bench.echo_agents import AGENTS, PAUSES, Refused, agent_card, answer_a2a, answer_a2a_0_3, answer_stream
from tests.bench.workload import EXPOSED, MCP_VERSION, SESSION_VERSION

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

TWENTY, THOUSAND = "/mcp-twenty", "/mcp-thousand"  # as many tools
OLDER = "/mcp-older"  # a server of the initialize era
_SESSION = "session-of-the-initialize-era"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_INFO = {"io.modelcontextprotocol/serverInfo": {"name": "echo", "version": "1.0.0"}}
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_TOOL = {
    "name": "echo",
    "description": "Says what it hears.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def discovery_result() -> dict[str, Any]:
    return {
        "resultType": "complete",
        "supportedVersions": [MCP_VERSION],
        "capabilities": {"tools": {}},
        "ttlMs": 60_000,
        "cacheScope": "public",
        "_meta": _INFO,
    }


def tool_list() -> dict[str, Any]:
    return {"resultType": "complete", "tools": [_TOOL], "ttlMs": 60_000, "cacheScope": "public", "_meta": _INFO}


def tool_list_of(count: int) -> dict[str, Any]:
    """As `listed`, of `count` tools."""
    return {**tool_list(), "tools": [{**_TOOL, "name": f"t{number}"} for number in range(count)]}


def call_tool(params: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The result of tools/call. Raises Refused."""
    name, text = params.get("name"), params.get("arguments", {}).get("text")
    if name != headers.get(b"mcp-name", b"").decode("latin-1"):
        raise Refused(400, -32020, "Mcp-Name and the body differ")
    if name not in ("echo", EXPOSED) or not isinstance(text, str):
        raise Refused(200, -32602, "the tool is echo, its argument is text")
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}


def answer_mcp(request: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The result of one MCP request. Raises Refused."""
    method, params = request["method"], request.get("params", {})
    meta = params.get("_meta", {})
    if _VERSION_KEY not in meta or _CAPABILITIES_KEY not in meta:
        raise Refused(400, -32602, "_meta lacks the protocol version or the capabilities")
    if meta[_VERSION_KEY] != MCP_VERSION:
        raise Refused(400, -32022, "only 2026-07-28 is spoken here")
    if headers.get(b"mcp-protocol-version") != MCP_VERSION.encode() or headers.get(b"mcp-method") != method.encode():
        raise Refused(400, -32020, "a routing header and the body differ")
    if method == "tools/call":
        return call_tool(params, headers)
    if method in ("server/discover", "tools/list"):
        return discovery_result() if method == "server/discover" else tool_list()
    raise Refused(404, -32601, "no such method")


def answer_older_mcp(request: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The result of one request to a server of the initialize era. Raises Refused."""
    method = request["method"]
    if method == "initialize":
        return {"protocolVersion": SESSION_VERSION, "capabilities": {"tools": {}}, "serverInfo": {"name": "echo", "version": "1.0.0"}}
    if headers.get(b"mcp-protocol-version") != SESSION_VERSION.encode() or not headers.get(b"mcp-session-id"):
        raise Refused(400, -32602, "a session of 2025-11-25 is spoken here")
    if method == "tools/list":
        return {"tools": [_TOOL]}
    if method != "tools/call":
        raise Refused(200, -32601, "no such method")
    text = request["params"].get("arguments", {}).get("text")
    if request["params"].get("name") != "echo" or not isinstance(text, str):
        raise Refused(200, -32602, "the tool is echo, its argument is text")
    return {"content": [{"type": "text", "text": text}], "isError": False}


def answer_with_tools(count: int) -> Callable[[dict[str, Any], dict[bytes, bytes]], dict[str, Any]]:
    """As `mcp`, with `count` tools."""
    tools = tool_list_of(count)

    def answer(request: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
        result = answer_mcp(request, headers)
        return tools if "tools" in result else result

    return answer


_METHODS = {
    "/mcp": answer_mcp,
    OLDER: answer_older_mcp,
    TWENTY: answer_with_tools(20),
    THOUSAND: answer_with_tools(1000),
    "/a2a": answer_a2a,
    "/older": answer_a2a_0_3,
    "/streaming": answer_a2a,
    "/burst": answer_a2a,
}
_CARD = "/.well-known/agent-card.json"


def answer_request(path: str, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes]:
    """HTTP status and JSON-RPC reply to one request."""
    number = None
    try:
        request = _decode(body)
        number = request.get("id")
        return 200, _encode({"jsonrpc": "2.0", "id": number, "result": _METHODS[path](request, headers)})
    except Refused as refused:
        status, error = refused.status, {"code": refused.code, "message": str(refused)}
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        status, error = 400, {"code": -32600, "message": "not a request"}
    return status, _encode({"jsonrpc": "2.0", "id": number, "error": error})


async def reply(send: Send, status: int, body: bytes, session: str = "") -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(b"mcp-session-id", session.encode())] if session else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Receive) -> bytes:
    event = await receive()
    body: bytes = event.get("body", b"")
    while event.get("more_body"):
        event = await receive()
        body += event.get("body", b"")
    return body


async def stream(send: Send, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
    """The events of a stream, each in a write of its own, with the pause of that agent in between."""
    request = _decode(body)
    try:
        events = answer_stream(request, headers)
    except Refused:
        await reply(send, *answer_request(path, headers, body))
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for event in events:
        data = _encode({"jsonrpc": "2.0", "id": request["id"], "result": event})
        await send({"type": "http.response.body", "body": b"data: %s\n\n" % data, "more_body": True})
        await asyncio.sleep(PAUSES[path])
    await send({"type": "http.response.body", "body": b""})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI, HTTP only: run without lifespan events."""
    path = scope["path"]
    if scope["method"] == "POST" and path in _METHODS:
        headers, body = dict(scope["headers"]), await body_of(receive)
        if path in PAUSES:
            await stream(send, path, headers, body)
        elif path == OLDER and b'"id"' not in body:
            await reply(send, 202, b"")
        elif path == OLDER and b'"initialize"' in body:
            await reply(send, *answer_request(path, headers, body), session=_SESSION)
        else:
            await reply(send, *answer_request(path, headers, body))
    elif scope["method"] == "GET" and path.endswith(_CARD) and (path.removesuffix(_CARD) or "/a2a") in AGENTS:
        host, port = scope["server"]
        await reply(send, 200, _encode(agent_card(f"http://{host}:{port}", path.removesuffix(_CARD) or "/a2a")))
    else:
        await reply(send, 405 if path in _METHODS else 404, b"{}")
