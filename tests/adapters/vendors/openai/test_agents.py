"""OpenAI's hosted agents: what the written exchanges do not show. All of it is from the documentation; nobody has recorded the service."""

from typing import Any

import pytest

from adapters.contract import ArtifactPiece, Ask, Done, Failed, RefLearned, VendorRef
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import asked, canceled, exchange
from tests.adapters.replay import ReplayEgress

UPSTREAM = {"agent": "agent_1"}
EVENTS = "/agents/sessions/sess_1/events"
TURN = "/agents/sessions/sess_1/turns/turn_1"
REF = VendorRef("sess_1", "turn_1")


def told(kind: str, turn: str, **more: Any) -> dict[str, Any]:
    return {"type": f"agent.session.turn.{kind}", "turn_id": turn, "turn": {"id": turn, "subagent_id": None}, **more}


class Noting(ReplayEgress):
    """Keeps the order of what is asked, with the headers."""

    def __init__(self, *exchanges: dict[str, Any]) -> None:
        super().__init__(exchanges, {})
        self.asked: list[str] = []

    def _next_response(self, method: str, url: str, headers: Any, body: Any) -> Any:
        self.asked.append(method)
        return super()._next_response(method, url, headers, body)


async def test_it_is_listened_to_before_anything_is_said_and_each_request_names_the_beta() -> None:
    stream = exchange("GET", EVENTS, sse=[told("created", "turn_2"), told("completed", "turn_2")])
    egress = Noting(stream, exchange("POST", EVENTS, status=204, json=None))
    events = await asked("openai-agents", UPSTREAM, egress, ref=REF)
    assert egress.asked == ["GET", "POST"] and egress.problems == []
    assert [headers["openai-beta"] for headers in egress.request_headers] == ["agents=v1"] * 2
    assert [event.ref for event in events if isinstance(event, RefLearned)] == [VendorRef("sess_1", "turn_2")]
    assert isinstance(events[-1], Done)


async def test_a_published_file_is_asked_for_with_the_beta_and_the_credential() -> None:
    session = {"type": "agent.session.created", "session": {"id": "sess_1"}}
    egress = Noting(
        exchange("POST", "/agents/sessions", sse=[session, told("created", "turn_1"), told("completed", "turn_1")]),
        exchange(
            "GET",
            "/agents/sessions/sess_1/artifacts?limit=100&order=desc",
            json={"data": [{"id": "a", "turn_id": "turn_1", "path": "/o/t"}]},
        ),
        exchange("GET", "/agents/sessions/sess_1/artifacts/a/content", json={}),
    )
    events = await asked("openai-agents", {**UPSTREAM, "environment": {"type": "openai_hosted"}}, egress)
    (piece,) = [event for event in events if isinstance(event, ArtifactPiece)]
    assert (piece.artifact.name, piece.artifact.parts[0].raw) == ("t", "e30=")
    assert egress.request_headers[-1]["openai-beta"] == "agents=v1" and egress.request_headers[-1]["x-api-key"] == "operators-secret-key"


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([told("cancelled", "turn_1")], CancelOutcome.CANCELED),
        ([told("completed", "turn_1")], CancelOutcome.TOO_LATE),
        ([told("failed", "turn_1")], CancelOutcome.TOO_LATE),
        ([told("cancelled", "turn_0")], CancelOutcome.UNKNOWN),
        ([{"type": "agent.session.requires_action", "session": {"required_actions": [{"type": "x"}]}}], CancelOutcome.UNKNOWN),
    ],
    ids=["confirmed", "completed", "failed", "another-turn", "still-waiting"],
)
async def test_a_cancellation_is_what_the_turn_s_events_say(events: list[Any], outcome: CancelOutcome) -> None:
    cancel = {"events": [{"type": "agent.session.input.cancel"}]}
    talk = [
        exchange("GET", TURN, json={"status": "in_progress"}),
        exchange("GET", EVENTS, sse=events),
        exchange("POST", EVENTS, cancel, status=202, json={}),
    ]
    assert await canceled("openai-agents", UPSTREAM, talk, REF) is outcome


