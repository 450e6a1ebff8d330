"""What the stream of an agent's answer (A2A 1.0 s3.1.2) has shown so far, bounded."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.ingress.console.attempts.failure import CallFailure
from gateway.ingress.console.texts.foreign_text import BLOCK_MAX

ARTIFACTS_MAX: Final = 50
PARTS_MAX: Final = 100  # of one artifact or message
WAITING: Final = ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED")


class AgentProgress:
    """The task as the stream tells of it. Members that are no texts where texts belong are ignored."""

    def __init__(self) -> None:
        self.task_id = ""
        self.context_id = ""
        self.state = ""
        self.message: list[dict[str, Any]] = []  # the parts of the last message
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.events = 0
        self.left_out = 0  # events that were too long, and artifacts above the limit
        self.failure: CallFailure | None = None

    @property
    def waits(self) -> bool:
        """Whether the agent waits for an answer."""
        return self.state in WAITING

    def fold(self, answer: Any) -> None:
        """Takes the next JSON-RPC message; None for one that was too long."""
        self.events += 1
        if not isinstance(answer, dict):
            self.left_out += 1
            return
        if isinstance(answer.get("error"), dict):
            self.failure = CallFailure.from_error(answer["error"])
        result = answer.get("result")
        for name, member in result.items() if isinstance(result, dict) else ():
            if not isinstance(member, dict):
                continue
            if name == "task":
                self._take_task(member)
            elif name == "message":
                self._take_ids(member)
                self.state, self.message = "TASK_STATE_COMPLETED", _parts(member)
            elif name == "statusUpdate":
                self._take_ids(member)
                self._take_status(member.get("status"))
            elif name == "artifactUpdate":
                self._take_ids(member)
                self._take_artifact(member.get("artifact"), appends=member.get("append") is True)

    def _take_task(self, task: Mapping[str, Any]) -> None:
        self._take_ids({"taskId": task.get("id"), "contextId": task.get("contextId")})
        self._take_status(task.get("status"))
        artifacts = task.get("artifacts")
        for artifact in artifacts if isinstance(artifacts, list) else ():
            self._take_artifact(artifact, appends=False)

    def _take_ids(self, event: Mapping[str, Any]) -> None:
        task_id, context_id = event.get("taskId"), event.get("contextId")
        self.task_id = task_id if isinstance(task_id, str) and task_id else self.task_id
        self.context_id = context_id if isinstance(context_id, str) and context_id else self.context_id

    def _take_status(self, status: Any) -> None:
        if isinstance(status, dict):
            self.state = status["state"] if isinstance(status.get("state"), str) else self.state
            if isinstance(status.get("message"), dict):
                self.message = _parts(status["message"])

    def _take_artifact(self, artifact: Any, *, appends: bool) -> None:
        if not isinstance(artifact, dict):
            return
        key = str(artifact.get("artifactId"))[:200]
        known = self.artifacts.get(key) if appends else None
        if known is None and key not in self.artifacts and len(self.artifacts) >= ARTIFACTS_MAX:
            self.left_out += 1
            return
        name = artifact.get("name")
        shown = known or {"name": name[:200] if isinstance(name, str) else "", "parts": []}
        for part in _parts(artifact):
            _append_part(shown["parts"], part)
        self.artifacts[key] = shown


def _parts(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = holder.get("parts")
    found = [part for part in parts[:PARTS_MAX] if isinstance(part, dict)] if isinstance(parts, list) else []
    return [_bounded(part) for part in found]


def _bounded(part: dict[str, Any]) -> dict[str, Any]:
    """Returns a part without the bytes of a file, which the page does not show."""
    raw = part.get("raw")
    return {**{name: value for name, value in part.items() if name != "raw"}, "raw_size": len(raw)} if isinstance(raw, str) else part


def _append_part(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Adds a part. The texts of a stream become one, as far as a page shows it."""
    text = part.get("text")
    if isinstance(text, str) and parts and isinstance(parts[-1].get("text"), str):
        if len(parts[-1]["text"]) <= BLOCK_MAX:
            parts[-1] = {**parts[-1], "text": parts[-1]["text"] + text}
    elif len(parts) < PARTS_MAX:
        parts.append(part)
