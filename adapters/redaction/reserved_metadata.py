"""Names in metadata that only the gateway gives: what an agent says under them is left out, so that none passes for the gateway."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from adapters.contract import AnswerRefused, ArtifactPiece, Event, Ref, Replied, Withheld
from adapters.task import Artifact, Message, Part

OURS: Final = "urn:interlock:"
N = TypeVar("N", Message, Part, Artifact)
Metadata = dict[str, Any] | UnsetType


def noted(noun: N, shown: Callable[[Metadata], Metadata]) -> N:
    """With what is `shown` of its metadata and that of its parts; the same object where that is all."""
    if not isinstance(noun, Part) and any(part.metadata is not UNSET for part in noun.parts):
        parts = tuple([noted(part, shown) for part in noun.parts])
        noun = noun if parts == noun.parts else replace(noun, parts=parts)
    if noun.metadata is UNSET:
        return noun
    left = shown(noun.metadata)
    return noun if left is noun.metadata else replace(noun, metadata=left)


def without_ours(metadata: Mapping[str, Any], may: Collection[str] = ()) -> Mapping[str, Any]:
    """The same object where no name is the gateway's; `may`: those that are given all the same."""
    own = {name: value for name, value in metadata.items() if name in may or name[: len(OURS)].lower() != OURS}
    return metadata if len(own) == len(metadata) else own


def in_its_own_name(event: Event, may: Collection[str] = ()) -> Event:
    """What an agent tells, without the gateway's names in the metadata of the event itself, of its message or of its artifact."""

    def shown(metadata: Metadata) -> Metadata:
        if not isinstance(metadata, dict):
            return UNSET
        left = without_ours(metadata, may)
        return metadata if left is metadata else dict(left) or UNSET

    if isinstance(event, Ref | Withheld | AnswerRefused):
        return event
    if not isinstance(event, Replied) and event.metadata:
        metadata = without_ours(event.metadata, may)
        event = event if metadata is event.metadata else replace(event, metadata=metadata or None)
    if isinstance(event, ArtifactPiece):
        artifact = noted(event.artifact, shown)
        return event if artifact is event.artifact else replace(event, artifact=artifact)
    if event.message is None:
        return event
    message = noted(event.message, shown)
    return event if message is event.message else replace(event, message=message)
