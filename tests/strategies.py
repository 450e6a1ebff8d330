"""Hypothesis strategies for the nouns that cross the wire."""

import base64
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET, Struct, structs

from adapters.a2a_client.wire.v1 import OPAQUE_MEMBERS
from adapters.task import Artifact, Message, Part, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text("abcdef0123456789-_:", min_size=1, max_size=20)
optional_ids = st.just("") | ids
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, json_values, max_size=3)
metadata = st.just(UNSET) | objects
media_types = st.sampled_from(["", "text/plain", "application/json", "image/png"])
raw = st.binary(max_size=20).map(lambda content: base64.b64encode(content).decode())
timestamps = st.sampled_from(["", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z"])

named = {"media_type": media_types, "filename": texts, "metadata": metadata}
text_parts = st.builds(Part, text=texts, **named)
data_parts = st.builds(Part, data=json_values, **named)
file_parts = st.builds(Part, raw=raw, **named) | st.builds(Part, url=texts, **named)
parts = text_parts | data_parts | file_parts
part_lists = st.lists(parts, min_size=1, max_size=3).map(tuple)
id_lists = st.lists(ids, max_size=2).map(tuple)

messages = st.builds(
    Message,
    message_id=ids,
    role=st.sampled_from(Role),
    parts=part_lists,
    context_id=optional_ids,
    task_id=optional_ids,
    metadata=metadata,
    extensions=id_lists,
    reference_task_ids=id_lists,
)
artifacts = st.builds(Artifact, artifact_id=ids, parts=part_lists, name=texts, description=texts, metadata=metadata, extensions=id_lists)
statuses = st.builds(TaskStatus, state=st.sampled_from(TaskState), message=st.just(UNSET) | messages, timestamp=timestamps)
tasks = st.builds(
    Task,
    id=ids,
    context_id=optional_ids,
    status=statuses,
    artifacts=st.lists(artifacts, max_size=2).map(tuple),
    history=st.lists(messages, max_size=2).map(tuple),
    metadata=metadata,
)
status_updates = st.builds(TaskStatusUpdateEvent, task_id=ids, context_id=optional_ids, status=statuses, metadata=metadata)
artifact_updates = st.builds(
    TaskArtifactUpdateEvent,
    task_id=ids,
    context_id=optional_ids,
    artifact=artifacts,
    append=st.booleans(),
    last_chunk=st.booleans(),
    metadata=metadata,
)
peer_events = tasks | messages | status_updates | artifact_updates


def plain(noun: Any) -> Any:
    """The same without empty metadata of messages and parts: they say nothing, and 0.3 keeps them only where there is nothing to tell."""
    if isinstance(noun, tuple):
        return tuple(plain(each) for each in noun)
    if not isinstance(noun, Struct):
        return noun
    kept = structs.replace(noun, **{name: plain(getattr(noun, name)) for name in noun.__struct_fields__ if name not in OPAQUE_MEMBERS})
    return structs.replace(kept, metadata=UNSET) if isinstance(noun, Message | Part) and noun.metadata == {} else kept


@st.composite
def cuts(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """`body` in pieces of any size."""
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
