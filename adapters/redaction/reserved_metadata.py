"""Removes reserved metadata names from an agent's events, so that an agent can't pose as the gateway."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from adapters.contract import AnswerRefused, ArtifactPiece, Event, RefLearned, RejectedArtifact, Replied
from adapters.task import Artifact, Message, Part

RESERVED_PREFIX: Final = "urn:interlock:"
_WITHOUT_METADATA: Final = (RefLearned, RejectedArtifact, AnswerRefused)
N = TypeVar("N", Message, Part, Artifact)
Metadata = dict[str, Any] | UnsetType


def filter_metadata(value: N, select: Callable[[Metadata], Metadata]) -> N:
    """The value with `select` applied to its metadata and its parts' metadata; the same object if nothing changes."""
    if not isinstance(value, Part) and _have_metadata(value.parts):
        parts = tuple([filter_metadata(part, select) for part in value.parts])
        value = value if parts == value.parts else replace(value, parts=parts)
    if value.metadata is UNSET:
        return value
    left = select(value.metadata)
    return value if left is value.metadata else replace(value, metadata=left)


def without_reserved_members(metadata: Mapping[str, Any], allowed: Collection[str] = ()) -> Mapping[str, Any]:
    """The metadata without reserved names, except `allowed` ones; the same object if it has none."""
    own = {name: value for name, value in metadata.items() if name in allowed or name[: len(RESERVED_PREFIX)].lower() != RESERVED_PREFIX}
    return metadata if len(own) == len(metadata) else own


def without_reserved_names(event: Event, allowed: Collection[str] = ()) -> Event:
    """The event without reserved names in its metadata, or that of its message or artifact."""
    if isinstance(event, ArtifactPiece) and event.metadata is None:
        artifact = event.artifact
        if artifact.metadata is UNSET and not _have_metadata(artifact.parts):
            return event  # as most of a stream
    if isinstance(event, _WITHOUT_METADATA):
        return event
    if not isinstance(event, Replied) and event.metadata:
        metadata = without_reserved_members(event.metadata, allowed)
        event = event if metadata is event.metadata else replace(event, metadata=metadata or None)

    def without_reserved(metadata: Metadata) -> Metadata:
        if not isinstance(metadata, dict):
            return UNSET
        left = without_reserved_members(metadata, allowed)
        return metadata if left is metadata else dict(left) or UNSET

    if isinstance(event, ArtifactPiece):
        artifact = filter_metadata(event.artifact, without_reserved)
        return event if artifact is event.artifact else replace(event, artifact=artifact)
    if event.message is None:
        return event
    message = filter_metadata(event.message, without_reserved)
    return event if message is event.message else replace(event, message=message)


def _have_metadata(parts: Iterable[Part]) -> bool:
    for part in parts:  # noqa: SIM110 (a generator takes three times as long, for each event of a stream)
        if part.metadata is not UNSET:
            return True
    return False
