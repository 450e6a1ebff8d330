"""What the load client must hear: the shapes of replies, and what is wrong with one."""

from typing import Any

import msgspec

EVENTS = 20  # of a stream: the task, that it works, the pieces of its text, and its end
PIECES = EVENTS - 3
TOOLS = 1000  # of a big catalogue
LISTED = 20  # tasks of a page


class _Text(msgspec.Struct):
    text: str


class _ToolResult(msgspec.Struct, rename="camel"):
    content: list[_Text]
    result_type: str = ""
    is_error: bool = False


class _ToolReply(msgspec.Struct):
    id: int
    result: _ToolResult


class _Tool(msgspec.Struct):
    name: str


class _Tools(msgspec.Struct):
    tools: list[_Tool]


class _ListReply(msgspec.Struct):
    id: int
    result: _Tools


class _Status(msgspec.Struct):
    state: str


class _Artifact(msgspec.Struct):
    parts: list[_Text]


class _Begun(msgspec.Struct):
    id: str
    status: _Status


class _Task(_Begun):
    artifacts: list[_Artifact]


class _SendResult(msgspec.Struct):
    task: _Task


class _SendReply(msgspec.Struct):
    id: int
    result: _SendResult


class _Update(msgspec.Struct):
    status: _Status


class _Piece(msgspec.Struct):
    artifact: _Artifact


class _Event(msgspec.Struct, rename="camel"):
    task: _Begun | None = None
    status_update: _Update | None = None
    artifact_update: _Piece | None = None


class _EventReply(msgspec.Struct):
    id: int
    result: _Event


class _GotReply(msgspec.Struct):
    id: int
    result: _Begun


class _TaskPage(msgspec.Struct):
    tasks: list[_Begun]


class _TaskPageReply(msgspec.Struct):
    id: int
    result: _TaskPage


class _Task03(msgspec.Struct, tag_field="kind", tag="task"):
    id: str
    status: _Status
    artifacts: list[_Artifact]


class _SendReply03(msgspec.Struct):
    id: int
    result: _Task03


_tool_reply = msgspec.json.Decoder(_ToolReply).decode
_list_reply = msgspec.json.Decoder(_ListReply).decode
_send_reply = msgspec.json.Decoder(_SendReply).decode
_event_reply = msgspec.json.Decoder(_EventReply).decode
_got_reply = msgspec.json.Decoder(_GotReply).decode
_task_page_reply = msgspec.json.Decoder(_TaskPageReply).decode
_send_reply_0_3 = msgspec.json.Decoder(_SendReply03).decode


def tool_fault(body: bytes, number: int, text: str, kind: str = "complete") -> str:
    """What is wrong with the reply to tool call `number`, whose `resultType` is `kind`; empty when nothing is."""
    try:
        reply = _tool_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a tool result ({error}): {body[:300]!r}"
    if reply.id != number:
        return f"the reply to {reply.id} came for {number}"
    result = reply.result
    if result.is_error or result.result_type != kind or [part.text for part in result.content] != [text]:
        return f"not the echo of {text!r}: {body[:300]!r}"
    return ""


def session_tool_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the reply to tool call `number` of a session of the initialize era; empty when nothing is."""
    return tool_fault(body, number, text, kind="")


def list_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the list `number` of a thousand tools; empty when nothing is."""
    try:
        reply = _list_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a list of tools ({error}): {body[:300]!r}"
    names = {tool.name for tool in reply.result.tools}
    return "" if reply.id == number and len(names) >= TOOLS else f"{len(names)} tools in the reply to {reply.id} for {number}"


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


class _OutputPart(msgspec.Struct):
    data: dict[str, Any]


class _Output(msgspec.Struct):
    parts: list[_OutputPart]


class _RunTask(_Begun):
    artifacts: list[_Output] = []


class _RunResult(msgspec.Struct):
    task: _RunTask


class _RunReply(msgspec.Struct):
    id: int
    result: _RunResult


_run_reply = msgspec.json.Decoder(_RunReply).decode


def run_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the reply to a message that started a run, whose output has the text; empty when nothing is."""
    try:
        reply = _run_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a run ({error}): {body[:300]!r}"
    task = reply.result.task
    said = [part.data.get("text") for output in task.artifacts for part in output.parts]
    if reply.id != number or task.status.state != "TASK_STATE_COMPLETED" or said != [text]:
        return f"not the completed run of {text!r} for {number}: {body[:300]!r}"
    return ""


class _EventsReply(msgspec.Struct):
    accepted: int
    repeated: int
    not_started: list[Any]


_events_reply = msgspec.json.Decoder(_EventsReply).decode


def events_fault(count: int, body: bytes, _number: int, _text: str) -> str:
    """What is wrong with the reply to `count` new events; empty when nothing is."""
    try:
        reply = _events_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not an answer to events ({error}): {body[:300]!r}"
    return "" if reply == _EventsReply(count, 0, []) else f"not {count} events taken: {body[:300]!r}"


def stream_fault(body: bytes, number: int, text: str) -> str:
    """What is wrong with the stream that answers message `number`; empty when nothing is."""
    frames = [frame for frame in body.split(b"\n\n") if frame]
    try:
        events = [_event_reply(frame.partition(b"data: ")[2]) for frame in frames]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a stream of a task ({error}): {body[:300]!r}"
    if len(events) != EVENTS or any(event.id != number for event in events):
        return f"not {EVENTS} events for {number}: {body[:300]!r}"
    first, last = events[0].result, events[-1].result
    pieces = [event.result.artifact_update for event in events]
    heard = "".join(part.text for piece in pieces if piece for part in piece.artifact.parts)
    if not first.task or not last.status_update or last.status_update.status.state != "TASK_STATE_COMPLETED" or heard != text:
        return f"not the completed echo of {text!r}: {body[:300]!r}"
    return ""


def get_task_fault(body: bytes, number: int, task: str) -> str:
    """What is wrong with the reply to the question `number` for `task`; empty when nothing is."""
    try:
        reply = _got_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a task ({error}): {body[:300]!r}"
    right = (reply.id, reply.result.id, reply.result.status.state) == (number, task, "TASK_STATE_COMPLETED")
    return "" if right else f"not the task {task!r} for {number}: {body[:300]!r}"


def list_tasks_fault(body: bytes, number: int, _text: str) -> str:
    """What is wrong with the reply to the question `number` for a page of completed tasks; empty when nothing is."""
    try:
        reply = _task_page_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a page of tasks ({error}): {body[:300]!r}"
    ended = {task.id for task in reply.result.tasks if task.status.state == "TASK_STATE_COMPLETED"}
    return "" if reply.id == number and len(ended) == LISTED else f"{len(ended)} tasks in the reply to {reply.id} for {number}"


def send_0_3_fault(body: bytes, number: int, text: str) -> str:
    """As `send_fault`, in the words of 0.3."""
    try:
        reply = _send_reply_0_3(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a task of 0.3 ({error}): {body[:300]!r}"
    task = reply.result
    heard = [part.text for artifact in task.artifacts for part in artifact.parts]
    if reply.id != number or task.status.state != "completed" or heard != [text]:
        return f"not the completed echo of {text!r} for {number}: {body[:300]!r}"
    return ""


class _Value(msgspec.Struct):
    key: str


_value_reply = msgspec.json.Decoder(_Value).decode


def value_fault(body: bytes, _number: int, text: str) -> str:
    """What is wrong with the reply to a read or write of the value `text` of the board; empty when nothing is."""
    try:
        reply = _value_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a value ({error}): {body[:300]!r}"
    return "" if reply.key == text else f"the value of {reply.key!r} came for {text!r}"
