"""What the answer to a tools/call (MCP 2026-07-28) has shown so far, bounded."""

from typing import Any, Final

from gateway.ingress.console.attempts.failure import CallFailure
from gateway.ingress.console.texts.foreign_text import BLOCK_MAX

NOTES_MAX: Final = 100  # notifications that are shown
BLOCKS_MAX: Final = 100  # of the result's content


class ToolProgress:
    """The result, and the notifications before it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.content: list[dict[str, Any]] = []
        self.structured: Any = None
        self.has_result = False
        self.is_error = False  # the tool itself reports a failure
        self.asks: list[dict[str, Any]] = []  # what the tool or the gateway asks before it goes on
        self.left_out = 0
        self.failure: CallFailure | None = None

    @property
    def state(self) -> str:
        """The state of the call in one word."""
        if self.failure is not None:
            return "pending" if self.failure.approval_id else "refused" if self.failure.decision_id else "failed"
        if self.asks:
            return "input required"
        if not self.has_result:
            return "running"
        return "failed" if self.is_error else "completed"

    def fold(self, answer: Any) -> None:
        """Takes the next JSON-RPC message; None for one that was too long."""
        if not isinstance(answer, dict):
            self.has_result, self.left_out = True, self.left_out + 1
        elif isinstance(answer.get("error"), dict):
            self.failure = CallFailure.from_error(answer["error"])
        elif isinstance(answer.get("result"), dict):
            self._take_result(answer["result"])
        elif "method" in answer:
            self._take_notification(answer.get("params"))

    def _take_result(self, result: dict[str, Any]) -> None:
        self.has_result = True
        self.is_error = result.get("isError") is True
        content = result.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        self.left_out += max(0, len(blocks) - BLOCKS_MAX)
        self.content = [_part_of(block) for block in blocks[:BLOCKS_MAX]]
        self.structured = result.get("structuredContent")
        requests = result.get("inputRequests")
        if result.get("resultType") == "input_required" and isinstance(requests, dict):
            self.asks = [each["params"] for each in requests.values() if isinstance(each, dict) and isinstance(each.get("params"), dict)]

    def _take_notification(self, params: Any) -> None:
        if not isinstance(params, dict):
            return
        said = params.get("message") or params.get("data") or ""
        done, total = params.get("progress"), params.get("total")
        figures = f"{done} of {total}" if total is not None else str(done) if done is not None else ""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(" ".join(filter(None, (figures, str(said))))[:BLOCK_MAX])
        else:
            self.left_out += 1


def _part_of(block: dict[str, Any]) -> dict[str, Any]:
    """Returns a block of content in the form of a part of A2A, without the bytes of an image or a sound."""
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return {"text": block["text"]}
    if isinstance(block.get("data"), str):
        return {"raw_size": len(block["data"]), "filename": str(block.get("mimeType", kind))}
    return {"data": block}
