"""Converts registrations to rows and back."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import structlog
from sqlalchemy import Row, RowMapping

from registry.cards.card import (
    CLEARANCE_MAX,
    AgentCard,
    AgentEndpoint,
    BadCard,
    Family,
    McpPrompt,
    McpResource,
    McpResourceTemplate,
    McpTool,
    Registration,
    RegistrationStatus,
    WithheldDefinition,
)
from registry.cards.effects import EffectDeclaration, effect_documents
from registry.cards.reader import read_card
from registry.virtual.selection import Selection

log = structlog.get_logger()
DEFINITION_LISTS: Mapping[str, tuple[str, Callable[..., Any]]] = {  # kind -> the member that names a definition, the class of its entries
    "tools": ("name", McpTool),
    "prompts": ("name", McpPrompt),
    "resources": ("uri", McpResource),
    "templates": ("uriTemplate", McpResourceTemplate),
}


class SettingsCipher(Protocol):
    """Seals settings (policies/vault/envelope.py)."""

    def seal_text(self, context: Sequence[str], text: str) -> str: ...

    def open_text(self, context: Sequence[str], text: str, former_context: Sequence[str] | None = None) -> str: ...


NO_SETTINGS = "{}"
FORMER_UPSTREAM_CONTEXT = 3  # the number of parts of the context that earlier versions used


def upstream_context(row: Mapping[str, Any] | RowMapping) -> tuple[str, ...]:
    """The encryption context of an entry's upstream settings, which may hold secrets: everything that decides where they are sent.

    If an address or definition is changed in the database alone, the settings can no longer be opened.
    """
    return ("upstream", *(row[name] for name in ("tenant", "name", "kind", "url", "facts", "terms")), sha256_hex(row["card"]))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry to be registered: a Registration before it has credentials and times."""

    tenant: str
    name: str
    family: Family
    kind: str
    url: str
    owner: str
    status: RegistrationStatus
    ceiling: tuple[str, ...] = ("*",)
    delegation: str = "bearer"
    upstream: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    card: AgentCard | None = None
    card_text: str = field(default="", repr=False)
    tools: tuple[McpTool, ...] = ()
    trusted_keys: tuple[Mapping[str, Any], ...] = ()
    rank: int = 0
    prompts: tuple[McpPrompt, ...] = ()
    resources: tuple[McpResource, ...] = ()
    templates: tuple[McpResourceTemplate, ...] = ()
    withheld: tuple[WithheldDefinition, ...] = ()
    selection: Selection | None = None
    sensitivity: int = 0
    clearance: int = CLEARANCE_MAX
    sensitivities: Mapping[str, int] = field(default_factory=dict)
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context: str = "none"
    endpoints: tuple[AgentEndpoint, ...] = ()
    model_free: tuple[str, ...] = ()
    effects: Mapping[str, EffectDeclaration] = field(default_factory=dict)
    prices: Mapping[str, int] = field(default_factory=dict)
    memory: str = "none"
    label: str = ""
    jwks: str = ""  # the key set that it authenticates with at the token endpoint, as JSON


def row_of(entry: Candidate | Registration) -> dict[str, Any]:
    """The columns of an entry, without its credentials and times."""
    text = content_text_of(entry)
    return {
        "tenant": entry.tenant,
        "name": entry.name,
        "family": entry.family.value,
        "kind": entry.kind,
        "status": entry.status.value,
        "url": entry.url,
        "owner": entry.owner,
        "card": text,
        "card_hash": sha256_hex(text),
        "ceiling": " ".join(entry.ceiling),
        "delegation": entry.delegation,
        "upstream": json.dumps(dict(entry.upstream)),
        "facts": json.dumps(dict(entry.facts)),
        "trusted_keys": json.dumps([dict(key) for key in entry.trusted_keys]),
        "rank": entry.rank,
        "sensitivity": entry.sensitivity,
        "clearance": entry.clearance,
        "sensitivities": json.dumps(dict(entry.sensitivities)),
        "terms": _terms_json(entry),
    }


def _terms_json(entry: Candidate | Registration) -> str:
    """The terms that differ from the defaults, as JSON."""
    endpoints = [{"url": each.url, "weight": each.weight} for each in entry.endpoints]
    members = {"contracts": dict(entry.contracts), "context": entry.context if entry.context != "none" else "", "endpoints": endpoints}
    members |= {"model_free": list(entry.model_free), "prices": dict(entry.prices)}
    members["effects"] = effect_documents(entry.effects)
    members["memory"] = entry.memory if entry.memory != "none" else ""
    members["label"] = entry.label
    return json.dumps({name: value for name, value in members.items() if value})


def _parse_terms(text: str) -> dict[str, Any]:
    members = json.loads(text)
    endpoints = tuple(AgentEndpoint(**each) for each in members.get("endpoints", ()))
    return {
        "contracts": MappingProxyType(members.get("contracts", {})),
        "context": members.get("context", "none"),
        "endpoints": endpoints,
        "model_free": tuple(members.get("model_free", ())),
        "effects": MappingProxyType({name: EffectDeclaration(**each) for name, each in members.get("effects", {}).items()}),
        "prices": MappingProxyType(members.get("prices", {})),
        "memory": members.get("memory", "none"),
        "label": members.get("label", ""),
    }


def content_text_of(entry: Candidate | Registration) -> str:
    """The content of an entry: an agent's card as received, a server's definitions, or a virtual server's selection, as JSON."""
    if entry.selection is not None:
        return json.dumps(entry.selection.to_document())
    if entry.card_text or entry.family is Family.AGENT:
        return entry.card_text or "[]"
    lists = {kind: list(each.values()) for kind, each in definitions_in_force(entry).items()}
    withheld = [{name: getattr(one, name) for name in WithheldDefinition.__slots__} for one in entry.withheld]
    return json.dumps(lists | ({"withheld": withheld} if withheld else {}))


