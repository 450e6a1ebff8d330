"""The keys of the board that a document reads and writes by the server `state`, or claims: permissions for its ceiling."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.state.subjects.names import key_prefix_of
from gateway.workflows.dsl.document import CallFunction, CallMcp, Document
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.expressions.templates import expression_in
from gateway.workflows.publishing.needs import Need, needs_of_task

SERVER: Final = "state"
KEY_MEMBERS: Final = {"get": "key", "history": "key", "list": "prefix", "set": "key", "patch": "key"}
WRITING: Final = ("set", "patch")
_BEGINNING: Final = re.compile(r'\s*"([^"\\]*)')  # of an expression such as "customer/\(.customer)/status"


def state_permissions(document: Document) -> Iterator[str]:
    """The permissions for the keys that the document's calls of the board can name.

    A key that is an expression permits all keys below the folder with which its text begins, or all keys where it begins with no text.
    """
    for placed in tasks(document):
        for need in needs_of_task(placed.task, placed.path):
            if isinstance(need, Need) and need.name == SERVER and need.tool in KEY_MEMBERS:
                key = _arguments_of(placed.task).get(KEY_MEMBERS[need.tool], "")
                yield f"state:{'write' if need.tool in WRITING else 'read'}:{_pattern_of(key)}"
        if (claim := placed.task.metadata.gateway.claim) is not None:
            yield f"state:write:{_pattern_of_claims(claim.subject)}"


def _pattern_of_claims(subject: str) -> str:
    """The keys of the claims on every subject that this text can become."""
    expression = expression_in(subject)
    if expression is None:
        return f"{key_prefix_of(subject)}claims"
    beginning = _BEGINNING.match(expression)
    kind, colon, _ = beginning[1].partition(":") if beginning else ("", "", "")
    return f"{kind}/*" if colon and kind else "*"


def _arguments_of(task: object) -> Mapping[str, Any]:
    """The arguments of a call of a tool as the document has them; empty for those that an expression or a plan makes."""
    match task:
        case CallFunction(call="gateway.tool", with_=given):
            arguments = given.get("arguments")
        case CallMcp(with_=call) if isinstance(call.parameters, dict):
            arguments = call.parameters.get("arguments")
        case _:
            arguments = None
    return arguments if isinstance(arguments, dict) else {}


def _pattern_of(key: Any) -> str:
    """The narrowest pattern that covers every key that this text can become. A wrong guess refuses the call: a ceiling only takes away."""
    if not isinstance(key, str):
        return "*"
    expression = expression_in(key)
    if expression is None:
        return key.removesuffix("/") or "*"
    beginning = _BEGINNING.match(expression)
    folder = beginning[1].rpartition("/")[0] if beginning else ""
    return f"{folder}/*" if folder else "*"
