"""Open questions of a run in the terminal: who may answer, and how."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

MEMBERS_MAX = 8  # of a form that are named
EXAMPLES: Mapping[str, Any] = {"boolean": True, "integer": 1, "number": 1, "array": [], "object": {}}


def question_lines(run: Mapping[str, Any]) -> Iterator[str]:
    """A line for each open question of a run, with the command that answers it where the reader may."""
    for each in run["checkpoints"]:
        if each["state"] != "pending":
            continue
        if each["kind"] == "signal":
            yield f"it waits for a signal: interlock run signal {run['id']} {shlex.quote(each['prompt'])} JSON"
        elif each["may_answer"]:
            yield f"{each['prompt']}  interlock run answer {each['id']} {answer_shape(each)}"
        else:
            yield f"{each['prompt']}  This waits for another person with approval:decide: {each['id']}"


def answer_shape(checkpoint: Mapping[str, Any]) -> str:
    """An answer that fits the checkpoint, as it is written in a shell: an approval, the first option, or the members of a form."""
    schema = checkpoint["schema"]
    if checkpoint["kind"] == "approve":
        return shlex.quote('{"approved": true}')
    if schema.get("enum"):
        return shlex.quote(json.dumps(schema["enum"][0], ensure_ascii=False))
    members = schema.get("properties") or {}
    if not isinstance(members, dict) or not members:
        return "JSON"
    return shlex.quote(json.dumps({name: _example_of(member) for name, member in list(members.items())[:MEMBERS_MAX]}, ensure_ascii=False))


def _example_of(member: Any) -> Any:
    """A value of a member of a form: its first option, or one of its type."""
    if not isinstance(member, dict):
        return "…"
    if isinstance(options := member.get("enum"), list) and options:
        return options[0]
    kind = member.get("type")
    return EXAMPLES.get(kind, "…") if isinstance(kind, str) else "…"
