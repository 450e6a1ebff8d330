"""Applies the contract of adapters to a vendor's events: reading errors are the agent's fault, and reserved names are removed."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from msgspec.structs import replace

from adapters.contract import CITATIONS_KEY, USAGE_KEY, ArtifactPiece, Ask, Canceled, Done, Event, Failed, InvalidAnswer, Progress
from adapters.redaction.error_text import ErrorTextFilter, filter_failure, filter_progress_text
from adapters.redaction.reserved_metadata import without_reserved_names
from adapters.task import Message, Part, Role
from adapters.vendors.sdk.connection import VendorConnection
from adapters.vendors.sdk.frames import UNREADABLE_TEXT

NOTHING_SAID_TEXT: Final = "The agent completed the turn and said nothing."
WEB_SCHEMES: Final = ("https://", "http://")
ALLOWED_METADATA: Final = frozenset({USAGE_KEY, CITATIONS_KEY})  # the reserved metadata names that adapters may set
READING_ERRORS = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ValueError,
    RecursionError,
)  # raised by reading a malformed response


async def enforce_contract(events: AsyncIterator[Event], connection: VendorConnection[Any]) -> AsyncGenerator[Event, None]:
    """A vendor's events with outputs fetched and without reserved names.

    An error of the vendor class while it reads a response counts as a malformed response. Raises UpstreamFault.
    """
    try:
        async with aclosing(cast("AsyncGenerator[Event, None]", events)) as arriving:
            async for event in arriving:
                event = without_reserved_names(event, ALLOWED_METADATA)
                if isinstance(event, ArtifactPiece):
                    event = await _fetch_parts(connection, event)
                elif isinstance(event, Progress):
                    event = filter_progress_text(event)
                elif isinstance(event, Ask):
                    event = _drop_non_web_urls(event)
                elif isinstance(event, Failed | Canceled) and (event.message is not None or event.metadata):
                    event = filter_failure(event, ErrorTextFilter(connection.url))
                yield event
    except READING_ERRORS as error:
        raise unreadable_answer(error) from error


async def ensure_final_message(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events of a turn. If it is done without any output, its final message says so."""
    has_artifact = False
    async with aclosing(events) as arriving:
        async for event in arriving:
            has_artifact = has_artifact or isinstance(event, ArtifactPiece)
            if isinstance(event, Done) and event.message is None and not has_artifact:
                event = replace(event, message=Message("m-agent", Role.AGENT, (Part(text=NOTHING_SAID_TEXT),)))
            yield event


def _drop_non_web_urls(ask: Ask) -> Ask:
    """Removes URLs of prompts that are not http(s), since people are sent there."""
    if all(not prompt.url or prompt.url.startswith(WEB_SCHEMES) for prompt in ask.prompts):
        return ask
    return replace(ask, prompts=tuple(each if each.url.startswith(WEB_SCHEMES) else replace(each, url="") for each in ask.prompts))


def unreadable_answer(error: Exception) -> InvalidAnswer:
    """The fault for a malformed response, from the error that reading it raised."""
    return InvalidAnswer(UNREADABLE_TEXT, f"{type(error).__name__}: {error}"[:300])


async def _fetch_parts(connection: VendorConnection[Any], piece: ArtifactPiece) -> ArtifactPiece:
    """The piece with parts that have a URL replaced by their fetched content."""
    parts = piece.artifact.parts
    if not any(isinstance(part.url, str) for part in parts):
        return piece
    fetched = [await connection.fetch_part(part) if isinstance(part.url, str) else part for part in parts]
    return replace(piece, artifact=replace(piece.artifact, parts=tuple(fetched)))
