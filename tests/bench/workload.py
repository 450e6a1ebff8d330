"""What the load client says: MCP tool calls, A2A messages and questions, each with a text of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench.answers import (
    events_fault,
    get_task_fault,
    list_fault,
    list_tasks_fault,
    run_fault,
    send_0_3_fault,
    send_fault,
    session_tool_fault,
    stream_fault,
    tool_fault,
    value_fault,
)

MCP_VERSION, SESSION_VERSION = "2026-07-28", "2025-11-25"
EXPOSED = "echo_echo"  # the tool, among those of many servers
FIRST_ID = 1_000_000_000  # every id has ten digits, so that all bodies of a job have one length

_TOOL_CALL = (
    b'{"jsonrpc":"2.0","id":%(id)d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%(text)b"},'
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},'
    b'"io.modelcontextprotocol/clientInfo":{"name":"interlock-bench","version":"1"}}}}'
)
_TOOL_CALL_IN_SESSION = b'{"jsonrpc":"2.0","id":%(id)d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%(text)b"}}}'
_CALL_EXPOSED = _TOOL_CALL.replace(b'"name":"echo"', b'"name":"' + EXPOSED.encode() + b'"')
_LIST = _TOOL_CALL.replace(b'"name":"echo","arguments":{"text":"%(text)b"},', b"").replace(b"tools/call", b"tools/list")
_LIST = _LIST.replace(b'"version":"1"', b'"version":"%(text)b"')
_SEND_MESSAGE = (
    b'{"jsonrpc":"2.0","id":%(id)d,"method":"SendMessage","params":{"message":{"messageId":"msg-%(id)d-%(nonce)b",'
    b'"role":"ROLE_USER","parts":[{"text":"%(text)b"}]},"configuration":{"returnImmediately":false}}}'
)
_STREAM_MESSAGE = _SEND_MESSAGE.replace(b"SendMessage", b"SendStreamingMessage")
_GET_TASK = b'{"jsonrpc":"2.0","id":%(id)d,"method":"GetTask","params":{"id":"%(text)b"}}'
_LIST_TASKS = b'{"jsonrpc":"2.0","id":%(id)d,"method":"ListTasks","params":{"pageSize":20}}'
_SEND_0_3 = (
    b'{"jsonrpc":"2.0","id":%(id)d,"method":"message/send","params":{"message":{"kind":"message","messageId":"msg-%(id)d-%(nonce)b",'
    b'"role":"user","parts":[{"kind":"text","text":"%(text)b"}]},"configuration":{"blocking":true}}}'
)
_TOOL_HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": MCP_VERSION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
}
_SESSION_HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": SESSION_VERSION}
_LIST_HEADERS = {name: value for name, value in _TOOL_HEADERS.items() if name != "Mcp-Name"} | {"Mcp-Method": "tools/list"}


@dataclass(frozen=True, slots=True)
class Workload:
    """`body` and the path have the places %(id)d, %(text)b and %(nonce)b; `fault(body, id, text)` judges a reply."""

    name: str
    body: bytes
    headers: dict[str, str]
    fault: Callable[[bytes, int, str], str]
    status: int = 200  # of a right reply
    method: str = "POST"


_A2A = {"A2A-Version": "1.0", "Accept": "application/json"}
_A2A_STREAM = {"A2A-Version": "1.0", "Accept": "text/event-stream"}
RUN_KINDS = ("workflow_fixed", "workflow_agent", "workflow_tool")
WORKLOADS = {
    "mcp": Workload("mcp.tools_call", _TOOL_CALL, _TOOL_HEADERS, tool_fault),
    "mcp_session": Workload("mcp.tools_call_session", _TOOL_CALL_IN_SESSION, _SESSION_HEADERS, session_tool_fault),
    "mcp_many": Workload("mcp.tools_call_of_1000", _CALL_EXPOSED, {**_TOOL_HEADERS, "Mcp-Name": EXPOSED}, tool_fault),
    "mcp_list": Workload("mcp.tools_list_of_1000", _LIST, _LIST_HEADERS, list_fault),
    "a2a": Workload("a2a.send", _SEND_MESSAGE, _A2A, send_fault),
    "a2a_stream": Workload("a2a.stream", _STREAM_MESSAGE, _A2A_STREAM, stream_fault),
    "a2a_burst": Workload("a2a.stream_burst", _STREAM_MESSAGE, _A2A_STREAM, stream_fault),
    "a2a_get": Workload("a2a.get_task", _GET_TASK, _A2A, get_task_fault),
    "a2a_list": Workload("a2a.list_tasks", _LIST_TASKS, _A2A, list_tasks_fault),
    "a2a_from_0_3": Workload("a2a.send_0.3_to_1.0", _SEND_0_3, {"A2A-Version": "0.3", "Accept": "application/json"}, send_0_3_fault),
    "a2a_to_0_3": Workload("a2a.send_1.0_to_0.3", _SEND_MESSAGE, _A2A, send_fault),
}
RUNS = {kind: Workload(kind.replace("_", ".", 1) + "_run", _SEND_MESSAGE, _A2A, run_fault) for kind in RUN_KINDS}
BATCH_EVENTS = 20  # of one request
_EVENT = (
    b'{"specversion":"1.0","id":"%(nonce)b-%(id)d-NUMBER","source":"https://bench.example/orders","type":"bench.order.noted",'
    b'"subject":"order/%(id)d","datacontenttype":"application/json","data":{"text":"%(text)b"}}'
)
_EVENTS = b"[" + b",".join(_EVENT.replace(b"NUMBER", b"%d" % number) for number in range(BATCH_EVENTS)) + b"]"
EVENT_KINDS = {"events_one": 1, "events_batch": BATCH_EVENTS}  # how many events a request has
EVENTS = {
    "events_one": Workload("events.accept", _EVENT.replace(b"NUMBER", b"0"), {}, partial(events_fault, 1), 202),
    "events_batch": Workload("events.accept_batch", _EVENTS, {}, partial(events_fault, BATCH_EVENTS), 202),
}
STATE = {  # paths and bodies have the key as %(text)b
    "state_read": Workload("state.read", b"", {}, value_fault, method="GET"),
    "state_write": Workload("state.write", b'{"was":"%(text)b","by":%(id)d}', {"If-Match": "*"}, value_fault, method="PUT"),
}
REFUSED = {"mcp_refused": Workload("mcp.tools_call_refused", _TOOL_CALL, _TOOL_HEADERS, lambda body, number, text: "", 503)}
EVERY_WORKLOAD = {**WORKLOADS, **RUNS, **EVENTS, **STATE, **REFUSED}  # what only a gateway has included


class Script:
    """The requests of one job, whose parts are built before the clock starts. `nonce`: eight characters that differ from job to job.

    `subjects`: what the calls are about, in place of texts that differ; as many as tokens, and all of one length. `sessions`: of the
    initialize era, one for each token.
    """

    def __init__(
        self,
        workload: Workload,
        address: tuple[str, int, str],
        tokens: list[str],
        nonce: str,
        subjects: Sequence[str] = (),
        *,
        sessions: Sequence[str] = (),
    ) -> None:
        self._body = workload.body
        self._nonce = nonce.encode()
        self._subjects = subjects
        self._line = f"{workload.method} {address[2]} HTTP/1.1\r\n".encode()
        self._heads = [
            self._head(workload, address, token, session) for token, session in zip(tokens, sessions or [""] * len(tokens), strict=True)
        ]

    def text(self, number: int) -> str:
        if self._subjects:
            return self._subjects[number % len(self._subjects)]
        return f"order {self._nonce.decode()}-{number}: is the blue kettle in stock, and when can it be in Hamburg?"

    def request(self, number: int) -> bytes:
        return self._filled(self._line, number) + self._heads[number % len(self._heads)] + self._filled(self._body, number)

    def _filled(self, template: bytes, number: int) -> bytes:
        return template % {b"id": number, b"text": self.text(number).encode(), b"nonce": self._nonce}

    def _head(self, workload: Workload, address: tuple[str, int, str], token: str, session: str) -> bytes:
        host, port, _ = address
        headers = {
            "Host": f"{host}:{port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(self._filled(self._body, FIRST_ID))),
            "Authorization": f"Bearer {token}",
            **workload.headers,
            **({"Mcp-Session-Id": session} if session else {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{lines}\r\n".encode()
