"""Bots behind Microsoft's Direct Line 3.0: activities are posted to a conversation, and responses polled from a watermark on."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import Field

from adapters.contract import ENDINGS, Event, InvalidAnswer, RefLearned, Turn, VendorRef
from adapters.vendors.microsoft.activity_reader import ActivityReader
from adapters.vendors.microsoft.content import message_activity
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.frames import End, Frame, JsonBody

API_PATH: Final = "/v3/directline/conversations"
WATERMARK_KEY: Final = "watermark"
BASE_KEY: Final = "base"  # the key in a VendorRef's `kept`: the origin of the conversation, unless it is the agent's URL
FOREIGN_ADDRESS_TEXT: Final = "The agent's environment refers to an address outside of Direct Line"
OVER_KEY: Final = "over"
BUSY_HINT: Final = "ignoringInput"  # a bot that has not finished yet


class DirectLineOptions(VendorOptions):
    """Options. `settings`: the URL where an environment names its region's Direct Line; empty: it is the agent's URL.

    A turn has no end marker. It ends after a question, or when the bot has sent something and then nothing in `quiet` polls in a row, at an
    interval of `every` seconds. `title` and `about` are for the card.
    """

    settings: str = Field("", pattern=r"^(https?://[!-~]+)?$")
    every: float = Field(0.5, ge=0.01, le=30)
    quiet: int = Field(4, ge=1, le=100)
    title: str = "Bot"
    about: str = "A bot behind Direct Line."


class DirectLine:
    """The Direct Line vendor: creates a conversation with the operator's secret, and stores its watermark with it."""

    kind: ClassVar[str] = "direct-line"
    features: ClassVar[Features] = Features(resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = DirectLineOptions

    async def describe(self, connection: VendorConnection[DirectLineOptions]) -> AgentFacts:
        """Returns the configured description: the protocol has none."""
        return AgentFacts(connection.options.title, connection.options.about)

    async def run(self, turn: Turn, connection: VendorConnection[DirectLineOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        kept_values = dict(ref.kept or {})
        conversation = ref.context_id
        if not conversation:
            kept_values = {BASE_KEY: await _find_base_url(connection)}
            conversation = str((await connection.request_json(_request(connection, "POST", kept_values, "", {})))["conversationId"])
        yield RefLearned(VendorRef(conversation, kept=dict(kept_values)))
        activity = {**message_activity(turn, conversation), "from": {"id": connection.user, "role": "user"}}
        posted = await connection.request_json(
            _request(connection, "POST", kept_values, f"/{quote_segment(conversation)}/activities", activity)
        )
        ref = VendorRef(conversation, str(posted["id"]), kept=dict(kept_values))
        yield RefLearned(ref)
        async with aclosing(self.reattach(ref, connection)) as events:
            async for event in events:
                yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[DirectLineOptions]) -> AsyncGenerator[Event, None]:
        """Reads the bot's activities again, from the watermark at which the turn began."""
        kept_values = dict(ref.kept or {})
        async with aclosing(read_events(ActivityReader(), _poll_frames(connection, ref, kept_values))) as events:
            async for event in events:
                if type(event) in ENDINGS:
                    over = bool(kept_values.pop(OVER_KEY, False))
                    yield RefLearned(VendorRef(ref.context_id, ref.task_id, kept=kept_values, over=over))
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[DirectLineOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the protocol has no cancel."""
        return CancelOutcome.UNSUPPORTED


def _request(
    connection: VendorConnection[DirectLineOptions], method: str, kept_values: Mapping[str, Any], path_suffix: str, body: Any = None
) -> Request:
    path = f"{kept_values.get(BASE_KEY) or ''}{API_PATH}{path_suffix}"
    domain = urlsplit(connection.url).hostname or ""
    return Request(method, path, credential_domain=domain) if body is None else Request(method, path, body, credential_domain=domain)


async def _find_base_url(connection: VendorConnection[DirectLineOptions]) -> str:
    """The origin of the region's Direct Line, at the agent's host or below it; empty for the agent's URL. Raises UpstreamFault."""
    if not connection.options.settings:
        return ""
    base_url = str((await connection.request_json(Request("GET", connection.options.settings)))["channelUrlsById"]["directline"])
    base, agent = urlsplit(base_url), urlsplit(connection.url)
    host, domain = base.hostname or "", agent.hostname or ""
    plain = not (base.path.strip("/") or base.query or base.fragment or base.username or base.password)
    if not plain or (base.scheme, base.port) != (agent.scheme, agent.port) or not (host == domain or host.endswith(f".{domain}")):
        raise InvalidAnswer(FOREIGN_ADDRESS_TEXT, base_url[:300])
    return f"{base.scheme}://{base.netloc}"


async def _poll_frames(
    connection: VendorConnection[DirectLineOptions], ref: VendorRef, kept_values: dict[str, Any]
) -> AsyncGenerator[Frame, None]:
    """Yields the bot's responses to the posted activity until the turn ends. Writes the watermark into `kept_values`."""
    spoke, silent = False, 0
    while not (spoke and silent >= connection.options.quiet):
        activities = await _poll_activities(connection, ref.context_id, kept_values)
        fresh = [each for each in activities if not _is_from_gateway(each, connection) and each.get("replyToId") in (None, "", ref.task_id)]
        silent = 0 if fresh else silent + 1
        for activity in fresh:
            if activity["type"] == "message":
                spoke = activity.get("inputHint") != BUSY_HINT
        if fresh:
            yield JsonBody({"activities": fresh})
        kept_values[OVER_KEY] = any(each["type"] == "endOfConversation" for each in fresh)
        if kept_values[OVER_KEY] or any(each.get("inputHint") == "expectingInput" for each in fresh[-1:]):
            break
    yield End(True)


def _is_from_gateway(activity: Mapping[str, Any], connection: VendorConnection[DirectLineOptions]) -> bool:
    sender = activity.get("from") or {}
    return sender.get("role") == "user" or sender.get("id") == connection.user


async def _poll_activities(
    connection: VendorConnection[DirectLineOptions], conversation: str, kept_values: dict[str, Any]
) -> list[dict[str, Any]]:
    """The activities since the watermark, after a pause; retries while Direct Line is briefly unavailable."""
    since = f"?watermark={quote_segment(str(kept_values[WATERMARK_KEY]))}" if kept_values.get(WATERMARK_KEY) else ""
    polling = connection.poll_json(
        _request(connection, "GET", kept_values, f"/{quote_segment(conversation)}/activities{since}"), connection.options.every
    )
    async with aclosing(polling) as answers:
        answer = await anext(answers)
    kept_values[WATERMARK_KEY] = answer.get("watermark") or kept_values.get(WATERMARK_KEY)
    return list(answer["activities"])


_: type[Vendor] = DirectLine
