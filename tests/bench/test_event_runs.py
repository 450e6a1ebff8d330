"""The rows of events: of events and not of requests, and each event that started no run, or two, is an error."""

import json

import pytest

from gateway.workflows.dsl.loading import read_document, read_source
from tests.bench import event_runs, figures
from tests.bench.answers import events_fault
from tests.bench.event_runs import per_event, row_of_starts
from tests.bench.figures import Run, Whole
from tests.bench.workload import BATCH_EVENTS, EVENT_KINDS, EVENTS, FIRST_ID, Script


def test_a_row_of_batches_becomes_one_of_events() -> None:
    row = per_event(Run("interlock", "events.accept_batch", 16, 50.0, 20.0, 30.0, 4000.0, 0), 20)
    assert (row.req_s, row.cpu_us, row.p50_ms) == (1000.0, 200.0, 20.0)


def test_each_event_counts_once_from_its_request_to_its_first_task() -> None:
    sent = {0: 10.0, 1: 11.0, 2: 12.0, 3: 13.0}
    row = row_of_starts(sent, [(0, 10.02), (1, 11.04), (1, 11.5), (2, 12.03)], 50.0, 0.4)
    assert (row.p50_ms, row.p99_ms, row.errors, row.cpu_us) == (pytest.approx(30.0), pytest.approx(40.0), 2, 100_000.0)


def test_the_requests_of_events_are_json_with_ids_of_their_own() -> None:
    for kind, count in EVENT_KINDS.items():
        requests = [Script(EVENTS[kind], ("h", 1, "/api/events"), ["t"], "nonce123").request(FIRST_ID + number) for number in (1, 2)]
        bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in requests]
        events = [event for body in bodies for event in (body if isinstance(body, list) else [body])]
        assert len({event["id"] for event in events}) == 2 * count


def test_an_answer_that_took_other_events_is_found_out() -> None:
    right = json.dumps({"accepted": BATCH_EVENTS, "repeated": 0, "not_started": []}).encode()
    assert events_fault(BATCH_EVENTS, right, 1, "") == ""
    for wrong in (right.replace(b'"repeated": 0', b'"repeated": 1'), b"{}", b"<html>"):
        assert events_fault(BATCH_EVENTS, wrong, 1, "")


def test_the_document_that_events_start_is_a_workflow() -> None:
    assert read_document(read_source(event_runs._DOCUMENT)).document.name == "started"


def test_each_database_has_its_figures_of_events() -> None:
    kinds = (("events.accept", 16, 900.0, 17.0, 0), ("events.start", 50, 50.0, 21.0, 1), ("memory.search", 1, 200.0, 5.0, 0))
    rows = [Run("interlock", name, count, rate, ms, ms, 1.0, errors, "postgres") for name, count, rate, ms, errors in kinds]
    found = {figure.name: figure for figure in figures.figures(rows, Whole())}
    assert found["events on postgres, accepted a second, one a request"].cells == ("900", ">= 1000", "MISSED")
    assert found["events on postgres, event to start, p50 at 50 a second"].cells == ("21 ms", "<= 50", "met")
    assert found["events on postgres, not started exactly once"].missed
    assert not found["memory on postgres, search p50"].missed
    assert found["memory on sqlite, search p50"].value is None
