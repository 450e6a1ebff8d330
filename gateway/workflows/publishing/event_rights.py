"""The events that a document sends and receives: permissions for its ceiling, and what can't be told from the text."""

from collections.abc import Iterator

from gateway.events.own_types import OWN_NAME, is_reserved
from gateway.workflows.cloud_events.envelope import EVENT_TYPE, act_of_receiving, act_of_sending
from gateway.workflows.cloud_events.listens import consumed_types
from gateway.workflows.dsl.document import Document, EmitTask, ListenTask
from gateway.workflows.dsl.walk import tasks

OWN_TYPE = f"begins with {OWN_NAME}, which only the gateway's own events do"
NO_TYPE = "names no `type` by a plain text of letters, digits and . _ / : -, so nobody can be given the right to send it"


def event_permissions(document: Document) -> Iterator[str]:
    """The permissions for exactly the events that the document names."""
    for placed in tasks(document):
        match placed.task:
            case EmitTask(emit=emit) if (kind := _plain(emit.event.with_.type)) is not None:
                yield act_of_sending(kind).permission
            case ListenTask(listen=listen):
                for kind in consumed_types(listen.to):
                    yield act_of_receiving(kind).permission


def event_problems(document: Document) -> Iterator[tuple[str, str]]:
    """The place and the reason of each event whose type is known only when the step runs."""
    for placed in tasks(document):
        if not isinstance(placed.task, EmitTask):
            continue
        kind = _plain(placed.task.emit.event.with_.type)
        if kind is None:
            yield f"{placed.path}/emit/event/with", NO_TYPE
        elif is_reserved(kind):
            yield f"{placed.path}/emit/event/with/type", OWN_TYPE


def _plain(kind: str | None) -> str | None:
    return kind if kind is not None and EVENT_TYPE.fullmatch(kind) else None
