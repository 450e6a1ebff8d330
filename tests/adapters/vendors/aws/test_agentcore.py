"""AgentCore Runtime: what the recordings do not show, from the service's model and the container's documents."""

from typing import Any

import pytest

from adapters.contract import ArtifactPiece, Done, Event, Failed, UpstreamFault, VendorRef
from adapters.vendors.aws.agentcore import UNHEALTHY_TEXT
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import SESSION, asked, canceled, described, exchange
from tests.adapters.replay import ReplayEgress

ARN = "arn:aws:bedrock-agentcore:us-east-1:1:runtime/echo-abc"
RUNTIME = "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A1%3Aruntime%2Fecho-abc"


def answers(events: list[Event]) -> list[Any]:
    parts = [part for event in events if isinstance(event, ArtifactPiece) for part in event.artifact.parts]
    return [part.text if isinstance(part.text, str) else part.data for part in parts]


async def test_the_operator_sets_the_payload_shape_and_no_message_changes_it() -> None:
    upstream = {"prompt": "input", "answer": "output", "payload": {"tenant": "corp"}}
    talk = [exchange("POST", "/invocations", {"input": "hello", "order": 7, "tenant": "corp"}, json={"output": {"total": 3}})]
    send = {"parts": [{"text": "hello"}, {"data": {"order": 7, "tenant": "another"}}]}
    events = await asked("agentcore", upstream, talk, send=send)
    assert answers(events) == [{"total": 3}] and isinstance(events[-1], Done)


@pytest.mark.parametrize(("users", "known"), [(True, True), (False, False)])
async def test_the_runtime_learns_who_the_person_is_only_where_the_operator_says_so(users: bool, known: bool) -> None:
    egress = ReplayEgress((exchange("POST", f"{RUNTIME}/invocations?qualifier=PROD", json={"result": "hi"}),), {})
    await asked("agentcore", {"runtime": ARN, "qualifier": "PROD", "users": users}, egress)
    (headers,) = egress.request_headers
    assert egress.problems == []
    assert headers["x-amzn-bedrock-agentcore-runtime-session-id"] == SESSION
    assert headers.get("x-amzn-bedrock-agentcore-runtime-user-id", "").startswith("u-") is known


@pytest.mark.parametrize(
    ("sse", "expected"),
    [
        (["Hel", "lo"], ["Hel", "lo"]),
        ([{"delta": "Hel"}, {"delta": "lo"}, {"result": "Hello"}], ["Hel", "lo"]),
        ([{"result": "Hello"}], ["Hello"]),
    ],
    ids=["texts", "pieces-then-whole", "whole"],
)
async def test_no_text_is_told_twice(sse: list[Any], expected: list[str]) -> None:
    events = await asked("agentcore", {}, [exchange("POST", "/invocations", sse=sse)])
    assert answers(events) == expected and isinstance(events[-1], Done)


@pytest.mark.parametrize("sse", [[{"delta": "half"}, {"error": "boom", "error_type": "ValueError", "message": "x"}], [{"progress": 1}]])
async def test_an_error_in_the_stream_and_a_stream_without_an_answer_are_failures(sse: list[Any]) -> None:
    assert isinstance((await asked("agentcore", {}, [exchange("POST", "/invocations", sse=sse)]))[-1], Failed)


async def test_an_error_in_a_good_answer_is_a_failure_and_a_bare_text_an_answer() -> None:
    assert isinstance((await asked("agentcore", {}, [exchange("POST", "/invocations", json={"error": "boom"})]))[-1], Failed)
    assert answers(await asked("agentcore", {}, [exchange("POST", "/invocations", json="hello")])) == ["hello"]


async def test_a_file_is_refused_since_the_payload_has_no_place_for_it() -> None:
    events = await asked("agentcore", {}, [], send={"parts": [{"raw": "YQ==", "mediaType": "text/plain"}]})
    assert isinstance(events[-1], Failed) and events[-1].reason == "The agent did not accept the request"


@pytest.mark.parametrize(("status", "outcome"), [(200, CancelOutcome.CANCELED), (404, CancelOutcome.TOO_LATE)])
async def test_a_session_that_is_stopped_is_a_turn_that_is_canceled(status: int, outcome: CancelOutcome) -> None:
    talk = [exchange("POST", f"{RUNTIME}/stopruntimesession", status=status, json={})]
    assert await canceled("agentcore", {"runtime": ARN}, talk, VendorRef(SESSION, SESSION)) is outcome


async def test_a_container_can_t_be_told_to_stop() -> None:
    assert await canceled("agentcore", {}, [], VendorRef(SESSION, SESSION)) is CancelOutcome.UNSUPPORTED


async def test_a_container_that_is_not_well_is_no_agent() -> None:
    with pytest.raises(UpstreamFault, match=UNHEALTHY_TEXT):
        await described("agentcore", {}, [exchange("GET", "/ping", json={"status": "Unhealthy"})])


async def test_a_runtime_has_its_name_from_its_arn() -> None:
    assert (await described("agentcore", {"runtime": ARN}, [])).name == "echo-abc"
