"""Extensions of A2A (1.0 s4.6): those that agents declare and require, and those that the gateway adds for clients that name them."""

from collections.abc import Mapping

from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Message, StreamResponse
from gateway.ingress.http.errors import ExtensionRequired
from registry.cards.card import Registration
from registry.cards.republish import EXTENSIONS, RESUMPTION, SKILL_SELECTION


def _declared_extensions(entry: Registration) -> Mapping[str, bool]:
    """Returns the extensions of an agent's card by URI, and whether each is required (s4.4.4)."""
    return entry.card.extensions if entry.card else {}


def extensions_in_force(entry: Registration, requested: frozenset[str]) -> list[str]:
    """Returns the requested extensions that the gateway or the agent serves, sorted."""
    return sorted(requested & (EXTENSIONS.keys() | _declared_extensions(entry).keys())) if requested else []


def check_required_extensions(entry: Registration, requested: frozenset[str]) -> None:
    """Raises ExtensionRequired for an extension that the agent requires and the request does not name."""
    for uri, required in _declared_extensions(entry).items():
        if required and uri not in requested:
            raise ExtensionRequired(uri)


def extension_header_for_agent(entry: Registration, requested: frozenset[str]) -> dict[str, str]:
    """Returns the header that passes on requested extensions that the agent declares, named as the agent's version names it."""
    wanted = ", ".join(sorted(requested & _declared_extensions(entry).keys()))
    name = "X-A2A-Extensions" if entry.facts.get("version") == "0.3" else "A2A-Extensions"
    return {name: wanted} if wanted else {}


def selected_skill(entry: Registration, message: Message) -> str:
    """Returns the skill that a message names under the skill-selection extension, or "". Raises BadMessage for a skill not on the card."""
    chosen = message.metadata.get(SKILL_SELECTION) if isinstance(message.metadata, dict) else None
    if chosen is None:
        return ""
    known = {skill.id for skill in entry.card.skills} if entry.card else set()
    skill = chosen.get("skillId") if isinstance(chosen, dict) else None
    if skill not in known:
        raise BadMessage(f"message.metadata.{SKILL_SELECTION}.skillId", "is not a skill of this agent")
    return str(skill)


def with_event_number(response: StreamResponse, seq: int) -> StreamResponse:
    """Returns the event with its number in its metadata, for clients that read it there (resumption extension)."""
    for name in ("task", "message", "status_update", "artifact_update"):
        if event := getattr(response, name):
            metadata = {**(event.metadata or {}), RESUMPTION: {"event": seq}}
            return StreamResponse(**{name: replace(event, metadata=metadata)})
    return response
