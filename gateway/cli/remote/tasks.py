"""task and trace: lists, shows, watches and cancels tasks, and draws their traces."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_task
from gateway.cli.exit_codes import CommandFailed, GatewayUnreachable
from gateway.cli.http_client import GatewayClient, SseEvent, call_gateway, connect, decode_json, list_all, quote_segment

TaskId = Annotated[str, typer.Argument(help="The task's id.", metavar="ID", autocompletion=complete_task)]
ERROR_METADATA = "urn:interlock:a2a:error"  # beside the message of a failure (docs/a2a.md)
UNSUCCESSFUL_STATES = ("failed", "canceled", "rejected")
ENDED_STATES = ("completed", *UNSUCCESSFUL_STATES)
WAITING_STATES = ("input required", "auth required")
RUNNING_STATES = ("submitted", "working")
DRAINING = "shutting-down"  # the reason_id of a process that ends, behind a load balancer
DATA_SHOWN = 400  # characters of a part's data
ATTEMPTS_MAX = 5  # at a stream that breaks or ends without a new event
LASTING_SECONDS = 5.0  # a stream that lasted longer is no failed attempt
RETRY_SECONDS = 0.2  # before the second attempt; doubles each time
app = typer.Typer(help="Your tasks: list, show, watch, cancel.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.", min=1, max=1000)] = 50,
    all_owners: Annotated[bool, typer.Option("--all", help="Tasks of all people; needs the permission to read the audit.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show your tasks."""
    items = list_all("/api/tasks", limit, **({"everybody": "true"} if all_owners else {}))
    rows = (_table_row(task, all_owners) for task in items)
    columns = ["id", "state", "agent", "updated", "caused by", *(["whose"] if all_owners else [])]
    screen.print_list(items, as_json, columns, rows, "no tasks yet: interlock send AGENT TEXT")