def definitions_in_force(entry: Candidate | Registration) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The definitions in force, by kind and name, in their order."""
    return {
        "tools": {tool.name: tool.definition for tool in entry.tools},
        "prompts": {prompt.name: prompt.definition for prompt in entry.prompts},
        "resources": {resource.uri: resource.definition for resource in entry.resources},
        "templates": {template.uri: template.definition for template in entry.templates},
    }


@dataclass(frozen=True, slots=True)
class RegistrationPatch:
    """An operator's changes of an entry; None: unchanged."""

    ceiling: tuple[str, ...] | None = None
    delegation: str | None = None
    upstream: Mapping[str, Any] | None = None
    trusted_keys: tuple[Mapping[str, Any], ...] | None = None
    rank: int | None = None
    status: RegistrationStatus | None = None
    sensitivity: int | None = None
    clearance: int | None = None
    sensitivities: Mapping[str, int] | None = None
    contracts: Mapping[str, Mapping[str, Any]] | None = None
    context: str | None = None
    endpoints: tuple[AgentEndpoint, ...] | None = None
    model_free: tuple[str, ...] | None = None
    effects: Mapping[str, EffectDeclaration] | None = None
    prices: Mapping[str, int] | None = None
    memory: str | None = None
    label: str | None = None


def apply_patch(entry: Registration, patch: RegistrationPatch) -> Registration:
    """The entry with the changes of a patch."""
    changed = {name: value for name in RegistrationPatch.__slots__ if (value := getattr(patch, name)) is not None}
    return replace(entry, **changed)


def apply_candidate(entry: Registration, candidate: Candidate) -> Registration:
    """The entry with what was newly found: its card or definitions, its address, and their facts."""
    found = replace(entry, url=candidate.url, facts=dict(candidate.facts), card=candidate.card, card_text=candidate.card_text)
    return replace(found, **{name: getattr(candidate, name) for name in (*DEFINITION_LISTS, "withheld")})


def registration_from_row(row: Row[Any], upstream: str | None = "{}") -> Registration:
    """A registration from its row. `upstream`: the opened settings; None where they can't be opened.

    Quarantines an agent whose card the current rules refuse, and an entry whose settings can't be opened.
    """
    agent = row.family == Family.AGENT
    status = RegistrationStatus.QUARANTINED if upstream is None else RegistrationStatus(row.status)
    document = json.loads(row.card)
    card: AgentCard | None = None
    if agent and document:
        try:
            card = read_card(document)
        except BadCard:  # it was accepted under older rules
            status = RegistrationStatus.QUARANTINED
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
        upstream=MappingProxyType(json.loads(upstream or "{}")),
        facts=MappingProxyType(json.loads(row.facts)),
        client_id=row.client_id,
        card=card,
        card_text=row.card if agent and document else "",
        card_hash=row.card_hash,
        created=row.created,
        updated=row.updated,
        trusted_keys=tuple(json.loads(row.trusted_keys)),
        rank=row.rank,
        sensitivity=row.sensitivity,
        clearance=row.clearance,
        sensitivities=MappingProxyType(json.loads(row.sensitivities)),
        **_parse_terms(row.terms),
        **_content_fields(row.family, document),
    )


class RegistrationRows:
    """Registrations as rows of the database, in which the cipher seals the settings of `upstream`: these may hold secrets."""

    def __init__(self, cipher: SettingsCipher) -> None:
        self._cipher = cipher

    def to_row(self, entry: Candidate | Registration) -> dict[str, Any]:
        """The columns that say what an entry is, without its credentials and times."""
        row = row_of(entry)
        if row["upstream"] != NO_SETTINGS:
            row["upstream"] = self._cipher.seal_text(upstream_context(row), row["upstream"])
        return row

    def to_registration(self, row: Row[Any]) -> Registration:
        """The registration of a row. A row whose settings can't be opened is quarantined, and logged."""
        try:
            context = () if row.upstream == NO_SETTINGS else upstream_context(row._mapping)
            return registration_from_row(row, self._cipher.open_text(context, row.upstream, context[:FORMER_UPSTREAM_CONTEXT]))
        except ValueError as error:
            log.error("settings_unusable", name=row.name, tenant=row.tenant, why=str(error))
            return registration_from_row(row, None)


def _content_fields(family: str, document: Any) -> dict[str, Any]:
    if family == Family.AGENT:
        return {"tools": ()}
    return offer_fields(document) if family == Family.SERVER else {"tools": (), "selection": Selection.from_document(document)}


def offer_fields(document: Any) -> dict[str, Any]:
    """The fields of a server's definitions. Accepts the list of tools that an earlier version wrote."""
    lists = {"tools": document} if isinstance(document, list) else document
    return definitions_by_kind(lists) | {"withheld": tuple(WithheldDefinition(**one) for one in lists.get("withheld", ()))}


def definitions_by_kind(lists: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """The fields for definitions by kind; of two with the same name, the first is kept."""
    found: dict[str, Any] = {}
    for kind, (key, offer) in DEFINITION_LISTS.items():
        by_name: dict[str, Mapping[str, Any]] = {}
        for definition in lists.get(kind, ()):
            by_name.setdefault(definition[key], definition)
        found[kind] = tuple(offer(name, definition) for name, definition in by_name.items())
    return found


def sha256_hex(text: str) -> str:
    """The SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
