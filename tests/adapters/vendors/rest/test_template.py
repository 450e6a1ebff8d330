"""What is particular to agents that their operator described."""

from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Canceled, Done, Event, Failed, Progress, Prompt, RefLearned, VendorRef
from adapters.upstream.egress import HttpResponse
from adapters.vendors.rest.options import StateWords
from adapters.vendors.sdk.agent import BadOptions, CancelOutcome, parse_options
from tests.adapters.hand_written import SESSION, asked, canceled, described, exchange
from tests.adapters.replay import ReplayEgress, outcome, vendor_of

ABOUT = {"name": "Claims", "description": "Decides."}
STATES = {"working": ["busy"], "done": ["over"], "failed": ["bad"], "canceled": ["stopped"]}
POLL = {"path": "/runs/{run}", "every": 0.02}
REF = VendorRef("s-1", "r 1")


def upstream(**more: Any) -> dict[str, Any]:
    answer = {"run": "id", "status": "state", "states": STATES, "output": "out", "progress": "note", **more.pop("answer", {})}
    return {"about": ABOUT, "start": {"path": "/runs", "fill": {"/text": "text"}}, "poll": POLL, "answer": answer, **more}


def run_of(*later: Any, first: Any = None) -> list[dict[str, Any]]:
    begun = exchange("POST", "/runs", json=first or {"id": "r 1", "state": "busy"})
    return [begun, *(exchange("GET", "/runs/r%201", json=each) for each in later)]


async def test_a_turn_is_polled_until_it_is_over_and_says_what_it_does_once() -> None:
    busy = {"state": "busy", "note": "reading"}
    events = await asked("rest", upstream(), run_of(busy, busy, {"state": "over", "out": "yes"}))
    assert [event.message.parts[0].text for event in events if isinstance(event, Progress) and event.message] == ["reading"]
    assert [event.ref for event in events if isinstance(event, RefLearned)] == [VendorRef(SESSION, SESSION), VendorRef(SESSION, "r 1")]
    assert outcome(events)["artifacts"] == [{"text": "yes"}]


@pytest.mark.parametrize(
    ("told", "ending", "kind"),
    [
        ({"state": "stopped"}, Canceled, ""),
        ({"state": "bad"}, Failed, ""),
        ({"state": "of another kind"}, Failed, "INVALID_AGENT_RESPONSE"),
        ({}, Failed, "INVALID_AGENT_RESPONSE"),
        ({"state": True}, Failed, "INVALID_AGENT_RESPONSE"),
        ({"state": "over"}, Done, ""),
    ],
)
async def test_a_poll_ends_by_a_state_that_is_known(told: Any, ending: type[Event], kind: str) -> None:
    event = (await asked("rest", upstream(), run_of(told)))[-1]
    assert isinstance(event, ending) and getattr(event, "kind", "") == kind


def test_a_state_is_of_its_own_type() -> None:
    states = StateWords(done=(1,), failed=(False,))
    assert [states.state_for(word) for word in (1, True, 0, False, "1", [1], None)] == ["done", "", "", "failed", "", "", ""]


class Flaky(ReplayEgress):
    """Has no time for the first polls."""

    def __init__(self, talk: list[dict[str, Any]], troubles: int) -> None:
        super().__init__(tuple(talk), {})
        self.troubles = troubles

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        if method == "GET" and self.troubles:
            self.troubles -= 1
            return HttpResponse(429, {}, b"")
        return await super().request(method, url, **more)


@pytest.mark.parametrize(("troubles", "ending"), [(3, Done), (4, Failed)])
async def test_polls_that_fail_for_a_while_end_no_turn(troubles: int, ending: type[Event]) -> None:
    talk = run_of({"state": "over", "out": "yes"})
    assert isinstance((await asked("rest", upstream(), Flaky(talk, troubles)))[-1], ending)


async def test_a_run_that_has_no_name_is_not_polled() -> None:
    events = await asked("rest", upstream(), [exchange("POST", "/runs", json={"state": "busy"})])
    assert isinstance(events[-1], Failed) and "no run" in events[-1].detail


async def test_ids_and_answers_stay_one_step_of_a_path() -> None:
    prompt = Prompt("../admin?x=1#", token="a/b")
    told = upstream(resume={"path": "/runs/{run}/{prompt}/{token}", "fill": {"/value": "answer"}})
    talk = [exchange("POST", "/runs/r%201/..%2Fadmin%3Fx%3D1%23/a%2Fb", {"value": "v"}, json={"state": "over"})]
    assert isinstance((await asked("rest", told, talk, ref=REF, answers=(Answer(prompt, "v"),)))[-1], Done)


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    told = upstream(start={"path": "/users/{user}/runs", "fill": {"/user": "user", "/said": "data"}})
    egress = ReplayEgress((exchange("POST", "/users/admin/runs", json={}),), {})
    await asked("rest", told, egress, send={"data": {"user": "admin"}})
    assert any("POST /users/u-" in problem for problem in egress.problems)


