"""Items that OpenAI's Responses and hosted agents share: input, output blocks, calls, approvals, usage."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from adapters.contract import CITATIONS_KEY, Answer, ArtifactPiece, Event, Progress, Prompt, PromptKind, token_usage_metadata
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import quote_segment

BOOLEAN_SCHEMA: Final = {"type": "boolean"}
JSON_FORMATS: Final = ("json_schema", "json_object")


def input_items(parts: Iterable[Part], bare_base64: bool = False) -> str | list[dict[str, Any]]:
    """A single text unchanged; anything else as a user message. `bare_base64`: files as base64, without a data URL."""
    blocks = [_block(part, bare_base64) for part in parts]
    return str(blocks[0]["text"]) if len(blocks) == 1 and blocks[0]["type"] == "input_text" else [_user_message(blocks)]


def answer_item(answer: Answer) -> dict[str, Any]:
    """An answer to a prompt of `approval_prompt`, `open_call_prompt` or `consent_prompt`, as an item of the next input."""
    prompt, value = answer.prompt, answer.value
    if prompt.kind is PromptKind.AUTH:
        return _user_message([{"type": "input_text", "text": as_text(value)}])
    if prompt.kind is PromptKind.APPROVAL:
        return {"type": "mcp_approval_response", "approval_request_id": prompt.id, "approve": value}
    return {"type": f"{prompt.token}_output", "call_id": prompt.id, "output": as_text(value)}


def devui_answer_items(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """One message with each approval, and all answers to a workflow's requests together."""
    content: list[dict[str, Any]] = []
    requests: dict[str, Any] = {}
    for prompt, value in ((each.prompt, each.value) for each in answers):
        if prompt.kind is PromptKind.APPROVAL:
            decision = {"request_id": prompt.id, "approved": value, "function_call": prompt.token}
            content.append({"type": "function_approval_response", **decision})
        else:
            requests[prompt.id] = {"response": value}
    return [_user_message(content + ([{"type": "workflow_hil_response", "responses": requests}] if requests else []))]


def is_commentary(item: Mapping[str, Any]) -> bool:
    """Whether an item is a model's message before its answer, or an intermediate message of a DevUI workflow."""
    return item.get("phase") == "commentary" or (item.get("metadata") or {}).get("workflow_output_kind") == "intermediate"


def is_structured(response: Mapping[str, Any]) -> bool:
    """Whether the answer's text is JSON because the request asked for it."""
    return ((response.get("text") or {}).get("format") or {}).get("type") in JSON_FORMATS


def output_events(name: str, item: Mapping[str, Any], streamed: Mapping[str, str], structured: bool = False) -> Iterator[Event]:
    """Yields the events for an output item. Texts in `streamed`, by item id, are not sent again."""
    if item["type"] == "message" and is_commentary(item):
        yield Progress(agent_message(_text_of(item), f"m-{name}"))
    elif item["type"] == "message":
        name = _streamed_id(name, _text_of(item), streamed)
        if parts := tuple(_parts(item, name in streamed, structured)):
            yield ArtifactPiece(Artifact(name, parts), append=name in streamed)
    elif item["type"] == "structured_outputs":
        yield ArtifactPiece(Artifact(name, (Part(data=item["output"], media_type="application/json"),)))
    elif item["type"] == "image_generation_call" and item.get("result"):
        yield ArtifactPiece(Artifact(name, (Part(raw=item["result"], media_type=f"image/{item.get('output_format') or 'png'}"),)))


def refusal_text(item: Mapping[str, Any]) -> str:
    """The text of a message's refusal; empty without one."""
    return "".join(str(block["refusal"]) for block in item.get("content") or () if block.get("type") == "refusal")


def _streamed_id(name: str, text: str, streamed: Mapping[str, str]) -> str:
    """The id under which a text was streamed: some servers use another one in the final item."""
    return name if name in streamed else next((known for known, streamed_text in streamed.items() if streamed_text == text), name)


def _text_of(item: Mapping[str, Any]) -> str:
    return "".join(str(block.get("text") or "") for block in item["content"])


def _parts(item: Mapping[str, Any], streamed: bool, structured: bool) -> Iterator[Part]:
    for block in item["content"]:
        text, notes = str(block.get("text") or ""), block.get("annotations") or []
        cited = [{name: each[name] for name in ("url", "title", "filename", "file_id") if each.get(name)} for each in notes]
        value = _parse_json_or_unset(text) if structured else UNSET
        if value is not UNSET:
            yield Part(data=value, media_type="application/json")
        elif cited or (text and not streamed):
            yield Part(text="" if streamed else text, metadata={CITATIONS_KEY: cited} if cited else UNSET)
        for note in notes:
            if note["type"] == "container_file_citation":
                path = f"containers/{quote_segment(note['container_id'])}/files/{quote_segment(note['file_id'])}/content"
                yield Part(url=path, filename=note.get("filename") or "")


def approval_prompt(name: str, call: Mapping[str, Any], token: Any = None) -> Prompt:
    data = {"name": call["name"], "arguments": _arguments(call), **({"server": call["server_label"]} if "server_label" in call else {})}
    return Prompt(name, f"Approve {call['name']}?", data, BOOLEAN_SCHEMA, PromptKind.APPROVAL, token=token)


def consent_prompt(name: str, item: Mapping[str, Any]) -> Prompt:
    """A prompt with the page where the person consents to an MCP server; any answer means that they did."""
    label = item["server_label"]
    return Prompt(name, f"Let {label} act for you", {"server": label}, kind=PromptKind.AUTH, url=str(item["consent_link"]))


def open_call_prompt(call: Mapping[str, Any], token: Any) -> Prompt:
    """A prompt for a call whose result the caller has to provide."""
    data = {"name": call["name"], "arguments": _arguments(call)}
    return Prompt(call["call_id"], f"What does {call['name']} answer?", data, token=token)


def usage_metadata(model: Any, figures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    known = {name: figures[name] for name in ("input_tokens", "output_tokens", "total_tokens") if name in figures} if figures else {}
    return token_usage_metadata(str(model or ""), **known) if known else None


def _user_message(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


def _block(part: Part, bare: bool) -> dict[str, Any]:
    if isinstance(part.text, str):
        return {"type": "input_text", "text": part.text}
    if not isinstance(part.raw, str) and not isinstance(part.url, str):
        return {"type": "input_text", "text": as_text(part.data)}
    data = f"data:{part.media_type or 'application/octet-stream'};base64,{part.raw}"
    if part.media_type.startswith("image/"):
        return {"type": "input_image", "image_url": part.url if isinstance(part.url, str) else data}
    if isinstance(part.url, str):
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.filename or "file", "file_data": part.raw if bare else data}


def _arguments(call: Mapping[str, Any]) -> Any:
    arguments = call.get("arguments", call.get("input"))
    value = _parse_json_or_unset(arguments) if isinstance(arguments, str) else arguments
    return arguments if value is UNSET else value


def _parse_json_or_unset(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return UNSET
