"""What the load client says and what it must hear: one MCP tool call, one A2A message, each with a text of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

MCP_VERSION = "2026-07-28"
FIRST_ID = 1_000_000_000  # every id has ten digits, so that all bodies of a job have one length

_TOOL_CALL = (
    b'{"jsonrpc":"2.0","id":%(id)d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%(text)b"},'
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},'
    b'"io.modelcontextprotocol/clientInfo":{"name":"interlock-bench","version":"1"}}}}'
)
_SEND_MESSAGE = (
    b'{"jsonrpc":"2.0","id":%(id)d,"method":"SendMessage","params":{"message":{"messageId":"msg-%(id)d-%(nonce)b",'
    b'"role":"ROLE_USER","parts":[{"text":"%(text)b"}]},"configuration":{"returnImmediately":false}}}'
)
_TOOL_HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": MCP_VERSION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
}


class _Text(msgspec.Struct):
    text: str


class _ToolResult(msgspec.Struct, rename="camel"):
    content: list[_Text]
    result_type: str
    is_error: bool = False


class _ToolReply(msgspec.Struct):
    id: int
    result: _ToolResult


class _Status(msgspec.Struct):
    state: str


class _Artifact(msgspec.Struct):
    parts: list[_Text]


class _Task(msgspec.Struct):
    id: str
    status: _Status
    artifacts: list[_Artifact]


class _SendResult(msgspec.Struct):
    task: _Task


class _SendReply(msgspec.Struct):
    id: int
    result: _SendResult


_tool_reply = msgspec.json.Decoder(_ToolReply).decode
_send_reply = msgspec.json.Decoder(_SendReply).decode


def tool_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the reply to tool call `number`; empty when nothing is."""
    try:
        reply = _tool_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a tool result ({error}): {body[:300]!r}"
    if reply.id != number:
        return f"the reply to {reply.id} came for {number}"
    result = reply.result
    if result.is_error or result.result_type != "complete" or [part.text for part in result.content] != [text]:
        return f"not the echo of {text!r}: {body[:300]!r}"
    return ""


def send_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the reply to message `number`; empty when nothing is."""
    try:
        reply = _send_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a task ({error}): {body[:300]!r}"
    if reply.id != number:
        return f"the reply to {reply.id} came for {number}"
    task = reply.result.task
    heard = [part.text for artifact in task.artifacts for part in artifact.parts]
    if task.status.state != "TASK_STATE_COMPLETED" or heard != [text]:
        return f"not the completed echo of {text!r}: {body[:300]!r}"
    return ""


@dataclass(frozen=True, slots=True)
class Workload:
    """`body` has the places %(id)d, %(text)b and %(nonce)b; `fault(body, id, text)` judges a reply."""

    name: str
    body: bytes
    headers: dict[str, str]
    fault: Callable[[bytes, int, str], str]


WORKLOADS = {
    "mcp": Workload("mcp.tools_call", _TOOL_CALL, _TOOL_HEADERS, tool_fault),
    "a2a": Workload("a2a.send", _SEND_MESSAGE, {"A2A-Version": "1.0", "Accept": "application/json"}, send_fault),
}


class Script:
    """The requests of one job, whose parts are built before the clock starts. `nonce`: eight characters that differ from job to job."""

    def __init__(self, workload: Workload, address: tuple[str, int, str], tokens: list[str], nonce: str) -> None:
        self._body = workload.body
        self._nonce = nonce.encode()
        self._heads = [self._head(workload, address, token) for token in tokens]

    def text(self, number: int) -> str:
        return f"order {self._nonce.decode()}-{number}: is the blue kettle in stock, and when can it be in Hamburg?"

    def request(self, number: int) -> bytes:
        return self._heads[number % len(self._heads)] + self._filled(number)

    def _filled(self, number: int) -> bytes:
        return self._body % {b"id": number, b"text": self.text(number).encode(), b"nonce": self._nonce}

    def _head(self, workload: Workload, address: tuple[str, int, str], token: str) -> bytes:
        host, port, path = address
        headers = {
            "Host": f"{host}:{port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(self._filled(FIRST_ID))),
            "Authorization": f"Bearer {token}",
            **workload.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()
