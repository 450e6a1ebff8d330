"""Why a call was refused or failed, read from the error of its protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CallFailure:
    """An error of JSON-RPC. `approval_id`: the approval that the call waits for. `retry_after` in seconds; 0: not known."""

    code: int
    text: str
    reason_id: str = ""
    decision_id: str = ""
    approval_id: str = ""
    field: str = ""
    retry_after: int = 0

    @classmethod
    def from_error(cls, error: Mapping[str, Any]) -> "CallFailure":
        """Returns the failure that an error tells of: `data` of MCP, or the details of A2A 1.0 (s9.5)."""
        data = details = error.get("data")  # an object in MCP, a list in A2A
        members = dict(data) if isinstance(data, dict) else {}
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict):
                members |= _members_of(detail)
        approval = members.get("approval")
        approval_id = approval.get("id") if isinstance(approval, dict) else ""
        code, retry_after = error.get("code"), members.get("retryAfter")
        return cls(
            code if isinstance(code, int) else 0,
            _text(error.get("message")),
            _text(members.get("reason_id")),
            _text(members.get("decision_id")),
            _text(approval_id),
            _text(members.get("field")),
            retry_after if isinstance(retry_after, int) else 0,
        )


def _members_of(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what one detail of google.rpc says, under the names of `data` of MCP."""
    found: dict[str, Any] = {}
    if detail.get("@type") == "interlock/decision":
        found = {"decision_id": detail.get("id"), "reason_id": detail.get("reason_id"), "approval": detail.get("approval")}
    metadata, violations, delay = detail.get("metadata"), detail.get("fieldViolations"), detail.get("retryDelay")
    if isinstance(metadata, dict):
        found |= {name: metadata[name] for name in ("decision_id", "reason_id") if name in metadata}
    if isinstance(violations, list) and violations and isinstance(violations[0], dict):
        found["field"] = violations[0].get("field")
    if isinstance(delay, str) and delay.isascii() and delay.removesuffix("s").isdigit():
        found["retryAfter"] = int(delay.removesuffix("s")[:6])
    return {name: value for name, value in found.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