@app.command()
def show(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Show one task with its messages and artifacts."""
    task = call_gateway("GET", f"/api/tasks/{quote_segment(task_id)}")
    if as_json:
        screen.print_json(task)
        return
    names = ("id", "agent", "context_id", "parent_id", "decision_id", "grant_id")
    times = [(name, screen.format_time(task[name])) for name in ("created", "updated")]
    cost = [("cost", screen.format_cost(task["cost"], "tasks"))] if task.get("cost") else []
    screen.print_fields([("state", screen.format_state(task["state"])), *((name, task[name]) for name in names), *times, *cost])
    if reason := _status_text(task):
        screen.print_text(f"\nreason: {reason}")
    for message in task["history"]:
        who = "you" if message.get("role") == "ROLE_USER" else task["agent"]
        screen.print_text(f"\n{who}: {_text_of(message)}")
    for artifact in task["artifacts"]:
        screen.print_text(f"\n{artifact.get('name') or artifact.get('artifactId')}: {_text_of(artifact)}")


@app.command()
def cancel(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Ask the agent to stop. Operators may cancel the tasks of all people."""
    with screen.show_progress("cancelling…"):
        task: dict[str, Any] = call_gateway("POST", f"/api/tasks/{quote_segment(task_id)}/cancel")
    screen.print_json(task) if as_json else screen.print_text(f"{task_id} is {screen.format_state(task['state'])}")


@app.command()
def watch(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Show each event of a task until it ends or waits for you; with --json one per line."""
    with connect() as remote:
        state = ""
        for event in follow_task(remote, task_id, f"interlock task watch {task_id}"):
            state = screen.format_state(event["status"]["state"]) if event["kind"] == "status" else state
            screen.print_json_line(event) if as_json else screen.print_text(format_event(event))
    if state in UNSUCCESSFUL_STATES:
        raise CommandFailed(f"the task is {state}", f"what happened: interlock trace {task_id}")


def trace(
    task_id: Annotated[str, typer.Argument(help="The task's id.", metavar="TASK_ID", autocompletion=complete_task)],
    as_json: screen.AsJson = False,
) -> None:
    """Draw what a task caused: every hop, tool and refusal on a time axis."""
    found = call_gateway("GET", f"/api/tasks/{quote_segment(task_id)}/trace")
    if as_json:
        screen.print_json(found)
        return
    from gateway.cli.remote.waterfall import build_waterfall

    terminal = screen.console()
    terminal.print(build_waterfall(found["spans"], terminal.width))
    if cost := screen.format_cost(found.get("cost"), "tasks"):
        screen.print_text(f"cost of all that the task caused: {cost}")
    refused = [span for span in found["spans"] if span["outcome"] == "refused"]
    if refused:
        screen.print_note(f"why it was refused: interlock why {refused[-1]['decision_id']}")


def _status_text(task: dict[str, Any]) -> str:
    """What the status says of a task that failed or waits, with the reason that the gateway notes beside it."""
    message = (task.get("status") or {}).get("message") or {}
    reason = str(((message.get("metadata") or {}).get(ERROR_METADATA) or {}).get("reason") or "")
    text = _text_of(message)
    if screen.format_state(task["state"]) == "completed" or not (text or reason):
        return ""
    return f"{text} ({reason})" if text and reason else text or reason


def follow_task(remote: GatewayClient, task_id: str, again: str) -> Iterator[dict[str, Any]]:
    """Yields each event of a task once, until it ends or waits for its owner. `again`: the command that goes on after a failure."""
    state = RUNNING_STATES[0]
    path, is_over = f"/api/tasks/{quote_segment(task_id)}/events", lambda: state not in RUNNING_STATES
    for sent in follow_events(remote, path, again=lambda _: again, is_over=is_over):
        event = decode_json(sent.data)
        state = screen.format_state(event["status"]["state"]) if event["kind"] == "status" else state
        yield event


def follow_events(
    remote: GatewayClient, path: str, after: str = "", *, again: Callable[[str], str], is_over: Callable[[], bool] = lambda: False
) -> Iterator[SseEvent]:
    """Yields each event after `after` once. A stream that breaks, or that ends before `is_over`, is resumed after the last event.

    Raises GatewayUnreachable after ATTEMPTS_MAX attempts without an event; `again` returns the command that goes on after an event.
    """
    failures = 0
    while True:
        began, failure = time.monotonic(), "it has ended the stream"
        try:
            for sent in remote.stream_events(path, after):
                after, failures = sent.id or after, 0
                yield sent
            if is_over():
                return
        except (GatewayUnreachable, CommandFailed) as error:
            if not after or not (isinstance(error, GatewayUnreachable) or error.details.get("code") == DRAINING):
                raise
            failure = error.message
        failures = 1 if time.monotonic() - began > LASTING_SECONDS else failures + 1
        if failures == ATTEMPTS_MAX:
            raise GatewayUnreachable(f"the gateway has stopped: {failure}", f"when it runs again: {again(after)}")
        time.sleep(RETRY_SECONDS * 2**failures)


def format_event(event: dict[str, Any]) -> str:
    """One line for people: when, and what happened."""
    at, kind = screen.format_time(event["at"]), event["kind"]
    if kind == "status":
        message_text = _text_of(event["status"].get("message") or {})
        return f"{at}  {screen.format_state(event['status']['state'])}{': ' if message_text else ''}{message_text}"
    return f"{at}  {kind}: {_text_of(event[kind])}" if kind in event else f"{at}  {kind}"


def _table_row(task: dict[str, Any], all_owners: bool) -> tuple[object, ...]:
    row = (task["id"], screen.format_state(task["state"]), task["agent"], screen.format_time(task["updated"]), task["parent_id"])
    return (*row, task["owner"].split("|", 2)[-1]) if all_owners else row


def _text_of(holder: dict[str, Any]) -> str:
    """The texts of a message or an artifact; where it has none, its data or the types of its files."""
    parts = holder.get("parts") or []
    texts = [part["text"] for part in parts if part.get("text")]
    return "\n".join(texts or [_data_of(part) or f"[{part.get('mediaType') or 'data'}]" for part in parts])


def _data_of(part: dict[str, Any]) -> str:
    """The data of a part as JSON in one line, shortened; empty without data."""
    if "data" not in part:
        return ""
    text = json.dumps(part["data"], ensure_ascii=False)
    return text if len(text) <= DATA_SHOWN else f"{text[:DATA_SHOWN]}…"


def register(main_app: typer.Typer) -> None:
    main_app.command()(trace)
