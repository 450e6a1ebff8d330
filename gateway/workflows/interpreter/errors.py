"""Errors of runs, as problem details (RFC 7807) whose instance is the task that raised them."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import UNSET, Struct, UnsetType

OWN: Final = "urn:interlock:error:"
OUTCOME_UNKNOWN: Final = f"{OWN}outcome-unknown"  # a step may or may not have had its effect
STANDARD: Final = "https://open-workflow-specification.org/spec/1.0.0/errors/"
HOSTS: Final = ("open-workflow-specification.org", "serverlessworkflow.io")
STATUS: Final[Mapping[str, int]] = {
    "configuration": 400, "validation": 400, "expression": 400, "authentication": 401, "authorization": 403, "timeout": 408,
    "communication": 500, "runtime": 500,
}  # fmt: skip
TITLES: Final[Mapping[str, str]] = {
    "configuration": "Configuration Error", "validation": "Validation Error", "expression": "Expression Error",
    "authentication": "Authentication Error", "authorization": "Authorization Error", "timeout": "Timeout Error",
    "communication": "Communication Error", "runtime": "Runtime Error",
}  # fmt: skip


class Fault(Struct, frozen=True):
    """What went wrong, for the workflow's own handlers and for readers of the run. `instance` is a JSON pointer into the document."""

    type: str
    status: int
    title: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    instance: str = ""


class WorkflowError(Exception):
    """A task failed. A `try` around it may catch it; else the run faults with it. `decision_id`: of the ruling that refused its call."""

    def __init__(self, fault: Fault, decision_id: str = "") -> None:
        super().__init__(fault.detail or fault.title or fault.type)
        self.fault = fault
        self.decision_id = decision_id


def standard_error(kind: str, detail: str, instance: str, status: int | None = None) -> WorkflowError:
    """An error of one of the specification's types, such as "timeout"."""
    return WorkflowError(Fault(STANDARD + kind, status or STATUS[kind], TITLES[kind], detail, instance))


def matches(fault: Fault, wanted: Mapping[str, Any]) -> bool:
    """Whether a fault has all that an error filter asks for.

    The specification writes its own error types under several paths and two hosts; there the last step alone counts.
    """
    for name, value in wanted.items():
        found = getattr(fault, name)
        if name == "type":
            if _type_of(found) != _type_of(str(value)):
                return False
        elif found != value:
            return False
    return True


def _type_of(uri: str) -> str:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    standard = any(host == each or host.endswith(f".{each}") for each in HOSTS)
    return f"standard:{parts.path.rstrip('/').rpartition('/')[2]}" if standard else uri
