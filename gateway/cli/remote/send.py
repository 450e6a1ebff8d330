"""send: sends a message to an agent over A2A 1.0."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_agent
from gateway.cli.exit_codes import CommandFailed, GatewayUnreachable, WrongUsage
from gateway.cli.http_client import GatewayClient, connect, quote_segment
from policies import strict_json

DATA_HELP = "Structured data, as JSON or a JSON file; may be repeated."
VERSION_HEADER = {"A2A-Version": "1.0"}
RUNNING_STATES = ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
GOOD_STATES = (
    "TASK_STATE_COMPLETED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_AUTH_REQUIRED",
    *RUNNING_STATES,
)


def send(
    agent: Annotated[str, typer.Argument(help="The agent's name.", metavar="AGENT", autocompletion=complete_agent)],
    text: Annotated[str, typer.Argument(help="The message; optional with --data.", metavar="TEXT")] = "",
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, metavar="JSON|@FILE")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer while it is produced.")] = False,
    context: Annotated[str, typer.Option(help="Continue this conversation.", metavar="ID")] = "",
    task: Annotated[str, typer.Option(help="Answer this task, which waits for input.", metavar="ID")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Send a message to an agent, and show its answer."""
    parts = [*([{"text": text}] if text else ()), *({"data": read_data(each)} for each in data or ())]
    if not parts:
        raise WrongUsage("there is nothing to send", "give a TEXT, or --data JSON")
    message: dict[str, Any] = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": parts}
    message |= {key: value for key, value in (("contextId", context), ("taskId", task)) if value}
    with connect() as remote:
        if stream:
            _print_stream(remote, agent, message, as_json)
            return
        with screen.show_progress(f"{agent} is at work…"):
            result = send_request(remote, agent, "SendMessage", {"message": message})
    known_task = result.get("task") or result.get("message") or {}
    if as_json:
        screen.print_json(result)
    elif _has_failed(known_task):  # the error tells the reason
        if (shown := _artifacts_text(known_task)) not in ("", _reason_text(known_task)):
            screen.print_text(shown)
    elif shown := _answer_text(result):
        screen.print_text(shown)
    _print_next_step(agent, known_task)


