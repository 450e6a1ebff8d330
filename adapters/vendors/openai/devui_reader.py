"""The answer of the Microsoft Agent Framework's DevUI: OpenAI Responses with approvals, and with the requests of workflows as prompts."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import AnswerRefused, Event, Failed, Prompt
from adapters.vendors.openai.items import approval
from adapters.vendors.openai.response_reader import ResponseReader
from adapters.vendors.sdk.chat_content import question_in
from adapters.vendors.sdk.faults import BUSY, LOST, NOT_TAKEN, SESSION_LOST

RUNS_ALREADY: Final = "The agent is at work on another run, and takes one at a time"
AT_WORK: Final = "already running"  # in the text of an error, which has no code
GONE: Final = ("unknown request ID", "without a checkpoint")


class DevUiReader(ResponseReader):
    """`answering`: the turn answers requests of a workflow. `dropped` are requests that its run did not raise."""

    def __init__(self, session: str = "", answering: bool = False) -> None:
        super().__init__(session, devui=True)
        self._answering = answering
        self._works = False
        self._acting: dict[str, str] = {}  # executors of a workflow that are at work, by their actions
        self.dropped: list[str] = []

    def _event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "response.output_item.added", "item": {"type": "executor_action", "id": name, "executor_id": executor}}:
                self._acting[name] = executor
                self._works = True
            case {"type": "response.output_item.done", "item": {"type": "executor_action", "id": name}}:
                self._acting.pop(name, None)
            case {"type": "response.function_approval.requested", "request_id": name, "function_call": call}:
                self._open[name] = approval(name, call, token=call)
            case {"type": "response.request_info.requested", "request_id": name, "request_data": data}:
                self._requested(Prompt(name, question_in(data), data, event.get("response_schema")), event.get("source_executor_id"))
            case {"type": "error", "message": str(text)} if not self._works and (AT_WORK in text or self._answering):
                yield self._not_begun(text)
            case _:
                self._works = self._works or "output" in str(event.get("type"))
                yield from super()._event(event)

    def _requested(self, prompt: Prompt, executor: Any) -> None:
        """A workflow raises a request while its executor is at work. One object serves every conversation, so a run that goes on from a
        checkpoint first tells all requests that were open then: other conversations' requests too, which are nobody's here.
        """
        if executor in self._acting.values():
            self._open[prompt.id] = prompt
        else:
            self.dropped.append(prompt.id)

    def _not_begun(self, text: str) -> Event:
        """No executor was at work yet, so nothing was done: the requests that were answered still wait, unless they are gone."""
        if AT_WORK in text:
            return (AnswerRefused if self._answering else Failed)(RUNS_ALREADY, detail=text, kind=BUSY, retryable=True)
        if any(each in text for each in GONE):
            return Failed(LOST, detail=text, kind=SESSION_LOST)
        return AnswerRefused(NOT_TAKEN, detail=text)
