"""The content of chat messages in models' protocols: a text, or a list of blocks."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from adapters.task import Part

MEDIA_BLOCK_TYPES: Final = frozenset({"audio", "document", "file", "image", "image_url", "video"})
QUESTION_MEMBERS: Final = ("question", "message", "text", "prompt", "description")  # members of a question's data that are for people


def content_of(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    """A single text unchanged; anything else as blocks."""
    blocks = [_block(part) for part in parts]
    return str(blocks[0]["text"]) if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def text_in(content: Any) -> str:
    """The text of a content, without other blocks such as reasoning and tool calls."""
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content or () if isinstance(block, dict) and block.get("type") == "text")


def files_in(content: Any) -> tuple[Part, ...]:
    """The images, sounds and files of a content: blocks of OpenAI, Anthropic and both forms of LangChain."""
    blocks = content if isinstance(content, list) else ()
    found = (_file_of(block) for block in blocks if isinstance(block, dict) and block.get("type") in MEDIA_BLOCK_TYPES)
    return tuple(part for part in found if part is not None)


def _file_of(block: dict[str, Any]) -> Part | None:
    """The file of a block; None without bytes or a URL, such as for an uploaded file's id."""
    source = block.get("image_url") or block.get("source") or block.get("file") or block
    file = source if isinstance(source, dict) else {"url": source}
    kind = str(file.get("mime_type") or file.get("media_type") or "")
    name = str(file.get("filename") or "")
    url = file.get("url") or file.get("file_data")
    head, found, data = str(url or "").partition(";base64,")
    if found and head.startswith("data:"):
        return Part(raw=data, media_type=head.removeprefix("data:"), filename=name)
    raw = file.get("base64") or file.get("data")
    if isinstance(raw, str):
        return Part(raw=raw, media_type=kind, filename=name)
    return Part(url=url, media_type=kind, filename=name) if isinstance(url, str) and url else None


def as_text(value: Any) -> str:
    """A text unchanged; anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def question_text(value: Any) -> str:
    """The text of a question's data that is for people; empty if there is none."""
    if isinstance(value, dict):
        return next((value[name] for name in QUESTION_MEMBERS if isinstance(value.get(name), str)), "")
    return value if isinstance(value, str) else ""


def content_with_sources(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    """Like `content_of`, for protocols whose blocks name the kind of medium and its source."""
    blocks = [_source_block(part) for part in parts]
    return str(blocks[0]["text"]) if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def recent_messages(messages: Sequence[dict[str, Any]], characters_max: int) -> list[dict[str, Any]]:
    """The texts of the latest messages, beginning with one by the user, of at most `characters_max` characters as JSON."""
    texts = [{**each, "content": text_in(each.get("content"))} for each in messages]
    first = len(texts)
    for place in reversed(range(len(texts))):
        characters_max -= len(msgspec.json.encode(texts[place]))
        if characters_max >= 0 and texts[place]["role"] == "user":
            first = place
    return texts[first:]


def _source_block(part: Part) -> dict[str, Any]:
    if isinstance(part.text, str):
        return {"type": "text", "text": part.text}
    if not isinstance(part.raw, str) and not isinstance(part.url, str):
        return {"type": "text", "text": msgspec.json.encode(None if part.data is UNSET else part.data).decode()}
    form, kind = part.media_type.partition("/")[0], part.media_type or "application/octet-stream"
    source = {"type": "data", "value": part.raw} if isinstance(part.raw, str) else {"type": "url", "value": part.url}
    return {"type": form if form in ("image", "audio", "video") else "document", "source": {**source, "mimeType": kind}}


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part.text, str):
        return {"type": "text", "text": part.text}
    if not isinstance(part.raw, str) and not isinstance(part.url, str):
        return {"type": "text", "text": str(part.data)}
    url = part.url if isinstance(part.url, str) else f"data:{part.media_type or 'application/octet-stream'};base64,{part.raw}"
    if part.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": part.filename or "file", "file_data": url}}
