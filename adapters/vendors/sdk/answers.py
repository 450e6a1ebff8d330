"""What a vendor's class says of its agent, as the gateway takes it: errors of reading are the agent's, and names of ours are left out."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from msgspec.structs import replace

from adapters.contract import CITATIONS, USAGE, ArtifactPiece, Ask, Canceled, Done, Event, Failed, InvalidAnswer, Progress
from adapters.redaction.error_text import Sieve, meanwhile, undone
from adapters.redaction.reserved_metadata import in_its_own_name
from adapters.task import Message, Part, Role
from adapters.vendors.sdk.connection import Line
from adapters.vendors.sdk.frames import UNREADABLE

NOTHING_SAID: Final = "The agent completed the turn and said nothing."
PAGES: Final = ("https://", "http://")
NOTES: Final = frozenset({USAGE, CITATIONS})  # of the gateway's names in metadata, those that adapters give
MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)  # what reading an answer of another shape raises


async def enforce_contract(events: AsyncIterator[Event], line: Line[Any]) -> AsyncGenerator[Event, None]:
    """The events of a vendor's class as the gateway takes them: outputs fetched, and nothing in them that only the gateway may say.

    An error that the class runs into while it reads an answer is an answer of another shape. Raises UpstreamFault.
    """
    try:
        async with aclosing(cast("AsyncGenerator[Event, None]", events)) as arriving:
            async for event in arriving:
                event = in_its_own_name(event, NOTES)
                if isinstance(event, ArtifactPiece):
                    event = await _fetched(line, event)
                elif isinstance(event, Progress):
                    event = meanwhile(event)
                elif isinstance(event, Ask):
                    event = _leading_to_pages(event)
                elif isinstance(event, Failed | Canceled) and (event.message is not None or event.metadata):
                    event = undone(event, Sieve(line.url))
                yield event
    except MALFORMED as error:
        raise unreadable(error) from error


async def say_something(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events of a turn; where it is done and told nothing, its last message says so."""
    told = False
    async with aclosing(events) as arriving:
        async for event in arriving:
            told = told or isinstance(event, ArtifactPiece)
            if isinstance(event, Done) and event.message is None and not told:
                event = replace(event, message=Message("m-agent", Role.AGENT, (Part(text=NOTHING_SAID),)))
            yield event


def _leading_to_pages(ask: Ask) -> Ask:
    """People are sent to pages alone: an address of any other kind is left out."""
    if all(not prompt.url or prompt.url.startswith(PAGES) for prompt in ask.prompts):
        return ask
    return replace(ask, prompts=tuple(each if each.url.startswith(PAGES) else replace(each, url="") for each in ask.prompts))


def unreadable(error: Exception) -> InvalidAnswer:
    """An answer of another shape, by the error that reading it raised."""
    return InvalidAnswer(UNREADABLE, f"{type(error).__name__}: {error}"[:300])


async def _fetched(line: Line[Any], piece: ArtifactPiece) -> ArtifactPiece:
    """What the agent names by its address, in its place."""
    parts = piece.artifact.parts
    if not any(isinstance(part.url, str) for part in parts):
        return piece
    whole = [await line.fetched(part) if isinstance(part.url, str) else part for part in parts]
    return replace(piece, artifact=replace(piece.artifact, parts=tuple(whole)))