def read_data(text: str, option: str = "--data") -> Any:
    """Returns the data of JSON text, or of a file. `option` names its place on the command line. Raises WrongUsage."""
    try:
        content = Path(text[1:]).read_text("utf-8") if text.startswith("@") else text
    except (OSError, UnicodeError) as error:
        raise WrongUsage(f"{text[1:]} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    try:
        json.loads(content)  # its error names the position
        return strict_json.parse(content.encode())  # its error names what the gateway refuses
    except (ValueError, RecursionError) as error:
        raise WrongUsage(
            f"{option} {screen.format_value(text)} is not JSON: {error}",
            f"quote it, as {option} '{{\"id\": 7}}', or name a file, as {option} @order.json",
        ) from error


def send_request(remote: GatewayClient, agent: str, method: str, params: dict[str, Any]) -> Any:
    """Returns the result of one A2A 1.0 request."""
    return remote.call_rpc(f"/agents/{quote_segment(agent)}", method, params, VERSION_HEADER)


def _print_stream(remote: GatewayClient, agent: str, message: dict[str, Any], as_json: bool) -> None:
    """Prints events as they arrive, with --json one per line. A Message is the whole answer of an agent (A2A 1.0 s3.1.2)."""
    last: dict[str, Any] = {}
    seen: set[str] = set()
    try:
        for answer in remote.stream_rpc(f"/agents/{quote_segment(agent)}", "SendStreamingMessage", {"message": message}, VERSION_HEADER):
            event = answer.get("result") or {}
            if as_json:
                screen.print_json_line(event)
            else:
                for piece, newline in _text_pieces(event):
                    screen.print_text(piece, newline=newline)
                    seen.add(piece)
            last = _last_known_task(last, event)
    except GatewayUnreachable as error:
        raise _error_of_cut_stream(error.message, last) or error from error
    if last.get("status", {}).get("state") in RUNNING_STATES and (cut := _error_of_cut_stream("it has ended the stream", last)):
        raise cut
    if not last:
        raise CommandFailed("the stream ended before the first event", "interlock task list shows what was started")
    _print_next_step(agent, last, has_shown_reason=_reason_text(last) in seen)


def _error_of_cut_stream(problem: str, known_task: dict[str, Any]) -> GatewayUnreachable | None:
    """Returns the error of a stream that is cut before its task ended, or None where no task is known."""
    task_id = known_task.get("id") or known_task.get("taskId") or ""
    return (
        GatewayUnreachable(f"the gateway has stopped: {problem}", f"when it runs again: interlock task watch {task_id}")
        if task_id
        else None
    )


def _text_pieces(event: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yields texts to print, and whether a line ends after each."""
    update = event.get("artifactUpdate")
    if update:
        text = _text_of_parts(update["artifact"].get("parts", []))
        yield text, bool(update.get("lastChunk", True)) or text.endswith("\n")
    message = event.get("message") or event.get("statusUpdate", {}).get("status", {}).get("message")
    if message:
        yield _text_of_parts(message.get("parts", [])), True
    if "task" in event and event["task"].get("artifacts"):
        yield _answer_text(event), True


def _last_known_task(known_task: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Returns the task as it is known after one more event."""
    if "task" in event:
        return dict(event["task"])
    if "statusUpdate" in event:
        update = event["statusUpdate"]
        return {"id": update["taskId"], "contextId": update["contextId"], "status": update["status"]}
    return dict(event["message"]) if "message" in event else known_task or dict(event.get("artifactUpdate") or {})


def _has_failed(known_task: dict[str, Any]) -> bool:
    state = known_task.get("status", {}).get("state", "")
    return bool(state) and state not in GOOD_STATES


def _print_next_step(agent: str, known_task: dict[str, Any], *, has_shown_reason: bool = False) -> None:
    """Prints what to do next on stderr. Raises CommandFailed for a task that failed, with the reason unless it was shown."""
    state, context = known_task.get("status", {}).get("state", ""), known_task.get("contextId", "")
    task_id = known_task.get("id") or known_task.get("taskId") or ""
    if _has_failed(known_task):
        reason = "" if has_shown_reason else _reason_text(known_task)
        raise CommandFailed(f"the task is {screen.format_state(state)}: {reason}".rstrip(": "), f"what happened: interlock trace {task_id}")
    if state in ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"):
        screen.print_note(f"it waits for you: interlock send {agent} --task {task_id} TEXT")
    if task_id:
        outcome = screen.format_state(state) if state else "answered with a message"
        screen.print_note(f"{outcome}; task {task_id}, context {context}; interlock trace {task_id}")
    elif known_task:
        screen.print_note(
            f"answered with a message, without a task; context {context}" if context else "answered with a message, without a task"
        )


def _answer_text(result: dict[str, Any]) -> str:
    """Returns an agent's answer: its message, else the artifacts of its task, else the text of the task's status."""
    if "message" in result:
        return _text_of_parts(result["message"].get("parts", []))
    task = result.get("task", {})
    return _artifacts_text(task) or _reason_text(task)


def _reason_text(task: dict[str, Any]) -> str:
    """Returns the text of the task's status, empty where it has none."""
    return _text_of_parts(task.get("status", {}).get("message", {}).get("parts", []))


def _artifacts_text(task: dict[str, Any]) -> str:
    return "\n".join(filter(None, (_text_of_parts(artifact.get("parts", [])) for artifact in task.get("artifacts", []))))


def _text_of_parts(parts: list[dict[str, Any]]) -> str:
    return "\n".join(map(_text_of_part, parts))


def _text_of_part(part: dict[str, Any]) -> str:
    """Returns text and data unchanged, and the type and location of a file. --json prints all of it."""
    if "text" in part:
        return str(part["text"])
    if "data" in part:
        return json.dumps(part["data"], ensure_ascii=False, indent=2)
    kind = " ".join(filter(None, (part.get("filename"), part.get("mediaType")))) or "file"
    if "url" in part:
        return f"[{kind}: {part['url']}]"
    return f"[{kind}, {len(part.get('raw') or '') * 3 // 4} bytes; --json shows them]"


def register(app: typer.Typer) -> None:
    app.command(epilog='Example: interlock send sales "2 of SKU-7, please"')(send)
