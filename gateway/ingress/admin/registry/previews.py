"""What a registration would make, shown before anything is registered."""

from typing import Any

from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import AgentRegistrationRequest, Registrant, ServerRegistrationRequest
from registry.drift.pins import describe_withheld
from registry.rows import Candidate

DESCRIPTION_MAX = 2000  # characters of each description


async def preview_agent(onboarding: Onboarding, registrant: Registrant, request: AgentRegistrationRequest) -> dict[str, Any]:
    """Reads the card as a registration does, and returns what would be registered. Raises what register_agent raises."""
    found = await onboarding.inspect_agent(registrant, request)
    card = found.card
    skills = [
        {"id": skill.id, "name": skill.name, "description": skill.description[:DESCRIPTION_MAX], "tags": list(skill.tags)}
        for skill in (card.skills if card else ())
    ]
    about = {"signature": found.facts.get("signature", "none"), "signed_by": found.facts.get("signed_by", "")}
    about |= {"warnings": found.facts.get("warnings", []), "delegation": found.delegation}
    described = {
        "description": card.description[:DESCRIPTION_MAX] if card else "",
        "skills": skills,
        "card": card.document if card else None,
    }
    return {**_common_document(onboarding, found), **about, **described}


async def preview_server(onboarding: Onboarding, registrant: Registrant, request: ServerRegistrationRequest) -> dict[str, Any]:
    """Lists a server as a registration does, and returns what would be registered. Raises what register_server raises."""
    found = await onboarding.inspect_server(registrant, request)
    tools = [{"name": tool.name, "description": str(tool.definition.get("description", ""))[:DESCRIPTION_MAX]} for tool in found.tools]
    offered = {"tools": tools, "prompts": [each.name for each in found.prompts], "resources": len(found.resources)}
    about = {"protocol_version": found.facts.get("protocol_version", ""), "withheld": [describe_withheld(one) for one in found.withheld]}
    return {**_common_document(onboarding, found), **about, **offered}


def _common_document(onboarding: Onboarding, found: Candidate) -> dict[str, Any]:
    """Returns what agents and servers have in common. `name_taken`: a registration under this name would be refused."""
    return {
        "name": found.name,
        "name_taken": onboarding.is_name_taken(found.tenant, found.name),
        "kind": found.kind,
        "url": found.url,
        "status": found.status.value,
        "ceiling": list(found.ceiling),
    }
