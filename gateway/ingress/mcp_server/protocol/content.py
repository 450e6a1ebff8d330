"""What an agent gives besides text, as content of a tool's result: images, audio, files and links, as the client's revision has them."""

import mimetypes
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import UNSET

from adapters.mcp_client.wire.messages import LEGACY
from adapters.task import Message, Part, Task, text_of

MEDIA_KINDS = ("image", "audio")  # kinds of content that have blocks of their own
VERSIONS_WITHOUT_LINKS = LEGACY[2:]  # revisions before 2025-06-18 know no resource links
VERSIONS_WITHOUT_AUDIO = LEGACY[3:]  # and before 2025-03-26 no audio
DEFAULT_MEDIA_TYPE = "application/octet-stream"


def files_of(task: Task) -> Iterator[tuple[str, Part]]:
    """Each part that is a file, bytes or an address, with a URI that names it."""
    parts = [(artifact.artifact_id, artifact.parts) for artifact in task.artifacts]
    if isinstance(task.status.message, Message):
        parts.append((task.status.message.message_id, task.status.message.parts))
    for owner, each in parts:
        for number, part in enumerate(each):
            if part.raw is not UNSET or part.url is not UNSET:
                yield f"urn:interlock:task:{quote(task.id, safe='')}:{quote(owner, safe='')}:{number}", part


def file_block(uri: str, part: Part, version: str = "") -> dict[str, Any]:
    """One block of content. `version`: the client's revision, where it is of the `initialize` era."""
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
    """The same for structured content, without the bytes."""
    fact = {"name": file_name_of(part), "media_type": media_type_of(part) or DEFAULT_MEDIA_TYPE}
    return fact | ({"url": part.url} if part.url is not UNSET else {})


def status_text_of(task: Task) -> str:
    """The text of the message that its status has."""
    return text_of(task.status.message.parts) if isinstance(task.status.message, Message) else ""


def file_name_of(part: Part) -> str:
    """Its own name, or the last step of its address."""
    if part.filename:
        return part.filename
    steps = urlsplit(part.url).path.rstrip("/") if isinstance(part.url, str) else ""
    return steps.rpartition("/")[2] or "file"


def media_type_of(part: Part) -> str:
    """As the agent says, or as its name ends."""
    return part.media_type or mimetypes.guess_type(file_name_of(part))[0] or ""
