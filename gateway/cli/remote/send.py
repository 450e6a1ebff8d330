"""send: a message to an agent, over A2A 1.0."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import Failed, WrongUsage
from gateway.cli.http_client import Remote, connect, quoted
from policies import strict_json

DATA = "Structured data, as JSON or a file of it; may be repeated."
VERSION = {"A2A-Version": "1.0"}
GOOD = ("TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED", "TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")


def send(  # noqa: PLR0913 (each is an option of the command)
    agent: Annotated[str, typer.Argument(help="The agent's name.", metavar="AGENT")],
    text: Annotated[str, typer.Argument(help="What you want of it; may be left out beside --data.", metavar="TEXT")] = "",
    data: Annotated[list[str] | None, typer.Option(help=DATA, metavar="JSON|@FILE")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show what it says while it works.")] = False,
    context: Annotated[str, typer.Option(help="Go on with this conversation.", metavar="ID")] = "",
    task: Annotated[str, typer.Option(help="Answer this task, which waits for input.", metavar="ID")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Send a message to an agent, and show its answer."""
    parts = [*([{"text": text}] if text else ()), *({"data": _data(each)} for each in data or ())]
    if not parts:
        raise WrongUsage("there is nothing to send", "say what you want, or give it as --data JSON")
    message: dict[str, Any] = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": parts}
    message |= {key: value for key, value in (("contextId", context), ("taskId", task)) if value}
    with connect() as remote:
        if stream:
            _stream(remote, agent, message, as_json)
            return
        with screen.progress(f"{agent} is at work…"):
            result = request(remote, agent, "SendMessage", {"message": message})
    if as_json:
        screen.data(result)
    else:
        screen.say(_text(result))
    _conclude(agent, result.get("task") or result.get("message") or {})


def _data(text: str) -> Any:
    """JSON, or that of a file."""
    try:
        said = Path(text[1:]).read_text("utf-8") if text.startswith("@") else text
    except (OSError, UnicodeError) as error:
        raise WrongUsage(f"{text[1:]} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    try:
        json.loads(said)  # which says where it is wrong
        return strict_json.parse(said.encode())  # and this what the gateway would not take
    except (ValueError, RecursionError) as error:
        raise WrongUsage(
            f"--data {screen.brief(text)} is not JSON: {error}", "quote it, as --data '{\"id\": 7}', or name a file, as --data @order.json"
        ) from error


def request(remote: Remote, agent: str, method: str, params: dict[str, Any]) -> Any:
    """The result of one A2A 1.0 request."""
    return remote.rpc(f"/agents/{quoted(agent)}", method, params, VERSION)


def _stream(remote: Remote, agent: str, message: dict[str, Any], as_json: bool) -> None:
    """Events as they come, as JSON one on a line; of a message sent, that is all an agent says (A2A 1.0 s3.1.2)."""
    last: dict[str, Any] = {}
    for answer in remote.rpc_stream(f"/agents/{quoted(agent)}", "SendStreamingMessage", {"message": message}, VERSION):
        event = answer.get("result") or {}
        if as_json:
            screen.data_line(event)
        else:
            for piece, newline in _pieces(event):
                screen.say(piece, newline=newline)
        last = _followed(last, event)
    if not last:
        raise Failed("the stream ended before anything came", "interlock task list shows what was started")
    _conclude(agent, last)


def _pieces(event: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Texts to show, and whether a line ends with them."""
    update = event.get("artifactUpdate")
    if update:
        text = _of_parts(update["artifact"].get("parts", []))
        yield text, bool(update.get("lastChunk", True)) or text.endswith("\n")
    said = event.get("message") or event.get("statusUpdate", {}).get("status", {}).get("message")
    if said:
        yield _of_parts(said.get("parts", [])), True
    if "task" in event and event["task"].get("artifacts"):
        yield _text(event), True


def _followed(last: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """What is known of the task after one more event."""
    if "task" in event:
        return dict(event["task"])
    if "statusUpdate" in event:
        update = event["statusUpdate"]
        return {"id": update["taskId"], "contextId": update["contextId"], "status": update["status"]}
    return dict(event["message"]) if "message" in event else last or dict(event.get("artifactUpdate") or {})


def _conclude(agent: str, last: dict[str, Any]) -> None:
    """What to do next, on stderr; a task that ended badly ends the command badly."""
    state, context = last.get("status", {}).get("state", ""), last.get("contextId", "")
    task_id = last.get("id") or last.get("taskId") or ""
    if state and state not in GOOD:
        said = last["status"].get("message", {}).get("parts", [])
        raise Failed(f"the task is {screen.state(state)}: {_of_parts(said)}".rstrip(": "), f"what happened: interlock trace {task_id}")
    if state in ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"):
        screen.note(f"it waits for you: interlock send {agent} --task {task_id} TEXT")
    if task_id:
        said = screen.state(state) if state else "answered with a message"
        screen.note(f"{said}; task {task_id}, context {context}; interlock trace {task_id}")
    elif last:
        screen.note(f"answered with a message, without a task; context {context}" if context else "answered with a message, without a task")


def _text(result: dict[str, Any]) -> str:
    """An agent's answer: its message, or the artifacts of its task, or else what the task's status says."""
    if "message" in result:
        return _of_parts(result["message"].get("parts", []))
    task = result.get("task", {})
    artifacts = [_of_parts(artifact.get("parts", [])) for artifact in task.get("artifacts", [])]
    return "\n".join(filter(None, artifacts)) or _of_parts(task.get("status", {}).get("message", {}).get("parts", []))


def _of_parts(parts: list[dict[str, Any]]) -> str:
    return "\n".join(map(_of_part, parts))


def _of_part(part: dict[str, Any]) -> str:
    """Text and data as they are; of a file what it is, and where: --json has all of it."""
    if "text" in part:
        return str(part["text"])
    if "data" in part:
        return json.dumps(part["data"], ensure_ascii=False, indent=2)
    kind = " ".join(filter(None, (part.get("filename"), part.get("mediaType")))) or "file"
    if "url" in part:
        return f"[{kind}: {part['url']}]"
    return f"[{kind}, {len(part.get('raw') or '') * 3 // 4} bytes; --json shows them]"


def register(app: typer.Typer) -> None:
    app.command()(send)
