"""The demo's own parts: programs start and end, a step that fails says so, one byte is one byte."""

import socket
from pathlib import Path

import httpx
import pytest

from examples.demo import __main__ as demo
from examples.demo import sales
from examples.demo.outside import members, parts_of
from examples.demo.programs import Programs, free_port
from examples.demo.screen import Screen, StepFailed
from examples.demo.story import with_one_flipped_byte


def test_a_program_answers_until_it_is_stopped(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    program = programs.start("examples.inventory_server", free_port())
    try:
        program.wait_until_ready("/")
    finally:
        programs.stop()
    assert program.process.poll() is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(program.url)


def test_a_program_that_ends_at_once_fails_the_step_and_leaves_its_last_words(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    program = programs.start("examples.no_such_program", free_port())
    with pytest.raises(StepFailed, match="does not answer"):
        program.wait_until_ready("/")
    assert "No module named examples.no_such_program" in program.last_words()
    programs.stop()


def test_a_sales_agent_that_nobody_knows_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SALES", "crewai")
    assert demo.main() == 2
    assert "there is langgraph" in capsys.readouterr().err


def test_a_graph_without_its_server_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sales, "LANGGRAPH", tmp_path)
    programs = Programs(tmp_path)
    with pytest.raises(StepFailed, match="make demo SALES=langgraph installs it"):
        sales.SALES["langgraph"].start(programs, "http://127.0.0.1:1", tmp_path / "sales.json")
    assert programs.started == []


def test_any_command_is_a_program_with_a_log_and_a_folder_of_its_own(tmp_path: Path) -> None:
    folder, programs = tmp_path / "inside", Programs(tmp_path)
    folder.mkdir()
    program = programs.run("there", ["sh", "-c", "pwd; echo $SAID"], free_port(), folder, SAID="hello")
    assert program.process.wait(20) == 0
    assert program.last_words().splitlines() == [str(folder), "hello"]
    programs.stop()


def test_a_taken_port_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_a_claim_that_does_not_hold_is_not_shown_as_held(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailed, match="but this was seen: 3"):
        Screen().check(False, "two are left", 3)
    assert "two are left" not in capsys.readouterr().out


def test_exactly_one_bit_is_flipped_in_the_record_of_the_refusal() -> None:
    exported = b'{"decision": "d_1", "who": "bob"}\n{"decision": "d_2", "who": "bob"}\n'
    assert with_one_flipped_byte(exported, b"d_2") == b'{"decision": "d_1", "who": "bob"}\n{"decision": "d_2", "who": "cob"}\n'


def test_members_are_found_at_every_depth_in_order() -> None:
    assert list(members({"decision_id": "d_1", "spans": [{"decision_id": "d_2"}, {"decision_id": ""}]}, "decision_id")) == ["d_1", "d_2"]


def test_the_parts_of_a_task_are_its_text_and_its_data() -> None:
    assert parts_of({"artifacts": [{"parts": [{"text": "yes"}, {"data": {"n": 1}}]}]}) == ("yes", {"n": 1})
    assert parts_of({}) == ("", {})
