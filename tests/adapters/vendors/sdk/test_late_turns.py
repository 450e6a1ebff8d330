"""What the gateway sends to an agent of each kind to stop a turn that is late."""

from typing import Any

import pytest

from adapters.catalog import VENDORS
from adapters.contract import Prompt, VendorRef
from adapters.upstream.egress import Egress
from adapters.vendors.llama_agents import LlamaAgents, LlamaAgentsOptions
from adapters.vendors.sdk.agent import CancelOutcome, Features, build_vendor_agent
from adapters.vendors.sdk.connection import VendorConnection
from tests.adapters.hand_written import exchange
from tests.adapters.replay import ReplayEgress, call_of, vendor_of

SESSION = "/agents/sessions/s-1"
CANCELED_TURN = {"type": "agent.session.turn.cancelled", "session_id": "s-1", "turn_id": "r-1", "turn": {"subagent_id": None}}
INTERRUPT = exchange("POST", "/v1/sessions/s-1/events", {"events": [{"type": "user.interrupt"}]}, json={})
REST = {
    "about": {"name": "Runner", "description": "Runs."},
    "start": {"path": "/runs", "fill": {"/text": "text"}},
    "answer": {"run": "id", "output": "out"},
    "cancel": {"path": "/runs/{run}/stop", "confirms": True},
}
RUN = VendorRef("s-1", "r-1", {"run": "r-1"})
NEVER_STOPPED = {"agentcore": {"runtime": "arn:aws:bedrock-agentcore:us-east-1:1:runtime/claims"}}  # only its session can be


def status(path: str, status: str) -> dict[str, Any]:
    return exchange("GET", path, json={"status": status})


STOPPED: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "anthropic-agents": (
        {"agent": "a", "environment": "e"},
        [status("/v1/sessions/s-1", "running"), INTERRUPT, status("/v1/sessions/s-1", "idle")],
    ),
    "dify": (
        {"mode": "workflow"},
        [exchange("POST", "/workflows/tasks/r-1/stop", json={}), status("/workflows/run/r-1", "stopped")],
    ),
    "foundry": ({"background": True}, [exchange("POST", "/openai/v1/responses/r-1/cancel", json={"status": "cancelled"})]),
    "langgraph": (
        {"assistant": "echo"},
        [
            status("/threads/s-1/runs/r-1", "running"),
            exchange("POST", "/threads/s-1/runs/r-1/cancel?wait=true", json={}),
            status("/threads/s-1/runs/r-1", "interrupted"),
        ],
    ),
    "llama-agents": ({"workflow": "echo"}, [exchange("POST", "/handlers/r-1/cancel", json={}), status("/handlers/r-1", "cancelled")]),
    "openai-agents": (
        {"agent": "a"},
        [
            status(f"{SESSION}/turns/r-1", "in_progress"),
            exchange("GET", f"{SESSION}/events", sse=[CANCELED_TURN]),
            exchange("POST", f"{SESSION}/events", {"events": [{"type": "agent.session.input.cancel"}]}, status=202, json={}),
        ],
    ),
    "openai-responses": (
        {"model": "flow", "dialect": "devui"},
        [exchange("POST", "/responses/r-1/cancel", json={"status": "cancelled"})],
    ),
    "rest": (REST, [exchange("POST", "/runs/r-1/stop", json={})]),
}


@pytest.mark.parametrize("kind", sorted(VENDORS))
async def test_a_late_run_gets_the_stop_of_its_kind_or_nothing(kind: str) -> None:
    upstream, talk = STOPPED.get(kind, (NEVER_STOPPED.get(kind, {}), []))
    egress: Any = ReplayEgress(tuple(talk), {})
    assert await build_vendor_agent(vendor_of(kind), egress).stop(RUN, call_of(kind, upstream)) is (kind in STOPPED)
    assert (egress.problems, egress.remaining) == ([], [])


@pytest.mark.parametrize(
    ("features", "ref", "outcome", "stopped"),
    [
        (Features(cancels=True), VendorRef("c", "r"), CancelOutcome.CANCELED, (True, ["r"])),
        (Features(cancels=True), VendorRef("c", "r", prompts=(Prompt("p"),)), CancelOutcome.CANCELED, (True, ["r"])),
        (Features(cancels=True), VendorRef("c", "r"), CancelOutcome.UNKNOWN, (False, ["r"])),
        (Features(cancels=True), VendorRef("c"), CancelOutcome.CANCELED, (False, [])),
        (Features(), VendorRef("c", "r"), CancelOutcome.CANCELED, (False, [])),
        (Features(cancels=True, cancel_ends_session=True), VendorRef("c", "c"), CancelOutcome.CANCELED, (False, [])),
    ],
    ids=["run", "answered", "unknown", "no run", "can't", "session"],
)
async def test_a_late_run_is_stopped_and_never_a_session(
    features: Features, ref: VendorRef, outcome: CancelOutcome, stopped: tuple[bool, list[str]]
) -> None:
    runs = list[str]()

    class Stoppable(LlamaAgents):
        async def cancel(self, ref: VendorRef, line: VendorConnection[LlamaAgentsOptions]) -> CancelOutcome:
            assert not ref.prompts  # the turn has answered them, so the run is no waiting task
            runs.append(ref.task_id)
            return outcome

    Stoppable.features = features
    assert (await build_vendor_agent(Stoppable(), Egress()).stop(ref, call_of("llama-agents", {"workflow": "echo"})), runs) == stopped
