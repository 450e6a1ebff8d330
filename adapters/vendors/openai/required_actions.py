"""Required actions of OpenAI's hosted agents: as prompts, and their answers as input events."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from adapters.contract import Answer, Prompt, PromptKind
from adapters.vendors.openai.items import BOOLEAN_SCHEMA, open_call_prompt
from adapters.vendors.sdk.chat_content import as_text

MCP_CALL = "mcp_tool_call"
ORIGIN_ACCESS = "browser_origin_access"
INPUT = "agent.session.input"


def open_actions(session: Mapping[str, Any], answered_ids: Collection[str]) -> list[Mapping[str, Any]]:
    """The required actions of a session, without those in `answered_ids`."""
    return [each for each in session["required_actions"] if each.get("call_id", each.get("request_id")) not in answered_ids]


def unsupported_actions(actions: Iterable[Mapping[str, Any]]) -> list[str]:
    """The types of actions that a person's answer can't complete: connecting an environment, typing a password into a form."""
    return [_kind_of(action) for action in actions if _build_prompt(action) is None]


def action_prompts(actions: Iterable[Mapping[str, Any]]) -> tuple[Prompt, ...]:
    """A prompt for each action that a person can complete. Raises KeyError for an unexpected form."""
    return tuple(prompt for prompt in map(_build_prompt, actions) if prompt is not None)


def result_event(answer: Answer) -> dict[str, Any]:
    """The input event with an answer to a required action."""
    prompt, value = answer.prompt, answer.value
    if prompt.kind is PromptKind.APPROVAL:
        kind = "mcp_approval_request_result" if prompt.token == MCP_CALL else "computer_use_approval_request_result"
        response = {"type": prompt.token, "decision": "approve" if value else "deny"}
        return {"type": f"{INPUT}.{kind}", "request_id": prompt.id, "response": response}
    members = {"turn_id": prompt.token, "call_id": prompt.id, "success": True, "output": as_text(value)}
    return {"type": f"{INPUT}.tool_result", **members}


def _build_prompt(action: Mapping[str, Any]) -> Prompt | None:
    match action:
        case {"type": "function_call", "turn_id": turn}:
            return open_call_prompt(action, token=turn)
        case {"type": "mcp_approval_request", "request_id": name, "request": request}:
            tool, label = request.get("name"), request["server_label"]
            data = {"name": tool, "arguments": request.get("arguments"), "server": label}
            return _approval_prompt(name, request.get("message") or f"Approve {tool or 'a call'} at {label}?", data, MCP_CALL)
        case {"type": "computer_use_approval_request", "request_id": name, "request": {"type": "browser_origin_access"} as request}:
            origin = request["origin"]
            return _approval_prompt(
                name, f"May the agent's browser open {origin}?", {"origin": origin, "reason": request.get("reason")}, ORIGIN_ACCESS
            )
    return None


def _approval_prompt(name: str, text: str, data: dict[str, Any], token: str) -> Prompt:
    return Prompt(name, text, data, BOOLEAN_SCHEMA, PromptKind.APPROVAL, token=token)


def _kind_of(action: Mapping[str, Any]) -> str:
    request = action.get("request")
    return f"{action['type']}/{request.get('type')}" if isinstance(request, dict) else str(action["type"])
