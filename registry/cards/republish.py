"""Publishes agents' cards: with the gateway's interfaces in place of the agent's, signed with the gateway's key."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import rfc8785

from registry.cards.card import AgentCard, Family, Registration, Skill, strip_hidden
from registry.cards.older_card import older, older_form, without_empty
from registry.names import FRONT_DOOR

EXAMPLES_MAX = 20
URI_MAX = 256  # characters
SKILL_SELECTION = "urn:interlock:a2a:skill-selection:1"
RESUMPTION = "urn:interlock:a2a:resumption:1"
IDEMPOTENCY = "urn:interlock:a2a:idempotency:1"
EXTENSIONS = {  # what the gateway adds to every agent
    SKILL_SELECTION: "message.metadata names a skill of the card, which permissions are checked for",
    RESUMPTION: "Events carry their number, also as the SSE id; Last-Event-ID on SubscribeToTask takes a stream up again without loss",
    IDEMPOTENCY: "A message sent again under the same Idempotency-Key is not sent twice",
}


class CardSigner(Protocol):
    """Signs cards (policies/keys/signing.py)."""

    def sign_detached(self, header: Mapping[str, str], payload: bytes) -> tuple[str, str]:
        """Returns the protected header, with alg and kid added, and the signature, both base64url."""
        ...


def publish_card(
    registration: Registration, public_url: str, signer: CardSigner, is_offered: Callable[[Skill], bool] | None = None, grpc: str = ""
) -> dict[str, Any]:
    """The signed card of one agent for callers.

    `is_offered` filters the skills, for a card made for one caller. `grpc`: `host:port` of the gateway's gRPC server, or empty.
    No member is empty, so that verifiers that drop empty members and those that keep them verify the same bytes.
    """
    card = registration.card
    if card is None:
        raise ValueError(f"{registration.name} has no card")
    permission = "agent:*" if registration.name == FRONT_DOOR else f"agent:{registration.name}"
    if registration.family is Family.SERVER:
        permission = f"tool:{registration.name}.*"
    published: dict[str, Any] = {
        "name": card.name,
        "description": card.description,
        "version": card.version,
        "supportedInterfaces": _interfaces(registration, public_url, grpc),
        "capabilities": {
            "streaming": True,
            "pushNotifications": True,
            "extendedAgentCard": True,
            "extensions": [*_gateway_extensions(), *_agent_extensions(card)],
        },
        "securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}},
        "securityRequirements": [{"schemes": {"bearer": {"list": [permission]}}}],
        "defaultInputModes": list(card.input_modes) or ["text/plain"],
        "defaultOutputModes": list(card.output_modes) or ["text/plain"],
        "skills": _skills(registration, card, is_offered),
        **_provider(card),
    }
    return sign_card(published, public_url, signer)


def _interfaces(registration: Registration, public_url: str, grpc: str) -> list[dict[str, Any]]:
    """The gateway's interfaces of an agent (A2A 1.0 s4.4.6). Over gRPC all agents have one address and differ in their tenant."""
    url = f"{public_url}/agents/{registration.name}"
    http = [{"url": url, "protocolBinding": binding, "protocolVersion": "1.0"} for binding in ("JSONRPC", "HTTP+JSON")]
    return [*http, {"url": grpc, "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": registration.name}] if grpc else http


def add_a2a_03_members(registration: Registration, card: Mapping[str, Any], public_url: str, signer: CardSigner) -> dict[str, Any]:
    """A published card with the members of A2A 0.3 added, for clients that do not send their version.

    It has three signatures, because verifiers read different members: all of them (A2A 1.0 s8.4.3), those of 1.0 only, and those of 0.3
    only.

    Clients of 0.3 fetch an extended card wherever one is announced, so it is announced only where the agent has one.
    """
    document: Mapping[str, Any] = registration.card.document if registration.card else {}
    extended = bool(document.get("supportsAuthenticatedExtendedCard") or document.get("capabilities", {}).get("extendedAgentCard"))
    offered = card["supportedInterfaces"]
    unsigned = {name: value for name, value in card.items() if name != "signatures"}
    newer = {**unsigned, "supportedInterfaces": [*offered, *({**each, "protocolVersion": "0.3"} for each in offered)]}
    both = {**newer, **older(card, extended)}
    forms = dict.fromkeys((rfc8785.dumps(both), rfc8785.dumps(without_empty(newer)), older_form(both)))
    return {**both, "signatures": [_signature(form, public_url, signer) for form in forms]}


