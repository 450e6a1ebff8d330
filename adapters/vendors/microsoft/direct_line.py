"""Bots behind Microsoft's Direct Line 3.0: activities go to a conversation, and what the bot says is asked for from a watermark on."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import Field

from adapters.contract import ENDINGS, Event, InvalidAnswer, Ref, Turn, VendorRef
from adapters.vendors.microsoft.activity_reader import ActivityReader
from adapters.vendors.microsoft.content import message_activity
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.frames import End, Frame, JsonBody

API: Final = "/v3/directline/conversations"
WATERMARK: Final = "watermark"
BASE: Final = "base"  # in what a VendorRef keeps: the origin that holds the conversation, where it is not the agent's URL
ELSEWHERE: Final = "The agent's environment names an address outside of Direct Line"
OVER: Final = "over"
BUSY_HINT: Final = "ignoringInput"  # of a bot that is not finished yet


class DirectLineOptions(VendorOptions):
    """`settings`: the URL where an environment tells the Direct Line of its region; none: the agent's URL is that.

    A turn has no end mark: it is over after a question, or once the bot has said something and then nothing for `quiet` questions in a
    row, which are asked `every` so many seconds. `title` and `about` are for the card.
    """

    settings: str = Field("", pattern=r"^(https?://[!-~]+)?$")
    every: float = Field(0.5, ge=0.01, le=30)
    quiet: int = Field(4, ge=1, le=100)
    title: str = "Bot"
    about: str = "A bot behind Direct Line."


class DirectLine:
    """A conversation is begun at Direct Line with the operator's secret, and its watermark is kept with it."""

    kind: ClassVar[str] = "direct-line"
    features: ClassVar[Features] = Features(resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = DirectLineOptions

    async def describe(self, line: Line[DirectLineOptions]) -> AgentFacts:
        """The protocol has no word for it."""
        return AgentFacts(line.options.title, line.options.about)

    async def run(self, turn: Turn, line: Line[DirectLineOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        kept = dict(ref.kept or {})
        conversation = ref.context_id
        if not conversation:
            kept = {BASE: await _base(line)}
            conversation = str((await line.json(_request(line, "POST", kept, "", {})))["conversationId"])
        yield Ref(VendorRef(conversation, kept=dict(kept)))
        said = {**message_activity(turn, conversation), "from": {"id": line.user, "role": "user"}}
        posted = await line.json(_request(line, "POST", kept, f"/{quoted(conversation)}/activities", said))
        ref = VendorRef(conversation, str(posted["id"]), kept=dict(kept))
        yield Ref(ref)
        async with aclosing(self.join(ref, line)) as events:
            async for event in events:
                yield event

    async def join(self, ref: VendorRef, line: Line[DirectLineOptions]) -> AsyncGenerator[Event, None]:
        """What the bot said since the watermark that the turn began at is told again."""
        kept = dict(ref.kept or {})
        async with aclosing(read(ActivityReader(), _heard(line, ref, kept))) as events:
            async for event in events:
                if isinstance(event, ENDINGS):
                    over = bool(kept.pop(OVER, False))
                    yield Ref(VendorRef(ref.context_id, ref.task_id, kept=kept, over=over))
                yield event

    async def cancel(self, ref: VendorRef, line: Line[DirectLineOptions]) -> CancelOutcome:
        """There is no word for it."""
        return CancelOutcome.UNSUPPORTED


def _request(line: Line[DirectLineOptions], method: str, kept: Mapping[str, Any], place: str, body: Any = None) -> Request:
    path = f"{kept.get(BASE) or ''}{API}{place}"
    domain = urlsplit(line.url).hostname or ""
    return Request(method, path, domain=domain) if body is None else Request(method, path, body, domain=domain)


async def _base(line: Line[DirectLineOptions]) -> str:
    """The origin of the region's Direct Line, which is at the agent's host or below it; empty for the agent's URL. Raises UpstreamFault."""
    if not line.options.settings:
        return ""
    told = str((await line.json(Request("GET", line.options.settings)))["channelUrlsById"]["directline"])
    there, here = urlsplit(told), urlsplit(line.url)
    host, domain = there.hostname or "", here.hostname or ""
    plain = not (there.path.strip("/") or there.query or there.fragment or there.username or there.password)
    if not plain or (there.scheme, there.port) != (here.scheme, here.port) or not (host == domain or host.endswith(f".{domain}")):
        raise InvalidAnswer(ELSEWHERE, told[:300])
    return f"{there.scheme}://{there.netloc}"


async def _heard(line: Line[DirectLineOptions], ref: VendorRef, kept: dict[str, Any]) -> AsyncGenerator[Frame, None]:
    """What the bot says to the activity that was posted, as it comes, to the end of the turn. Writes the watermark into `kept`."""
    spoke, silent = False, 0
    while not (spoke and silent >= line.options.quiet):
        told = await _asked(line, ref.context_id, kept)
        fresh = [each for each in told if not _is_mine(each, line) and each.get("replyToId") in (None, "", ref.task_id)]
        silent = 0 if fresh else silent + 1
        for activity in fresh:
            if activity["type"] == "message":
                spoke = activity.get("inputHint") != BUSY_HINT
        if fresh:
            yield JsonBody({"activities": fresh})
        kept[OVER] = any(each["type"] == "endOfConversation" for each in fresh)
        if kept[OVER] or any(each.get("inputHint") == "expectingInput" for each in fresh[-1:]):
            break
    yield End(True)


def _is_mine(activity: Mapping[str, Any], line: Line[DirectLineOptions]) -> bool:
    sender = activity.get("from") or {}
    return sender.get("role") == "user" or sender.get("id") == line.user


async def _asked(line: Line[DirectLineOptions], conversation: str, kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The activities since the watermark, after a pause; a Direct Line that is away for a moment is asked again."""
    since = f"?watermark={quoted(str(kept[WATERMARK]))}" if kept.get(WATERMARK) else ""
    asking = line.polled(_request(line, "GET", kept, f"/{quoted(conversation)}/activities{since}"), line.options.every)
    async with aclosing(asking) as answers:
        told = await anext(answers)
    kept[WATERMARK] = told.get("watermark") or kept.get(WATERMARK)
    return list(told["activities"])


_: type[Vendor] = DirectLine
