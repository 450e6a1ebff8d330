"""Converts files of an agent's task to content of a tool result: images, audio, resources and links, as the client's revision has them."""

import mimetypes
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import UNSET

from adapters.mcp_client.wire.messages import LEGACY
from adapters.task import Message, Part, Task, text_of

MEDIA_KINDS = ("image", "audio")  # kinds of content that have their own block types
VERSIONS_WITHOUT_LINKS = LEGACY[2:]  # revisions before 2025-06-18 have no resource links
VERSIONS_WITHOUT_AUDIO = LEGACY[3:]  # revisions before 2025-03-26 have no audio
DEFAULT_MEDIA_TYPE = "application/octet-stream"


def files_of(task: Task) -> Iterator[tuple[str, Part]]:
    """Yields each part that is a file (bytes or URL), with a URI that identifies it."""
    parts = [(artifact.artifact_id, artifact.parts) for artifact in task.artifacts]
    if isinstance(task.status.message, Message):
        parts.append((task.status.message.message_id, task.status.message.parts))
    for owner, each in parts:
        for number, part in enumerate(each):
            if part.raw is not UNSET or part.url is not UNSET:
                yield f"urn:interlock:task:{quote(task.id, safe='')}:{quote(owner, safe='')}:{number}", part


def file_block(uri: str, part: Part, version: str = "") -> dict[str, Any]:
    """Returns one content block. `version` is the client's revision in the legacy era."""
    kind = media_type_of(part)
    named = {"mimeType": kind} if kind else {}
    if part.url is not UNSET:
        if version in VERSIONS_WITHOUT_LINKS:
            return {"type": "text", "text": f"{file_name_of(part)}: {part.url}"}
        return {"type": "resource_link", "uri": part.url, "name": file_name_of(part), **named}
    family = kind.partition("/")[0]
    if family in MEDIA_KINDS and not (family == "audio" and version in VERSIONS_WITHOUT_AUDIO):
        return {"type": family, "data": part.raw, "mimeType": kind}
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind or DEFAULT_MEDIA_TYPE, "blob": part.raw}}


def file_summary(part: Part) -> dict[str, Any]:
    """Returns a file for structured content, without its bytes."""
    fact = {"name": file_name_of(part), "media_type": media_type_of(part) or DEFAULT_MEDIA_TYPE}
    return fact | ({"url": part.url} if part.url is not UNSET else {})


def status_text_of(task: Task) -> str:
    """Returns the text of the task's status message, or ""."""
    return text_of(task.status.message.parts) if isinstance(task.status.message, Message) else ""


def file_name_of(part: Part) -> str:
    """Returns the name of a file, or the last path segment of its URL."""
    if part.filename:
        return part.filename
    steps = urlsplit(part.url).path.rstrip("/") if isinstance(part.url, str) else ""
    return steps.rpartition("/")[2] or "file"


def media_type_of(part: Part) -> str:
    """Returns the media type that the agent gives, or one guessed from the file name."""
    return part.media_type or mimetypes.guess_type(file_name_of(part))[0] or ""