FAILURES = [
    ("session_budget_exceeded", "AGENT_BUDGET", False),
    ("project_spend_limit_exceeded", "AGENT_BUDGET", False),
    ("credit_balance_exhausted", "AGENT_BUDGET", False),
    ("rate_limit_exceeded", "AGENT_BUSY", False),
    ("cyber_policy", "", True),
    ("misalignment_policy_violation", "", True),
    ("max_output_tokens", "", False),
    ("sandbox_error", "", False),
]


@pytest.mark.parametrize(("code", "kind", "rejected"), FAILURES)
async def test_a_failed_turn_ends_for_the_reason_that_its_code_names(code: str, kind: str, rejected: bool) -> None:
    failed = told("failed", "turn_2")
    failed["turn"]["error"] = {"code": code, "message": "see /srv/secret"}
    talk = [exchange("GET", EVENTS, sse=[told("created", "turn_2"), failed]), exchange("POST", EVENTS, status=202, json=None)]
    ending = (await asked("openai-agents", UPSTREAM, talk, ref=REF))[-1]
    assert isinstance(ending, Failed) and (ending.kind, ending.rejected, ending.retryable) == (kind, rejected, False)
    assert "/srv" not in ending.reason and (code == "sandbox_error") == (ending.reason == "The agent failed")


def approval_of(name: str | None, message: str) -> dict[str, Any]:
    request = {"type": "mcp_tool_call", "name": name, "arguments": None, "server_label": "shop", "message": message}
    return {"type": "mcp_approval_request", "request_id": "req_1", "turn_id": "turn_2", "request": request}


@pytest.mark.parametrize(
    ("name", "message", "text"),
    [("order", "Order 3?", "Order 3?"), ("order", "", "Approve order at shop?"), (None, "", "Approve a call at shop?")],
)
async def test_an_approval_without_a_name_or_arguments_is_still_asked(name: str | None, message: str, text: str) -> None:
    wants = {"type": "agent.session.requires_action", "session": {"required_actions": [approval_of(name, message)]}}
    talk = [exchange("GET", EVENTS, sse=[told("created", "turn_2"), wants]), exchange("POST", EVENTS, status=202, json=None)]
    ending = (await asked("openai-agents", UPSTREAM, talk, ref=REF))[-1]
    assert isinstance(ending, Ask) and [prompt.text for prompt in ending.prompts] == [text]


async def test_a_session_out_of_budget_during_cancel_reports_the_turns_outcome() -> None:
    events = [{"type": "agent.session.budget_reached", "session": {}}, told("cancelled", "turn_1")]
    talk = [
        exchange("GET", TURN, json={"status": "in_progress"}),
        exchange("GET", EVENTS, sse=events),
        exchange("POST", EVENTS, {"events": [{"type": "agent.session.input.cancel"}]}, status=202, json={}),
    ]
    assert await canceled("openai-agents", UPSTREAM, talk, REF) is CancelOutcome.CANCELED


async def test_a_session_without_its_environment_ends_and_the_next_message_opens_another() -> None:
    expired = {"type": "agent.session.environment.expired", "environment": {"id": "env_1", "status": "expired"}}
    talk = [exchange("GET", EVENTS, sse=[told("created", "turn_2"), expired]), exchange("POST", EVENTS, status=202, json=None)]
    events = await asked("openai-agents", UPSTREAM, talk, ref=REF)
    assert [event.ref.over for event in events if isinstance(event, RefLearned)] == [False, True]


async def test_a_turn_that_is_over_is_not_canceled() -> None:
    assert await canceled("openai-agents", UPSTREAM, [exchange("GET", TURN, json={"status": "completed"})], REF) is CancelOutcome.TOO_LATE


async def test_images_and_data_begin_a_session_as_one_message() -> None:
    content = [{"type": "input_text", "text": '{"a":1}'}, {"type": "input_image", "image_url": "data:image/png;base64,YQ=="}]
    body = {"input": [{"type": "message", "role": "user", "content": content}], "vault_ids": ["v1"]}
    talk = [exchange("POST", "/agents/sessions", body, sse=[told("created", "turn_1"), told("completed", "turn_1")])]
    parts = [{"data": {"a": 1}}, {"raw": "YQ==", "mediaType": "image/png"}]
    await asked("openai-agents", {**UPSTREAM, "vaults": ["v1"]}, talk, send={"parts": parts})
