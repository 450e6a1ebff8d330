"""The history checker of the benchmark finds what is wrong with a claim, and the figures of shared state are those of their rows."""

import json

import pytest

from tests.bench import figures
from tests.bench.answers import value_fault
from tests.bench.contended_claims import Hold, faults_of
from tests.bench.figures import ContendedClaims, Run, StateFigures, Whole
from tests.bench.state_runs import CUSTOMERS, KEYS
from tests.bench.workload import EVERY_WORKLOAD, FIRST_ID, STATE, WORKLOADS, Script

GOOD = [Hold(1, 0.0, 1.0), Hold(2, 1.5, 2.0), Hold(5, 2.0, 3.0)]


@pytest.mark.parametrize(
    ("holds", "counter", "fault"),
    [
        (GOOD, 3, ""),
        (GOOD[::-1], 3, ""),
        ([*GOOD, Hold(6, 2.9, 4.0)], 4, "began before"),
        ([*GOOD, Hold(5, 3.0, 4.0)], 4, "is not above"),
        ([*GOOD, Hold(4, 3.0, 4.0)], 4, "is not above"),
        (GOOD, 2, "counted 2 in place of 3"),
    ],
)
def test_a_history_with_two_holders_or_old_tokens_is_found_out(holds: list[Hold], counter: int, fault: str) -> None:
    found = faults_of(holds, counter)
    assert (not found) if not fault else fault in found[0]


def test_each_database_has_its_figures_of_shared_state() -> None:
    calls = [
        Run("interlock", f"mcp.tools_call+{kind}", 1, 500.0, ms, ms, 1.0, 0, "sqlite") for kind, ms in (("effect", 1.9), ("no_effect", 1.3))
    ]
    board = [Run("interlock", f"state.{kind}", 16, 999.0, 1.0, 1.0, 1.0, 0, "sqlite") for kind in ("read", "write")]
    whole = Whole(shared_state={"sqlite": StateFigures(ContendedClaims(16, 199.0))})
    found = {figure.name: figure for figure in figures.figures([*calls, *board], whole)}
    assert found["shared state on sqlite, a declared effect and three rules, added p50"].cells == ("0.6 ms", "<= 0.5", "MISSED")
    assert found["shared state on sqlite, claims a second that many want"].missed
    assert found["shared state on sqlite, reads a second, 16 connections"].missed
    assert not found["shared state on sqlite, writes a second, 16 connections"].missed
    assert found["shared state on postgres, claims a second that many want"].value is None


@pytest.mark.parametrize("workload", STATE)
def test_reads_and_writes_name_the_key_in_their_path(workload: str) -> None:
    script = Script(EVERY_WORKLOAD[workload], ("h", 1, "/api/state/%(text)b"), ["alice"], "0123abcd", KEYS)
    request = script.request(FIRST_ID + 1)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(f"{STATE[workload].method} /api/state/{script.text(FIRST_ID + 1)} HTTP/1.1\r\n".encode())
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert workload == "state_read" or json.loads(body)["was"] == script.text(FIRST_ID + 1)


def test_calls_with_an_effect_are_as_long_as_plain_ones() -> None:
    script = Script(WORKLOADS["mcp"], ("h", 1, "/mcp"), ["alice"], "0123abcd")
    assert abs(len(script.text(FIRST_ID)) - len(CUSTOMERS[0])) < 40 and len({len(each) for each in CUSTOMERS}) == 1


@pytest.mark.parametrize("wrong", [b'{"key": "bench/0001/status"}', b'{"detail": "no"}', b"<html>"])
def test_a_reply_about_another_value_is_found_out(wrong: bytes) -> None:
    assert value_fault(b'{"key": "bench/0000/status", "value": 1}', 7, "bench/0000/status") == ""
    assert value_fault(wrong, 7, "bench/0000/status")


def test_each_workload_expects_a_status_and_has_the_verb_of_its_path() -> None:
    assert all(isinstance(each.status, int) and each.method in ("GET", "POST", "PUT") for each in EVERY_WORKLOAD.values())
    assert (EVERY_WORKLOAD["state_read"].method, EVERY_WORKLOAD["state_write"].method) == ("GET", "PUT")
