"""What a registration looks like as a row, and a row as a registration."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row

from registry.card import AgentCard, BadCard, Family, Prompt, Registration, Resource, Status, Template, Tool
from registry.card_reader import read_card


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be registered: a Registration before it has an id, a secret and a place in time."""

    tenant: str
    name: str
    family: Family
    kind: str
    url: str
    owner: str
    status: Status
    ceiling: tuple[str, ...] = ("*",)
    delegation: str = "bearer"
    upstream: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    card: AgentCard | None = None
    card_text: str = field(default="", repr=False)
    tools: tuple[Tool, ...] = ()
    trusted_keys: tuple[Mapping[str, Any], ...] = ()
    rank: int = 0
    prompts: tuple[Prompt, ...] = ()
    resources: tuple[Resource, ...] = ()
    templates: tuple[Template, ...] = ()
    jwks: str = ""  # the key set that it proves itself with at the token endpoint, as JSON


def row_of(entry: Candidate | Registration) -> dict[str, Any]:
    """The columns that say what an entry is; those of its credentials and times are not among them."""
    text = text_of(entry)
    return {
        "tenant": entry.tenant,
        "name": entry.name,
        "family": entry.family.value,
        "kind": entry.kind,
        "status": entry.status.value,
        "url": entry.url,
        "owner": entry.owner,
        "card": text,
        "card_hash": digest(text),
        "ceiling": " ".join(entry.ceiling),
        "delegation": entry.delegation,
        "upstream": json.dumps(dict(entry.upstream)),
        "facts": json.dumps(dict(entry.facts)),
        "trusted_keys": json.dumps([dict(key) for key in entry.trusted_keys]),
        "rank": entry.rank,
    }


def text_of(entry: Candidate | Registration) -> str:
    """An agent's card verbatim, or all that a server offers."""
    if entry.card_text or entry.family is Family.AGENT:
        return entry.card_text or "[]"
    lists: dict[str, Sequence[Tool | Prompt | Resource | Template]] = {
        "tools": entry.tools,
        "prompts": entry.prompts,
        "resources": entry.resources,
        "templates": entry.templates,
    }
    return json.dumps({kind: [one.definition for one in each] for kind, each in lists.items()})


@dataclass(frozen=True, slots=True)
class Amendment:
    """What operators change of an entry; None: as it is."""

    ceiling: tuple[str, ...] | None = None
    delegation: str | None = None
    upstream: Mapping[str, Any] | None = None
    trusted_keys: tuple[Mapping[str, Any], ...] | None = None
    rank: int | None = None
    status: Status | None = None


def amended(entry: Registration, amendment: Amendment) -> Registration:
    """The entry on other terms."""
    given = {name: value for name in Amendment.__slots__ if (value := getattr(amendment, name)) is not None}
    return replace(entry, **given)


def recarded(entry: Registration, candidate: Candidate) -> Registration:
    """The entry with what was found out anew: its card or tools, where it is called, and the facts that go with them."""
    found = replace(entry, url=candidate.url, facts=dict(candidate.facts), card=candidate.card, card_text=candidate.card_text)
    return replace(found, tools=candidate.tools, prompts=candidate.prompts, resources=candidate.resources, templates=candidate.templates)


def registration_of(row: Row[Any]) -> Registration:
    """A card that today's rules refuse quarantines its agent."""
    agent = row.family == Family.AGENT
    status = Status(row.status)
    document = json.loads(row.card)
    card: AgentCard | None = None
    if agent and document:
        try:
            card = read_card(document)
        except BadCard:  # it was read under older rules
            status = Status.QUARANTINED
    return Registration(
        tenant=row.tenant,
        name=row.name,
        family=Family(row.family),
        kind=row.kind,
        status=status,
        url=row.url,
        owner=row.owner,
        ceiling=tuple(row.ceiling.split()),
        delegation=row.delegation,
        upstream=MappingProxyType(json.loads(row.upstream)),
        facts=MappingProxyType(json.loads(row.facts)),
        client_id=row.client_id,
        card=card,
        card_text=row.card if agent and document else "",
        card_hash=row.card_hash,
        created=row.created,
        updated=row.updated,
        trusted_keys=tuple(json.loads(row.trusted_keys)),
        rank=row.rank,
        **({"tools": ()} if agent else offered(document)),
    )


def offered(document: Any) -> dict[str, Any]:
    """The tools, prompts, resources and templates of a server, as they are kept. A list has only tools: an earlier version wrote it."""
    lists = {"tools": document} if isinstance(document, list) else document
    return {
        "tools": tuple(Tool(each["name"], each) for each in lists.get("tools", ())),
        "prompts": tuple(Prompt(each["name"], each) for each in lists.get("prompts", ())),
        "resources": tuple(Resource(each["uri"], each) for each in lists.get("resources", ())),
        "templates": tuple(Template(each["uriTemplate"], each) for each in lists.get("templates", ())),
    }


def digest(text: str) -> str:
    """sha256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
