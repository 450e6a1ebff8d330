"""The card that the gateway publishes for an agent: pure A2A 1.0, our interface in place of the agent's, signed with our key."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import rfc8785

from registry.card import AgentCard, Registration, Skill, visible
from registry.names import FRONT_DOOR

EXAMPLES_MAX = 20


class Signer(Protocol):
    """policies/keys.py."""

    def sign_detached(self, header: Mapping[str, str], payload: bytes) -> tuple[str, str]:
        """The protected header, with alg and kid added, and the signature, both base64url."""
        ...


def republished(
    registration: Registration, public_url: str, signer: Signer, offered: Callable[[Skill], bool] | None = None, grpc: str = ""
) -> dict[str, Any]:
    """The signed card of one agent, as callers get it. The agent's own card stays as it came, for those who may see it.

    `offered` leaves skills out, for a card that is made for one caller. `grpc`: `host:port` of the gateway, where it is on.
    No member is empty, so that verifiers that drop empty members and those that keep them see the same bytes.
    """
    card = registration.card
    if card is None:
        raise ValueError(f"{registration.name} has no card")
    permission = "agent:*" if registration.name == FRONT_DOOR else f"agent:{registration.name}"
    ours: dict[str, Any] = {
        "name": card.name,
        "description": card.description,
        "version": card.version,
        "supportedInterfaces": _interfaces(registration, public_url, grpc),
        "capabilities": {"streaming": True, "pushNotifications": False},
        "securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}},
        "securityRequirements": [{"schemes": {"bearer": {"list": [permission]}}}],
        "defaultInputModes": list(card.input_modes) or ["text/plain"],
        "defaultOutputModes": list(card.output_modes) or ["text/plain"],
        "skills": _skills(registration, card, offered),
        **_provider(card),
    }
    return signed(ours, public_url, signer)


def _interfaces(registration: Registration, public_url: str, grpc: str) -> list[dict[str, Any]]:
    """A2A 1.0 s4.4.6. Over gRPC all agents are at one address, and told apart by their tenant."""
    rpc = {"url": f"{public_url}/agents/{registration.name}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    if not grpc:
        return [rpc]
    return [rpc, {"url": grpc, "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": registration.name}]


def signed(card: dict[str, Any], public_url: str, signer: Signer) -> dict[str, Any]:
    """A2A 1.0 s8.4: a JWS over the RFC 8785 form of the card without its signatures."""
    header = {"typ": "JOSE", "jku": f"{public_url}/.well-known/jwks.json"}
    protected, signature = signer.sign_detached(header, rfc8785.dumps(card))
    return {**card, "signatures": [{"protected": protected, "signature": signature}]}


def _skills(registration: Registration, card: AgentCard, offered: Callable[[Skill], bool] | None) -> list[dict[str, Any]]:
    if not card.skills:
        only = Skill(registration.name, card.name, card.description)
        return [_skill(only, {}, registration.kind)]
    originals = {entry["id"]: entry for entry in card.document.get("skills", ())}
    shown = [skill for skill in card.skills if offered is None or offered(skill)]
    return [_skill(skill, originals.get(skill.id, {}), registration.kind) for skill in shown]


def _skill(skill: Skill, original: Mapping[str, Any], kind: str) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "id": skill.id,
        "name": skill.name,
        "description": skill.description or skill.name,
        "tags": list(skill.tags) or [kind],
    }
    for key in ("examples", "inputModes", "outputModes"):
        texts = original.get(key)
        if isinstance(texts, list) and texts and all(isinstance(text, str) and text for text in texts):
            ours[key] = [visible(text) for text in texts[:EXAMPLES_MAX]]
    return ours


def _provider(card: AgentCard) -> dict[str, Any]:
    provider = card.document.get("provider")
    if isinstance(provider, dict):
        organization, url = provider.get("organization"), provider.get("url")
        if isinstance(organization, str) and isinstance(url, str) and organization and url:
            return {"provider": {"organization": organization, "url": url}}
    return {}
