"""Registrations of the servers that the gateway offers itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from registry.cards.card import Family, McpResourceTemplate, McpTool, Registration, RegistrationStatus

Definition = Mapping[str, Any]


def build_built_in_registration(
    name: str, kind: str, definitions: Sequence[Definition], templates: Sequence[Definition] = (), facts: Mapping[str, Any] | None = None
) -> Registration:
    """Builds the registration of a built-in server, the same in every tenant.

    `definitions` are entries of tools/list, and `templates` of resources/templates/list.
    """
    return Registration(
        tenant="",
        name=name,
        family=Family.SERVER,
        kind=kind,
        status=RegistrationStatus.ACTIVE,
        url="",
        owner="",
        ceiling=("*",),
        delegation="none",
        upstream={},
        facts=facts or {},
        client_id="",
        card=None,
        card_text="",
        tools=tuple(McpTool(each["name"], each) for each in definitions),
        templates=tuple(McpResourceTemplate(each["uriTemplate"], each) for each in templates),
        model_free=tuple(each["name"] for each in definitions),
        prices={"*": 0},  # the gateway's own, which nobody is paid for
        card_hash="",
        created=0,
        updated=0,
    )
