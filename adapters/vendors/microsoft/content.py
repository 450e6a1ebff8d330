"""Content of activities beside their text: files, cards, citations, questions and sign-ins."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import Prompt, PromptKind, Turn
from adapters.task import Part, text_of

CARD_TYPE_PREFIX: Final = "application/vnd.microsoft.card."
SIGN_IN_CARDS: Final = (f"{CARD_TYPE_PREFIX}oauth", f"{CARD_TYPE_PREFIX}signin")


def attachment_from_part(part: Part) -> dict[str, Any]:
    kind = part.media_type or "application/octet-stream"
    url = part.url if isinstance(part.url, str) else f"data:{kind};base64,{part.raw}"
    return {"contentType": kind, "contentUrl": url, "name": part.filename or "file"}


def stream_info(activity: Mapping[str, Any]) -> Mapping[str, Any]:
    data = activity.get("channelData")
    found: Mapping[str, Any] = next((each for each in activity.get("entities") or () if each.get("type") == "streaminfo"), {})
    return {**(data if isinstance(data, dict) else {}), **found}


def attachments(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return message.get("attachments") or []


def citations(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    appearances = [claim.get("appearance") or {} for each in message.get("entities") or () for claim in each.get("citation") or ()]
    return [{"url": look.get("url") or "", "title": look.get("name") or "", "text": look.get("abstract") or ""} for look in appearances]


def part_from_attachment(attachment: Mapping[str, Any]) -> Part:
    kind, url, name = str(attachment["contentType"]), attachment.get("contentUrl"), attachment.get("name") or ""
    if not url:
        return Part(data=attachment["content"], media_type=kind)
    if str(url).startswith("data:"):
        return Part(raw=str(url).partition("base64,")[2], media_type=kind, filename=name)
    return Part(url=str(url), media_type=kind, filename=name)


def question_prompt(message: Mapping[str, Any]) -> Prompt:
    choices = [
        {"title": each.get("title"), "value": each["value"]} for each in (message.get("suggestedActions") or {}).get("actions") or ()
    ]
    cards = [each["content"] for each in attachments(message) if str(each.get("contentType")).startswith(CARD_TYPE_PREFIX)]
    data = {**({"choices": choices} if choices else {}), **({"cards": cards} if cards else {})}
    return Prompt(str(message.get("id") or "question"), str(message["text"]), data or None)


def login_prompt(card: Mapping[str, Any], number: int) -> Prompt:
    """A prompt with the sign-in URL; its answer is the code shown there. Data for a token exchange is not passed on."""
    content = card["content"]
    url = next((str(each["value"]) for each in content.get("buttons") or () if str(each.get("value")).startswith("https://")), "")
    return Prompt(f"login-{number}", str(content.get("text") or ""), schema={"type": "string"}, kind=PromptKind.AUTH, url=url)


def message_activity(turn: Turn, conversation: str) -> dict[str, Any]:
    """The turn as an activity: several answers are one text, an object is the value of a card's form."""
    values = [each.value for each in turn.answers] or [part.data for part in turn.message.parts if part.data is not UNSET]
    words = [str(value) for value in values if not isinstance(value, dict)]
    optional_members = {
        "text": "\n".join(words if turn.answers else filter(None, (text_of(turn.message.parts), *words))),
        "value": next((value for value in values if isinstance(value, dict)), None),
        "attachments": [
            attachment_from_part(part) for part in turn.message.parts if isinstance(part.raw, str) or isinstance(part.url, str)
        ],
    }
    known = {name: value for name, value in optional_members.items() if value}
    return {"type": "message", "id": turn.message.message_id, "conversation": {"id": conversation}, **known}
