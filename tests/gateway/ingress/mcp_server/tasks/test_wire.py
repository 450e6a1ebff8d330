"""What an agent said, as the result of a tool."""

from adapters.task import Artifact, Part, TaskState
from gateway.ingress.mcp_server.tasks.wire import tool_result
from gateway.tasks.events.entries import artifact_event
from gateway.tasks.log import TaskEvent, TaskRecord
from tests.gateway.tasks.test_log import piece, row, status


def result(*events: TaskEvent) -> str:
    return str(tool_result(TaskRecord(row(state=TaskState.COMPLETED), (*events, status(9, TaskState.COMPLETED))))["content"][0]["text"])


def test_what_came_token_by_token_is_one_text() -> None:
    assert result(piece(1, "echo:", append=False), piece(2, " "), piece(3, "hello")) == "echo: hello"


def test_artifacts_stand_apart_and_so_do_the_parts_that_came_together() -> None:
    both = Artifact(artifact_id="a_2", parts=(Part(text="one"), Part(data=1), Part(text="two")))
    last = artifact_event(3, 3, both, append=False, last_chunk=True)
    assert result(piece(1, "x", append=False), piece(2, "y"), last) == "xy\none\ntwo"


def test_an_artifact_that_comes_again_takes_the_place_of_its_pieces() -> None:
    assert result(piece(1, "dra", append=False), piece(2, "ft"), piece(3, "final", append=False)) == "final"