async def test_files_go_both_ways() -> None:
    told = upstream(start={"path": "/runs", "fill": {"/files": "files", "/data": "data"}}, answer={"files": "files"})
    file = {"name": "x.png", "mediaType": "image/png", "base64": "AAAA"}
    talk = [exchange("POST", "/runs", {"files": [file], "data": {"a": 1}}, json={"state": "over", "files": [file]})]
    send = {"parts": [{"raw": "AAAA", "mediaType": "image/png", "filename": "x.png"}, {"data": {"a": 1}}]}
    events = await asked("rest", told, talk, send=send)
    (piece,) = (event for event in events if isinstance(event, ArtifactPiece))
    assert (piece.artifact.parts[0].raw, piece.artifact.parts[0].filename) == ("AAAA", "x.png")


async def test_a_whole_that_is_another_takes_the_place_of_what_was_streamed() -> None:
    told = upstream(answer={"delta": "piece"}, stream={"path": "/stream"}, poll=None)
    for whole, said in (("half a word", "half a word"), ("another", "another")):
        talk = [exchange("POST", "/stream", sse=[{"piece": "half "}, {"piece": "a word"}, {"out": whole, "state": "over"}])]
        assert outcome(await asked("rest", told, talk))["artifacts"] == [{"text": said}]


async def test_events_are_known_by_their_names_too() -> None:
    told = upstream(answer={"delta": "piece", "states": {"done": ["finish"], "failed": ["oops"]}}, poll=None)
    for name, ending in (("finish", Done), ("oops", Failed)):
        talk = [exchange("POST", "/runs", sse=[{"piece": "x"}])]
        talk[0]["response"]["stream_raw"] += f"event: {name}\ndata: {{}}\n\n"
        assert isinstance((await asked("rest", told, talk))[-1], ending)


STOP = {"path": "/runs/{run}/stop"}


@pytest.mark.parametrize(
    ("cancel", "status", "stop", "poll", "found"),
    [
        (None, 0, None, None, CancelOutcome.UNSUPPORTED),
        ({**STOP, "confirms": True}, 200, None, None, CancelOutcome.CANCELED),
        ({**STOP, "confirms": True}, 404, None, {"state": "over"}, CancelOutcome.TOO_LATE),
        (STOP, 200, {"state": "stopped"}, None, CancelOutcome.CANCELED),
        (STOP, 200, {"ok": True}, {"state": "stopped"}, CancelOutcome.CANCELED),
        (STOP, 200, {"ok": True}, {"state": "over"}, CancelOutcome.TOO_LATE),
        (STOP, 200, {"ok": True}, {"state": "busy"}, CancelOutcome.UNKNOWN),
        (STOP, 409, {}, {"state": "busy"}, CancelOutcome.UNKNOWN),
        (STOP, 404, {}, {}, CancelOutcome.TOO_LATE),
    ],
)
async def test_a_cancellation_is_told_as_it_is(cancel: Any, status: int, stop: Any, poll: Any, found: CancelOutcome) -> None:
    talk = [exchange("POST", "/runs/r%201/stop", status=status, json=stop), exchange("GET", "/runs/r%201", json=poll)]
    assert await canceled("rest", upstream(cancel=cancel), talk, REF) is found


async def test_a_run_without_a_name_is_told_nothing() -> None:
    for ref in (VendorRef("s-1"), VendorRef("s-1", "s-1")):
        assert await canceled("rest", upstream(cancel=STOP), [], ref) is CancelOutcome.UNSUPPORTED


@pytest.mark.parametrize(
    ("cancel", "first"),
    [
        (STOP, VendorRef(SESSION)),
        ({"path": "/stop", "fill": {"/id": "run"}}, VendorRef(SESSION)),
        ({"path": "/sessions/{session}/stop"}, VendorRef(SESSION, SESSION)),
        (None, VendorRef(SESSION, SESSION)),
    ],
)
async def test_a_stop_waits_for_the_name_of_a_turn_only_where_it_is_asked_for_by_that(cancel: Any, first: VendorRef) -> None:
    events = await asked("rest", upstream(cancel=cancel), run_of({"state": "over", "out": "yes"}))
    assert [event.ref for event in events if isinstance(event, RefLearned)] == [first, VendorRef(SESSION, "r 1")]


async def test_its_form_is_its_skills() -> None:
    told = await described("rest", upstream(about={**ABOUT, "path": "/health", "input": {"type": "object"}}), [exchange("GET", "/health")])
    assert told.skills[0].schema == {"type": "object"}


@pytest.mark.parametrize("path", ["runs", "//{x}", "/a b", "/a#b", "/{run", "/a\\b", "/\u0007", "https://x.example/"])
def test_a_path_is_below_the_agents_url(path: str) -> None:
    with pytest.raises(BadOptions, match=r"upstream\.start\.path"):
        parse_options(vendor_of("rest"), upstream(start={"path": path}))
