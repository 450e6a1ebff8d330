"""Agents of Microsoft Foundry (Azure AI Foundry): OpenAI Responses with a reference to an agent, in a project or at its own endpoint."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

from pydantic import Field

from adapters.contract import CannotReattach, Event, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.vendors.openai.items import answer_item, input_items
from adapters.vendors.openai.response_reader import ResponseReader, poll_response
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment

DISABLED_TEXT: Final = "The agent is disabled in its project"
DESCRIBE_API_VERSION: Final = "v1"  # of the API that describes agents, unless the operator sets another
CANCEL_OUTCOMES: Final = {
    "cancelled": CancelOutcome.CANCELED,
    "completed": CancelOutcome.TOO_LATE,
    "failed": CancelOutcome.TOO_LATE,
    "incomplete": CancelOutcome.TOO_LATE,
}


class FoundryOptions(VendorOptions):
    """Options. `agent` and `version`: in the project, by default the latest version. Without `agent`, the URL is a hosted agent's own.

    `path`: the Responses API below the URL; `api_version`: its `api-version`. `background`: runs can be canceled. `title` and `about` are
    for the card of an agent without a name.
    """

    agent: str = ""
    version: str = ""
    path: str = Field("/openai/v1", pattern=r"^(/[!-~]*)?$")
    api_version: str = ""
    background: bool = False
    title: str = "Foundry agent"
    about: str = "An agent of Microsoft Foundry."


class Foundry:
    """The Foundry vendor: a turn is a response that continues the previous one; a response with open calls accepts only their results."""

    kind: ClassVar[str] = "foundry"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = FoundryOptions

    async def describe(self, connection: VendorConnection[FoundryOptions]) -> AgentFacts:
        """The project's description of the agent; for a hosted agent's own endpoint, which has none, the configured one."""
        options = connection.options
        if not options.agent:
            return AgentFacts(options.title, options.about)
        path = f"/agents/{quote_segment(options.agent)}?api-version={quote_segment(options.api_version or DESCRIBE_API_VERSION)}"
        agent = await connection.request_json(Request("GET", path))
        if agent.get("state") == "disabled":
            raise UpstreamFault(DISABLED_TEXT, f"state_source {agent.get('state_source')}")
        latest = (agent.get("versions") or {}).get("latest") or {}
        description = str(latest.get("description") or f"The Foundry agent {options.agent}.")
        return AgentFacts(str(agent["name"]), description, options.version or str(latest.get("version") or "1"))

    async def run(self, turn: Turn, connection: VendorConnection[FoundryOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        if ref.context_id:
            yield RefLearned(VendorRef(ref.context_id))
        previous_response_id = ref.task_id if turn.answers else ref.context_id
        frames = connection.stream_frames(
            Request("POST", _path(connection.options, "/responses"), _body(turn, connection, previous_response_id))
        )
        async with aclosing(read_events(ResponseReader(ref.context_id), frames)) as events:
            async for event in events:
                yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[FoundryOptions]) -> AsyncIterator[Event]:
        """Polls a background response. Raises CannotReattach for any other one, which ended with its connection."""
        if not connection.options.background:
            raise CannotReattach
        async with aclosing(
            poll_response(ref, connection, _path(connection.options, f"/responses/{quote_segment(ref.task_id)}"))
        ) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[FoundryOptions]) -> CancelOutcome:
        """Cancels a background response. A response that waits has ended, so its task can simply be canceled."""
        if ref.prompts:
            return CancelOutcome.CANCELED
        if not connection.options.background:
            return CancelOutcome.UNSUPPORTED
        place = _path(connection.options, f"/responses/{quote_segment(ref.task_id)}/cancel")
        after = (await connection.request_json(Request("POST", place, {})))["status"]
        return CANCEL_OUTCOMES.get(after, CancelOutcome.UNKNOWN)


def _path(options: FoundryOptions, path: str) -> str:
    query = f"?api-version={quote_segment(options.api_version)}" if options.api_version else ""
    return f"{options.path.rstrip('/')}{path}{query}"


def _body(turn: Turn, connection: VendorConnection[FoundryOptions], previous_response_id: str) -> dict[str, Any]:
    options = connection.options
    named = {"type": "agent_reference", "name": options.agent, **({"version": options.version} if options.version else {})}
    optional_members = {
        "agent_reference": named if options.agent else None,
        "previous_response_id": previous_response_id,
        "background": options.background,
    }
    input_list = [answer_item(each) for each in turn.answers] or input_items(turn.message.parts)
    streams = turn.stream or options.background
    return {
        **{name: value for name, value in optional_members.items() if value},
        "input": input_list,
        "stream": streams,
        "metadata": {"user": connection.user},
    }


_: type[Vendor] = Foundry
