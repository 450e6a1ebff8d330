"""Any agent of plain HTTP and JSON, as its operator describes it: requests from templates, answers read by expressions."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import ClassVar, Final

from adapters.contract import ENDINGS, CannotReattach, Event, Failed, Ref, Turn, VendorRef
from adapters.vendors.rest.options import Missing, Polled, RestOptions, context_of, run_of
from adapters.vendors.rest.reader import RestReader
from adapters.vendors.sdk.agent import (
    UNFINISHED,
    AgentFacts,
    CancelOutcome,
    Features,
    OpenQuestions,
    SkillFacts,
    Vendor,
    VendorOptions,
    read,
)
from adapters.vendors.sdk.connection import Line, Request

GONE: Final = (404, 409, 410)
OUTCOMES: Final = {"canceled": CancelOutcome.CANCELED, "done": CancelOutcome.TOO_LATE, "failed": CancelOutcome.TOO_LATE}


class RestTemplate:
    """A conversation is a name that the agent is told, or one that it tells; a turn is one request, and polls until it is over."""

    kind: ClassVar[str] = "rest"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = RestOptions

    async def describe(self, line: Line[RestOptions]) -> AgentFacts:
        about = line.options.about
        if about.path is not None:
            await line.ask(Request("GET", about.path))
        skills = (SkillFacts("run", about.name, about.description, schema=about.input),)
        return AgentFacts(about.name, about.description, skills=skills)

    async def run(self, turn: Turn, line: Line[RestOptions]) -> AsyncIterator[Event]:
        told, ref = line.options, turn.ref or VendorRef()
        sent = (told.resume if turn.answers else None) or (told.stream if turn.stream else None) or told.start
        awaited = bool(told.answer.run and told.cancel and told.cancel.by_run)
        reader = RestReader(told.answer, ref.context_id or turn.session, run_of(ref) if turn.answers else "", awaited)
        yield Ref(reader.ref)
        frames = line.frames(sent.request(context_of(turn, line, reader.session)))
        async with aclosing(read(reader, frames)) as events:
            async for event in events:
                if told.poll and isinstance(event, Failed) and event.reason == UNFINISHED:
                    break
                yield event
            else:
                return
        async with aclosing(_polled(told.poll, reader, line)) as later:
            async for event in later:
                yield event

    async def join(self, ref: VendorRef, line: Line[RestOptions]) -> AsyncIterator[Event]:
        """By the question how a turn stands, where the operator has described one."""
        told = line.options
        if told.poll is None:
            raise CannotReattach
        reader = RestReader(told.answer, ref.context_id, run_of(ref))
        try:
            async with aclosing(_polled(told.poll, reader, line)) as events:
                async for event in events:
                    yield event
        except Missing:  # the question names the run, which the agent never told
            raise CannotReattach from None

    async def cancel(self, ref: VendorRef, line: Line[RestOptions]) -> CancelOutcome:
        told, context = line.options, {"user": line.user, "session": ref.context_id, "run": run_of(ref)}
        if told.cancel is None:
            return CancelOutcome.UNSUPPORTED
        try:
            request = told.cancel.request(context, also=GONE)
        except Missing:
            return CancelOutcome.UNSUPPORTED
        answer = await line.ask(request)
        gone, reader = answer.status in GONE, RestReader(told.answer, "")
        if told.cancel.confirms and not gone:
            return CancelOutcome.CANCELED
        state = "" if gone else reader.state(answer.value)
        if state not in OUTCOMES and told.poll:
            state = reader.state(await line.json(told.poll.request(context)))
        return OUTCOMES.get(state, CancelOutcome.TOO_LATE if gone and not state else CancelOutcome.UNKNOWN)


async def _polled(poll: Polled, reader: RestReader, line: Line[RestOptions]) -> AsyncGenerator[Event, None]:
    """Asks how a turn stands until it is over."""
    request = poll.request({"user": line.user, "session": reader.session, "run": reader.run})
    async with aclosing(line.polled(request, poll.every)) as values:
        async for value in values:
            for event in reader.polled(value):
                yield event
                if isinstance(event, ENDINGS):
                    return


_: type[Vendor] = RestTemplate
