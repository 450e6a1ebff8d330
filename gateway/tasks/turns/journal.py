"""The journal of one turn: its events in order, of which a first part is in the database."""

from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import ArtifactPiece
from gateway.tasks.events.chunks import SEPARATE_PARTS_MAX, PieceJoiner
from gateway.tasks.events.entries import TaskEvent, TaskRow, artifact_event

UNPACED_EVENTS_MAX = 1000  # a turn with fewer events is written as fast as the database commits
PAUSE_PER_EVENT_SECONDS = 1e-4  # seconds between two commits, for each event of a longer turn
PAUSE_MAX_SECONDS = 1.0  # seconds
UPDATED_STEP_US = 500_000  # by which `updated` advances at least while a turn makes progress: five indexes of tasks have it


Retry = tuple[int, str]  # when an attempt failed, in microseconds since 1970, and the problem


class TurnLimits(Struct, frozen=True):
    """How much the gateway stores of one turn: the number of events, and the bytes of their bodies."""

    events_max: int = 20_000
    bytes_max: int = 32 << 20


DEFAULT_TURN_LIMITS = TurnLimits()


class TurnState(Struct, frozen=True):
    """A task with the events of it that this process knows.

    `is_answer_refused` says that the agent did not accept the answer that the turn brought.
    """

    row: TaskRow
    events: tuple[TaskEvent, ...]
    is_answer_refused: bool = False


class PartCounts:
    """Counts the parts of the artifacts of one turn."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count_piece(self, piece: ArtifactPiece) -> bool:
        """Counts the parts of a piece.

        Returns whether its artifact had SEPARATE_PARTS_MAX parts before, so that the piece may be joined to another.
        """
        name = piece.artifact.artifact_id
        known = self._counts.get(name, 0) if piece.append else 0
        self._counts[name] = known + len(piece.artifact.parts)
        return known >= SEPARATE_PARTS_MAX

    def are_many(self, piece: ArtifactPiece) -> bool:
        """Returns whether the artifact of a piece has SEPARATE_PARTS_MAX parts now, so that the next piece may be joined."""
        return self._counts[piece.artifact.artifact_id] >= SEPARATE_PARTS_MAX


class TurnJournal:
    """Collects the events of one turn. The cost of adding an event does not depend on the number of earlier events.

    Text that is appended to an artifact of many parts joins the last event until a commit has taken that event. So a long stream of
    single words becomes as many events as the database makes commits, without loss.
    """

    def __init__(self, opening: TurnState, limits: TurnLimits) -> None:
        self.row = opening.row  # with all events of the journal
        self.written_row = opening.row  # as the database has it
        self._limits = limits
        self._events = list(opening.events)
        self._first_seq = opening.row.last_seq
        self._written_count = len(opening.events)
        self._open_piece: ArtifactPiece | None = None  # the last event, while others may still join it
        self._open_piece_at = 0
        self._open_piece_size = 0  # characters, with what joined it
        self._joiner: PieceJoiner | None = None  # of the open piece and those that joined it
        self._part_counts = PartCounts()
        self._size = 0
        self.retries: list[Retry] = []

    def add(self, turn_state: TurnState) -> None:
        """Adds events that follow `row`, and the row that results from them."""
        if turn_state.events:
            self._close_piece()
            self._events += turn_state.events
            for event in turn_state.events:
                self._size += _body_size(event)
        self.row = turn_state.row

    def add_piece(self, piece: ArtifactPiece, at: int) -> None:
        """Adds an artifact or a piece of one, as an event or as the continuation of the last event."""
        has_many_parts = self._part_counts.count_piece(piece)
        if has_many_parts and self._open_piece is not None:
            joiner = self._joiner = self._joiner or PieceJoiner(self._open_piece)
            if joiner.can_join(piece):
                joiner.join(piece)
                self._open_piece_size = joiner.size
                self.row = replace(self.row, updated=at)
                return
        self._close_piece()
        self.row = replace(self.row, last_seq=self.row.last_seq + 1, updated=at)
        if self._part_counts.are_many(piece):
            self._open_piece, self._open_piece_at = piece, at
            self._open_piece_size = sum(len(part.text) for part in piece.artifact.parts if isinstance(part.text, str))
        else:
            self._add_piece_event(piece, at)

    def unwritten_events(self) -> tuple[TaskEvent, ...]:
        """Returns the events that are not written yet. From now on, no text joins them."""
        self._close_piece()
        return tuple(self._events[self._written_count :])

    def progress_row(self) -> TaskRow:
        """Returns the row to write with the unwritten events of a turn that goes on: its `updated` may be UPDATED_STEP_US behind."""
        row, written = self.row, self.written_row
        keeps_time = row.state is written.state and row.updated - written.updated < UPDATED_STEP_US
        return replace(row, updated=written.updated) if keeps_time else row

    def mark_written(self, row: TaskRow, count: int) -> None:
        """Records that the database has `count` more events, and `row`."""
        self.written_row = row
        self._written_count += count

    @property
    def is_full(self) -> bool:
        """Returns whether the turn has reached its limits."""
        limits = self._limits
        return self.row.last_seq - self._first_seq > limits.events_max or self._size + self._open_piece_size > limits.bytes_max

    @property
    def pause_seconds(self) -> float:
        """Returns the seconds until the next commit. The pause grows with the turn, so that a long turn makes fewer and larger events."""
        return min(self.event_count * PAUSE_PER_EVENT_SECONDS, PAUSE_MAX_SECONDS) if self.event_count > UNPACED_EVENTS_MAX else 0.0

    @property
    def event_count(self) -> int:
        """Returns the number of events of this turn."""
        return self.row.last_seq - self._first_seq

    def to_turn_state(self) -> TurnState:
        """Returns the task with all events of the journal."""
        self._close_piece()
        return TurnState(self.row, tuple(self._events))

    def _close_piece(self) -> None:
        if self._open_piece is not None:
            piece = self._open_piece if self._joiner is None else self._joiner.joined_piece()
            self._open_piece, self._open_piece_size, self._joiner = None, 0, None
            self._add_piece_event(piece, self._open_piece_at)

    def _add_piece_event(self, piece: ArtifactPiece, at: int) -> None:
        event = artifact_event(
            self.row.last_seq, at, piece.artifact, append=piece.append, last_chunk=piece.last_chunk, metadata=piece.metadata
        )
        self._events.append(event)
        self._size += _body_size(event)


def _body_size(event: TaskEvent) -> int:
    """Returns the size in bytes of UTF-8."""
    text = event.body if event.metadata_json is None else event.body + event.metadata_json
    return len(text) if text.isascii() else len(text.encode())
