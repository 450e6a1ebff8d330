"""Parts of an artifact that arrive in pieces: appended text continues the text before it."""

from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import ArtifactPiece
from adapters.task import Artifact, Part

SEPARATE_PARTS_MAX = 100  # parts of one artifact that stay as they came; text that is appended after them continues the last one
JOINED_SIZE_MAX = 64 << 10  # characters of the text that joins one piece


class ArtifactParts:
    """The parts of one artifact. Appending a piece costs the same however much came before.

    Once there are `apart`, a plain text that is appended to a plain text of the same media type becomes one part with it. Texts within
    one piece stay apart.
    """

    def __init__(self, parts: Sequence[Part], separate_max: int = SEPARATE_PARTS_MAX) -> None:
        self._separate_max = separate_max
        self._parts = list(parts)
        self._continuation: list[str] = []  # texts that continue the last part

    def append(self, parts: Sequence[Part]) -> None:
        """Adds the parts of one more piece."""
        if not parts:
            return
        if len(self._parts) >= max(self._separate_max, 1) and _can_continue(self._parts[-1], parts[0]):
            self._continuation.append(str(parts[0].text))
            parts = parts[1:]
        if parts:
            self._join()
            self._parts += parts

    def all_parts(self) -> tuple[Part, ...]:
        """Every part so far."""
        self._join()
        return tuple(self._parts)

    def _join(self) -> None:
        if self._continuation:
            self._parts[-1] = replace(self._parts[-1], text="".join((str(self._parts[-1].text), *self._continuation)))
            self._continuation = []


class PartCounts:
    """How many parts the artifacts of one turn have."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count_piece(self, piece: ArtifactPiece) -> bool:
        """Counts the parts of a piece; returns whether its artifact had PARTS_APART before, so that the piece may join another."""
        name = piece.artifact.artifact_id
        known = self._counts.get(name, 0) if piece.append else 0
        self._counts[name] = known + len(piece.artifact.parts)
        return known >= SEPARATE_PARTS_MAX


class PieceJoiner:
    """A piece of an artifact of PARTS_APART parts, and those appended to it. Joining one costs the same however many there are."""

    def __init__(self, first: ArtifactPiece) -> None:
        self._first_piece = self._last_piece = first
        self._parts = ArtifactParts(first.artifact.parts, separate_max=0)
        self.size = _text_size(first)  # characters

    def can_join(self, piece: ArtifactPiece) -> bool:
        """Whether a piece only appends plain text to this artifact, and there is room for it.

        A piece with metadata stays an update of its own, since that metadata is about this update alone.
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
        """All of them as one piece."""
        return replace(
            self._first_piece,
            artifact=replace(self._first_piece.artifact, parts=self._parts.all_parts()),
            last_chunk=self._last_piece.last_chunk,
        )


def _only_adds_text(first: Artifact, added: Artifact) -> bool:
    """Whether a piece of the same artifact brings plain text, and nothing about the artifact that the first one did not say."""
    same = added.artifact_id == first.artifact_id and added.name in ("", first.name) and added.description in ("", first.description)
    known = added.metadata in (UNSET, first.metadata) and added.extensions in ((), first.extensions)
    return same and known and all(_is_plain(part) for part in added.parts)


def _text_size(piece: ArtifactPiece) -> int:
    return sum(len(part.text) for part in piece.artifact.parts if isinstance(part.text, str))


def _can_continue(previous: Part, new: Part) -> bool:
    return _is_plain(previous) and _is_plain(new) and previous.media_type == new.media_type


def _is_plain(part: Part) -> bool:
    """Whether a part is text and nothing else, so that nothing is lost when another text joins it."""
    return isinstance(part.text, str) and not part.filename and part.metadata is UNSET
