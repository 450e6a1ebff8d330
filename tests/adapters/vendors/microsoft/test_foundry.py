"""Agents of Microsoft Foundry: what the recordings of its hosted server and the exchanges of a project do not show."""

from typing import Any

import pytest

from adapters.contract import Done, Failed, RefLearned, UpstreamFault, VendorRef
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import asked, canceled, described, exchange

AGENT = {"agent": "sales"}
RESPONSES = "/openai/v1/responses"


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_2", "status": status, "error": None, "output": [], **more}


async def test_a_turn_names_the_agent_and_goes_on_from_the_response_before_it() -> None:
    body = {"agent_reference": {"type": "agent_reference", "name": "sales"}, "previous_response_id": "resp_1", "input": "hello"}
    events = await asked("foundry", AGENT, [exchange("POST", RESPONSES, body, json=response())], ref=VendorRef("resp_1"), stream=False)
    assert [event.ref.context_id for event in events if isinstance(event, RefLearned)] == ["resp_1", "resp_1", "resp_2"]
    assert isinstance(events[-1], Done)


async def test_a_failed_turn_leaves_the_conversation_where_it_was() -> None:
    failed = response("failed", error={"code": "server_error", "message": "at /srv"})
    events = await asked("foundry", AGENT, [exchange("POST", RESPONSES, json=failed)], ref=VendorRef("resp_1"), stream=False)
    assert {event.ref.context_id for event in events if isinstance(event, RefLearned)} == {"resp_1"} and isinstance(events[-1], Failed)


async def test_a_hosted_agent_is_called_at_its_own_endpoint_and_by_no_name() -> None:
    upstream = {"path": "", "api_version": "v1", "title": "Refunds"}
    talk = [exchange("POST", "/responses?api-version=v1", {"input": "hello"}, json=response())]
    assert isinstance((await asked("foundry", upstream, talk, stream=False))[-1], Done)
    assert (await described("foundry", upstream, [])).name == "Refunds"


async def test_an_agent_without_description_uses_its_name_and_a_disabled_one_is_down() -> None:
    about = {"name": "sales", "state": "enabled", "versions": {"latest": {"version": "7", "description": None}}}
    path = "/agents/sales?api-version=2025-11-15-preview"
    facts = await described("foundry", {**AGENT, "api_version": "2025-11-15-preview"}, [exchange("GET", path, json=about)])
    assert (facts.name, facts.description, facts.version) == ("sales", "The Foundry agent sales.", "7")
    with pytest.raises(UpstreamFault, match="disabled"):
        await described("foundry", AGENT, [exchange("GET", "/agents/sales?api-version=v1", json={**about, "state": "disabled"})])


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("cancelled", CancelOutcome.CANCELED),
        ("completed", CancelOutcome.TOO_LATE),
        ("failed", CancelOutcome.TOO_LATE),
        ("incomplete", CancelOutcome.TOO_LATE),
        ("in_progress", CancelOutcome.UNKNOWN),
    ],
)
async def test_a_cancellation_is_what_the_answer_says(status: str, outcome: CancelOutcome) -> None:
    talk = [exchange("POST", f"{RESPONSES}/resp_2/cancel", json=response(status))]
    assert await canceled("foundry", {**AGENT, "background": True}, talk, VendorRef("", "resp_2")) is outcome


async def test_a_response_that_is_not_in_the_background_is_not_canceled() -> None:
    assert await canceled("foundry", AGENT, [], VendorRef("", "resp_2")) is CancelOutcome.UNSUPPORTED