def signed_for_both(card: Mapping[str, Any], public_url: str, signer: CardSigner) -> dict[str, Any]:
    """A published card with an additional signature over what a client of 0.3 gets: `card` with the members of `older`."""
    form = older_form({**card, **older(card)})
    return {**card, "signatures": [*card["signatures"], _signature(form, public_url, signer)]}


def sign_card(card: dict[str, Any], public_url: str, signer: CardSigner) -> dict[str, Any]:
    """Adds signatures (A2A 1.0 s8.4): JWS over the RFC 8785 form of the card without its signatures."""
    forms = dict.fromkeys(
        (rfc8785.dumps(card), rfc8785.dumps(without_empty(card)))
    )  # two forms where the params of an extension have empty members
    return {**card, "signatures": [_signature(form, public_url, signer) for form in forms]}


def _signature(form: bytes, public_url: str, signer: CardSigner) -> dict[str, str]:
    protected, signature = signer.sign_detached({"typ": "JOSE", "jku": f"{public_url}/.well-known/jwks.json"}, form)
    return {"protected": protected, "signature": signature}


def _skills(registration: Registration, card: AgentCard, is_offered: Callable[[Skill], bool] | None) -> list[dict[str, Any]]:
    if not card.skills:
        only = Skill(registration.name, card.name, card.description)
        return [_skill(only, {}, registration.kind)]
    originals = {entry["id"]: entry for entry in card.document.get("skills", ())}
    shown = [skill for skill in card.skills if is_offered is None or is_offered(skill)]
    return [_skill(skill, originals.get(skill.id, {}), registration.kind) for skill in shown]


def _skill(skill: Skill, original: Mapping[str, Any], kind: str) -> dict[str, Any]:
    published: dict[str, Any] = {
        "id": skill.id,
        "name": skill.name,
        "description": skill.description or skill.name,
        "tags": list(skill.tags) or [kind],
    }
    for key in ("examples", "inputModes", "outputModes"):
        texts = original.get(key)
        if isinstance(texts, list) and texts and all(isinstance(text, str) and text for text in texts):
            published[key] = [strip_hidden(text) for text in texts[:EXAMPLES_MAX]]
    return published


def _gateway_extensions() -> Iterator[dict[str, Any]]:
    for uri, description in EXTENSIONS.items():
        yield {"uri": uri, "description": description}


def _agent_extensions(card: AgentCard) -> Iterator[dict[str, Any]]:
    """Yields the extensions that the agent declares (A2A 1.0 s4.4.4); the gateway passes them on."""
    for each in card.document.get("capabilities", {}).get("extensions", ()):
        uri = each.get("uri") if isinstance(each, dict) else None
        if not isinstance(uri, str) or not (uri.isprintable() and 0 < len(uri) <= URI_MAX) or uri in EXTENSIONS:
            continue
        published: dict[str, Any] = {"uri": uri}
        if isinstance(each.get("description"), str) and (description := strip_hidden(each["description"])):
            published["description"] = description
        if each.get("required") is True:
            published["required"] = True
        if isinstance(each.get("params"), dict) and each["params"] and _is_signable(each["params"]):
            published["params"] = each["params"]
        yield published


def _is_signable(value: Any) -> bool:
    """Whether the value has an RFC 8785 form, which numbers beyond JavaScript's range do not."""
    try:
        return bool(rfc8785.dumps(value))
    except rfc8785.CanonicalizationError:
        return False


def _provider(card: AgentCard) -> dict[str, Any]:
    provider = card.document.get("provider")
    if isinstance(provider, dict):
        organization, url = provider.get("organization"), provider.get("url")
        if isinstance(organization, str) and isinstance(url, str) and organization and url:
            return {"provider": {"organization": organization, "url": url}}
    return {}
