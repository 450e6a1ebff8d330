"""Joins the pieces of a streamed artifact: appended text continues the text before it."""

from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import ArtifactPiece
from adapters.task import Artifact, Part

SEPARATE_PARTS_MAX = 100  # parts of one artifact that stay separate; later text continues the last part
JOINED_SIZE_MAX = 64 << 10  # characters of text that one joined piece holds


class ArtifactParts:
    """The parts of one artifact. The cost of appending a piece does not depend on the number of earlier parts.

    From `separate_max` parts on, plain text that follows plain text of the same media type is joined to it. Texts within one piece stay
    separate.
    """

    def __init__(self, parts: Sequence[Part], separate_max: int = SEPARATE_PARTS_MAX) -> None:
        self._separate_max = separate_max
        self._parts = list(parts)
        self._continuation: list[str] = []  # texts that continue the last part

    def append(self, parts: Sequence[Part]) -> None:
        """Appends the parts of one more piece."""
        if not parts:
            return
        if len(self._parts) >= max(self._separate_max, 1) and _can_continue(self._parts[-1], parts[0]):
            self._continuation.append(str(parts[0].text))
            parts = parts[1:]
        if parts:
            self._join()
            self._parts += parts

    def all_parts(self) -> tuple[Part, ...]:
        """Returns all parts so far."""
        self._join()
        return tuple(self._parts)

    def _join(self) -> None:
        if self._continuation:
            self._parts[-1] = replace(self._parts[-1], text="".join((str(self._parts[-1].text), *self._continuation)))
            self._continuation = []


class PieceJoiner:
    """Joins pieces of an artifact that has SEPARATE_PARTS_MAX parts. The cost of a join does not depend on the number of pieces."""

    def __init__(self, first: ArtifactPiece) -> None:
        self._first_piece = self._last_piece = first
        self._parts = ArtifactParts(first.artifact.parts, separate_max=0)
        self.size = _text_size(first)  # characters

    def can_join(self, piece: ArtifactPiece) -> bool:
        """Returns whether a piece only appends plain text to this artifact and fits within JOINED_SIZE_MAX.

        A piece with metadata stays a separate update, because its metadata describes that update only.
        """
        if piece.metadata or self._first_piece.metadata:
            return False
        return (
            piece.append
            and _only_adds_text(self._first_piece.artifact, piece.artifact)
            and self.size + _text_size(piece) <= JOINED_SIZE_MAX
        )

    def join(self, piece: ArtifactPiece) -> None:
        self._parts.append(piece.artifact.parts)
        self._last_piece = piece
        self.size += _text_size(piece)

    def joined_piece(self) -> ArtifactPiece:
        """Returns all pieces as one."""
        return replace(
            self._first_piece,
            artifact=replace(self._first_piece.artifact, parts=self._parts.all_parts()),
            last_chunk=self._last_piece.last_chunk,
        )


def _only_adds_text(first: Artifact, added: Artifact) -> bool:
    """Returns whether a piece of the same artifact adds only plain text and no new artifact metadata."""
    same = added.artifact_id == first.artifact_id and added.name in ("", first.name) and added.description in ("", first.description)
    known = added.metadata in (UNSET, first.metadata) and added.extensions in ((), first.extensions)
    return same and known and all(_is_plain(part) for part in added.parts)


def _text_size(piece: ArtifactPiece) -> int:
    return sum(len(part.text) for part in piece.artifact.parts if isinstance(part.text, str))


def _can_continue(previous: Part, new: Part) -> bool:
    return _is_plain(previous) and _is_plain(new) and previous.media_type == new.media_type


def _is_plain(part: Part) -> bool:
    """Returns whether a part is text without file name and metadata, so that joining another text loses nothing."""
    return isinstance(part.text, str) and not part.filename and part.metadata is UNSET
