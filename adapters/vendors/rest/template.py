"""An agent with any JSON API, described by its operator: requests from templates, responses read by expressions."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import ClassVar, Final

from adapters.contract import ENDINGS, CannotReattach, Event, Failed, RefLearned, Turn, VendorRef
from adapters.vendors.rest.options import PathValueMissing, PollTemplate, RestOptions, build_context, run_id_of
from adapters.vendors.rest.reader import RestReader
from adapters.vendors.sdk.agent import (
    NO_OUTCOME_TEXT,
    AgentFacts,
    CancelOutcome,
    Features,
    OpenQuestions,
    SkillFacts,
    Vendor,
    VendorOptions,
    read_events,
)
from adapters.vendors.sdk.connection import Request, VendorConnection

GONE_STATUSES: Final = (404, 409, 410)
CANCEL_OUTCOMES: Final = {"canceled": CancelOutcome.CANCELED, "done": CancelOutcome.TOO_LATE, "failed": CancelOutcome.TOO_LATE}


class RestTemplate:
    """The REST vendor: a conversation has an id by the gateway or the agent; a turn is one request, and polls until it ends."""

    kind: ClassVar[str] = "rest"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = RestOptions

    async def describe(self, connection: VendorConnection[RestOptions]) -> AgentFacts:
        agent_options = connection.options.about
        if agent_options.path is not None:
            await connection.request(Request("GET", agent_options.path))
        skills = (SkillFacts("run", agent_options.name, agent_options.description, schema=agent_options.input),)
        return AgentFacts(agent_options.name, agent_options.description, skills=skills)

    async def run(self, turn: Turn, connection: VendorConnection[RestOptions]) -> AsyncIterator[Event]:
        options, ref = connection.options, turn.ref or VendorRef()
        sent = (options.resume if turn.answers else None) or (options.stream if turn.stream else None) or options.start
        awaited = bool(options.answer.run and options.cancel and options.cancel.needs_run_id)
        reader = RestReader(options.answer, ref.context_id or turn.session, run_id_of(ref) if turn.answers else "", awaited)
        yield RefLearned(reader.ref)
        frames = connection.stream_frames(sent.build_request(build_context(turn, connection, reader.session)))
        async with aclosing(read_events(reader, frames)) as events:
            async for event in events:
                if options.poll and isinstance(event, Failed) and event.reason == NO_OUTCOME_TEXT:
                    break
                yield event
            else:
                return
        async with aclosing(_poll_events(options.poll, reader, connection)) as later:
            async for event in later:
                yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[RestOptions]) -> AsyncIterator[Event]:
        """Polls the turn until it ends. Raises CannotReattach without a `poll` template."""
        options = connection.options
        if options.poll is None:
            raise CannotReattach
        reader = RestReader(options.answer, ref.context_id, run_id_of(ref))
        try:
            async with aclosing(_poll_events(options.poll, reader, connection)) as events:
                async for event in events:
                    yield event
        except PathValueMissing:  # the poll needs the run's id, which the agent never sent
            raise CannotReattach from None

    async def cancel(self, ref: VendorRef, connection: VendorConnection[RestOptions]) -> CancelOutcome:
        options, context = connection.options, {"user": connection.user, "session": ref.context_id, "run": run_id_of(ref)}
        if options.cancel is None:
            return CancelOutcome.UNSUPPORTED
        try:
            request = options.cancel.build_request(context, accepted_statuses=GONE_STATUSES)
        except PathValueMissing:
            return CancelOutcome.UNSUPPORTED
        answer = await connection.request(request)
        gone, reader = answer.status in GONE_STATUSES, RestReader(options.answer, "")
        if options.cancel.confirms and not gone:
            return CancelOutcome.CANCELED
        state = "" if gone else reader.state_of(answer.value)
        if state not in CANCEL_OUTCOMES and options.poll:
            state = reader.state_of(await connection.request_json(options.poll.build_request(context)))
        return CANCEL_OUTCOMES.get(state, CancelOutcome.TOO_LATE if gone and not state else CancelOutcome.UNKNOWN)


async def _poll_events(poll: PollTemplate, reader: RestReader, connection: VendorConnection[RestOptions]) -> AsyncGenerator[Event, None]:
    """Polls a turn until it ends."""
    request = poll.build_request({"user": connection.user, "session": reader.session, "run": reader.run})
    async with aclosing(connection.poll_json(request, poll.every)) as values:
        async for value in values:
            for event in reader.read_poll(value):
                yield event
                if type(event) in ENDINGS:
                    return


_: type[Vendor] = RestTemplate
