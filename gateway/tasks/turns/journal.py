"""The journal of one turn: its events in order, of which the first are kept and the rest wait for the next commit."""

from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import ArtifactPiece
from gateway.tasks.events.chunks import Joined, PartCounts
from gateway.tasks.events.entries import TaskEvent, TaskRow, artifact_body

RESTED_EVENTS = 1000  # a turn with fewer events is kept as fast as the database commits
REST_PER_EVENT = 1e-4  # seconds between two commits, for each event of a longer turn
REST_MAX = 1.0  # seconds


class TurnLimits(Struct, frozen=True):
    """How much the gateway keeps of one turn: numbered events, and bytes of what they say."""

    events: int = 20_000
    size: int = 32 << 20


USUAL = TurnLimits()


class Turned(Struct, frozen=True):
    """A task and the events of it that this process knows. `refused`: the turn brought an answer that the agent refuses."""

    row: TaskRow
    events: tuple[TaskEvent, ...]
    refused: bool = False


class Journal:
    """What one turn has come to. Noting an event costs the same however many there are.

    Text that is appended to an artifact of many parts joins the event before it, as long as no commit has taken that. So a long stream of
    single words becomes as many events as the database makes commits meanwhile, and nothing of it is lost.
    """

    def __init__(self, opened: Turned, limits: TurnLimits) -> None:
        self.row = opened.row  # where the task stands with all that is noted
        self.kept = opened.row  # where it stands in the database
        self._limits = limits
        self._events = list(opened.events)
        self._first = opened.row.last_seq
        self._kept = len(opened.events)
        self._piece: Joined | None = None  # the last event, while others may still join it
        self._piece_at = 0
        self._counts = PartCounts()
        self._size = 0

    def note(self, new: Turned) -> None:
        """Adds events that were made from `row`, and where the task stands with them."""
        if new.events:
            self._seal()
            self._events += new.events
            self._size += sum(_size(event) for event in new.events)
        self.row = new.row

    def note_piece(self, piece: ArtifactPiece, at: int) -> None:
        """Adds an artifact or a piece of one, as an event or as the continuation of the last one."""
        many = self._counts.add(piece)
        if many and self._piece is not None and self._piece.takes(piece):
            self._piece.join(piece)
            self.row = replace(self.row, updated=at)
            return
        self._seal()
        self.row = replace(self.row, last_seq=self.row.last_seq + 1, updated=at)
        self._piece, self._piece_at = Joined(piece), at

    def waiting(self) -> tuple[TaskEvent, ...]:
        """The events that are not kept yet; from now on nothing joins them."""
        self._seal()
        return tuple(self._events[self._kept :])

    def keep(self, row: TaskRow, count: int) -> None:
        """Notes that the database has `count` more of the events that waited, and with them `row`."""
        self.kept = row
        self._kept += count

    @property
    def is_full(self) -> bool:
        """Whether the turn has reached what the gateway keeps of one."""
        size = self._size + (self._piece.size if self._piece else 0)
        return self.count > self._limits.events or size > self._limits.size

    @property
    def rest(self) -> float:
        """Seconds to wait until the next commit, so that a long turn makes ever fewer and larger events."""
        return min(self.count * REST_PER_EVENT, REST_MAX) if self.count > RESTED_EVENTS else 0.0

    @property
    def count(self) -> int:
        """The events of this turn."""
        return self.row.last_seq - self._first

    def turned(self) -> Turned:
        """All of it."""
        self._seal()
        return Turned(self.row, tuple(self._events))

    def _seal(self) -> None:
        if self._piece is not None:
            piece = self._piece.all()
            body = artifact_body(piece.artifact, piece.append, piece.last_chunk, piece.metadata)
            event = TaskEvent(self.row.last_seq, self._piece_at, "artifact", body)
            self._events.append(event)
            self._size += _size(event)
            self._piece = None


def _size(event: TaskEvent) -> int:
    """Bytes of UTF-8."""
    return len(event.body) if event.body.isascii() else len(event.body.encode())
