"""Reads the Microsoft Agent Framework's DevUI: OpenAI Responses with approvals; requests of workflows become prompts."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import AnswerRefused, Event, Failed, Prompt
from adapters.vendors.openai.items import approval_prompt
from adapters.vendors.openai.response_reader import ResponseReader
from adapters.vendors.sdk.chat_content import question_text
from adapters.vendors.sdk.faults import AGENT_BUSY, NOT_ACCEPTED_TEXT, SESSION_LOST, SESSION_LOST_TEXT

RUNNING_ALREADY_TEXT: Final = "The agent is at work on another run, and takes one at a time"
RUNNING_MARKER: Final = "already running"  # in an error's text, which has no code
LOST_MARKERS: Final = ("unknown request ID", "without a checkpoint")


class DevUiReader(ResponseReader):
    """Reads one response. `is_answering`: the turn answers requests of a workflow. `dropped_requests` are requests of other runs."""

    def __init__(self, session: str = "", is_answering: bool = False) -> None:
        super().__init__(session, is_devui=True)
        self._is_answering = is_answering
        self._has_begun = False
        self._active_executors: dict[str, str] = {}  # running executors of a workflow, by action id
        self.dropped_requests: list[str] = []

    def _read_event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "response.output_item.added", "item": {"type": "executor_action", "id": name, "executor_id": executor}}:
                self._active_executors[name] = executor
                self._has_begun = True
            case {"type": "response.output_item.done", "item": {"type": "executor_action", "id": name}}:
                self._active_executors.pop(name, None)
            case {"type": "response.function_approval.requested", "request_id": name, "function_call": call}:
                self._open_prompts[name] = approval_prompt(name, call, token=call)
            case {"type": "response.request_info.requested", "request_id": name, "request_data": data}:
                self._collect_request(
                    Prompt(name, question_text(data), data, event.get("response_schema")), event.get("source_executor_id")
                )
            case {"type": "error", "message": str(text)} if not self._has_begun and (RUNNING_MARKER in text or self._is_answering):
                yield self._not_begun_ending(text)
            case _:
                self._has_begun = self._has_begun or "output" in str(event.get("type"))
                yield from super()._read_event(event)

    def _collect_request(self, prompt: Prompt, executor: Any) -> None:
        """Notes a workflow's request if its executor is running, and drops it otherwise.

        A run that continues from a checkpoint repeats all requests that were open then, also those of other conversations.
        """
        if executor in self._active_executors.values():
            self._open_prompts[prompt.id] = prompt
        else:
            self.dropped_requests.append(prompt.id)

    def _not_begun_ending(self, text: str) -> Event:
        """The ending for an error before any executor ran: nothing was done, so answered requests still wait unless they are lost."""
        if RUNNING_MARKER in text:
            return (AnswerRefused if self._is_answering else Failed)(RUNNING_ALREADY_TEXT, detail=text, kind=AGENT_BUSY, retryable=True)
        if any(each in text for each in LOST_MARKERS):
            return Failed(SESSION_LOST_TEXT, detail=text, kind=SESSION_LOST)
        return AnswerRefused(NOT_ACCEPTED_TEXT, detail=text)
