"""Documents of what a gateway has: only what differs from the defaults, and `stored:` where a secret is."""

from collections.abc import Mapping
from typing import Any

from gateway.cli.configuration.kinds import KINDS, SERVER


def document_of(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document of an entry."""
    kind = KINDS[declaration["kind"]]
    full = {name: value for name, value in declaration["spec"].items() if name in kind.members}
    spec = {name: value for name, value in full.items() if value is not None and value != kind.members[name]}
    if spec.get("paused") is False:
        del spec["paused"]
    return {"kind": kind.name, "name": declaration["name"], "spec": spec}


def why_left_out(declaration: Mapping[str, Any]) -> str:
    """Returns why an entry has no document; empty for one that has."""
    if declaration["configured"]:
        return "is set by interlock.yaml or the folder of workflows"
    if declaration["kind"] != SERVER.name:
        return ""
    if declaration["spec"]["command"]:
        return "starts a program, which only interlock.yaml may do"
    return "was registered with an OpenAPI document that is not kept: give its URL" if declaration["spec"]["openapi"] is None else ""


def count_stored(value: Any) -> int:
    """Returns how many secrets a document leaves at the gateway."""
    if isinstance(value, Mapping):
        return sum(map(count_stored, value.values()))
    return sum(map(count_stored, value)) if isinstance(value, list) else int(value == "stored:")
