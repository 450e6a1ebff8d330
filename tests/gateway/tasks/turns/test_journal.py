"""The journal of a turn: however its events are divided into commits, the task that they amount to is the same."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import ArtifactPiece
from adapters.task import Artifact, Part, TaskState
from gateway.tasks.events.chunks import JOINED_SIZE_MAX, SEPARATE_PARTS_MAX
from gateway.tasks.events.entries import TaskRow, artifact_event, task_from_events
from gateway.tasks.turns.journal import UNPACED_EVENTS_MAX, TurnJournal, TurnLimits, TurnState

ROW = TaskRow("default", "t_1", "o", "c_1", "sales", TaskState.WORKING, "", "x", "d", "g", 1, 1, last_seq=2)
PARTS = st.builds(
    Part,
    text=st.text(max_size=4),
    media_type=st.sampled_from(["", "text/html"]),
    filename=st.sampled_from(["", "f"]),
    metadata=st.sampled_from([UNSET, {"a": 1}]),
) | st.builds(Part, data=st.integers())
PIECES = st.builds(
    ArtifactPiece,
    artifact=st.builds(
        Artifact,
        artifact_id=st.sampled_from(["a", "b"]),
        parts=st.lists(PARTS, max_size=3).map(tuple),
        name=st.sampled_from(["", "n", "m"]),
        metadata=st.sampled_from([UNSET, {"b": 2}]),
    ),
    append=st.booleans(),
    last_chunk=st.booleans(),
    metadata=st.sampled_from([None, {"c": 3}]),
)


def journal(limits: TurnLimits = TurnLimits()) -> TurnJournal:  # noqa: B008 (it is frozen)
    return TurnJournal(TurnState(ROW, ()), limits)


def word(text: str, append: bool = True, artifact: str = "a") -> ArtifactPiece:
    return ArtifactPiece(Artifact(artifact, (Part(text=text),)), append, last_chunk=False)


def begun(count: int) -> list[tuple[ArtifactPiece, bool]]:
    """Two artifacts that have so many parts."""
    texts = tuple(Part(text=str(number)) for number in range(count))
    return [(ArtifactPiece(Artifact(name, texts)), False) for name in ("a", "b")]


@given(st.integers(SEPARATE_PARTS_MAX - 3, SEPARATE_PARTS_MAX + 1).map(begun), st.lists(st.tuples(PIECES, st.booleans()), max_size=12))
def test_joined_pieces_amount_to_the_same_task_as_single_ones(
    first: list[tuple[ArtifactPiece, bool]], more: list[tuple[ArtifactPiece, bool]]
) -> None:
    """A commit after any of the pieces, or none, changes nothing of what is read afterwards."""
    noted, single, script = journal(), [], first + more
    for number, (piece, committed) in enumerate(script):
        noted.add_piece(piece, number)
        marks = {"append": piece.append, "last_chunk": piece.last_chunk}
        single.append(artifact_event(number, number, piece.artifact, **marks, metadata=piece.metadata))
        if committed:
            noted.mark_written(noted.row, len(noted.unwritten_events()))
    turned = noted.to_turn_state()
    assert task_from_events(ROW, turned.events) == task_from_events(ROW, single)
    assert [event.metadata for event in turned.events if event.metadata] == [piece.metadata for piece, _ in script if piece.metadata]
    assert [event.seq for event in turned.events] == list(range(3, turned.row.last_seq + 1))


def longer() -> TurnJournal:
    """The journal of a turn whose artifacts `a` and `b` have all the parts that stay apart, in two events that are kept."""
    noted = journal()
    for piece, _ in begun(SEPARATE_PARTS_MAX):
        noted.add_piece(piece, 1)
    noted.mark_written(noted.row, len(noted.unwritten_events()))
    return noted


def test_a_piece_with_metadata_is_joined_with_no_other() -> None:
    noted = longer()
    for piece in (word("x"), replace(word("y"), metadata={"c": 3}), word("z"), word("z")):
        noted.add_piece(piece, 2)
    assert [event.metadata for event in noted.unwritten_events()] == [{}, {"c": 3}, {}]


def test_the_first_words_of_an_artifact_are_events_of_their_own() -> None:
    noted = journal()
    for number in range(SEPARATE_PARTS_MAX):
        noted.add_piece(word(str(number)), 1)
    assert len(noted.unwritten_events()) == SEPARATE_PARTS_MAX


def test_words_of_a_long_artifact_are_one_event_until_a_commit_takes_them() -> None:
    noted = longer()
    for text in ("a", "b", "c"):
        noted.add_piece(word(text), 1)
    (event,) = noted.unwritten_events()
    assert event.artifact.parts == (Part(text="abc"),) and event.seq == 5
    noted.mark_written(noted.row, 1)
    noted.add_piece(word("d"), 2)
    (event,) = noted.unwritten_events()
    assert event.artifact.parts == (Part(text="d"),) and event.seq == 6


def test_pieces_that_say_more_than_text_stay_events_of_their_own() -> None:
    noted = longer()
    noted.add_piece(word("a"), 1)
    noted.add_piece(word("other", artifact="b"), 1)
    noted.add_piece(word("new", append=False, artifact="b"), 1)
    noted.add_piece(ArtifactPiece(Artifact("b", (Part(data={"x": 1}),)), append=True), 1)
    noted.add_piece(ArtifactPiece(Artifact("b", (Part(text="x"),), name="named"), append=True), 1)
    assert len(noted.unwritten_events()) == 5


def test_one_event_does_not_grow_without_end() -> None:
    noted = longer()
    for _ in range(5):
        noted.add_piece(word("x" * (JOINED_SIZE_MAX // 2)), 1)
    assert [len(str(event.artifact.parts[0].text)) for event in noted.unwritten_events()] == [
        JOINED_SIZE_MAX,
        JOINED_SIZE_MAX,
        JOINED_SIZE_MAX // 2,
    ]


def test_a_longer_turn_is_kept_ever_less_often() -> None:
    noted = journal(TurnLimits(events_max=10**6))
    rests = []
    for number in range(20 * UNPACED_EVENTS_MAX):
        noted.add_piece(word("x", append=False), 1)
        if number % UNPACED_EVENTS_MAX == 0:
            rests.append(noted.pause_seconds)
    assert rests[0] == 0 and rests == sorted(rests) and rests[-1] == 1.0


def test_bytes_are_counted_whatever_the_language() -> None:
    noted = journal(TurnLimits(bytes_max=300))
    noted.add_piece(word("\u3042" * 70, append=False), 1)
    assert len(noted.unwritten_events()[0].body) < 200 and not noted.is_full
    noted.add_piece(word("\u3042" * 20, append=False), 1)
    noted.unwritten_events()
    assert noted.is_full
