"""The catalog of agents in the formats of AI Catalog 1.0 and of Agentic Resource Discovery (API 0.5.0)."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from heapq import nsmallest
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from registry.cards.card import Registration, strip_hidden
from registry.names import FRONT_DOOR

SPEC_VERSION = "1.0"
AGENT_CARD, REGISTRY = "application/a2a-agent-card+json", "application/ai-registry+json"
QUERIES_MIN_MAX = (2, 5)  # at least, at most
CAPABILITIES_MAX = TAGS_MAX = 100
LOCAL_DOMAIN = "agent.localhost"  # for a gateway without a domain; never the bare name
FILTER_PATHS: Mapping[str, Callable[[Mapping[str, Any]], Sequence[str]]] = {
    "identifier": lambda entry: [entry["identifier"]],
    "displayName": lambda entry: [entry["displayName"]],
    "type": lambda entry: [entry["type"]],
    "version": lambda entry: [entry["version"]],
    "tags": lambda entry: entry.get("tags", []),
    "capabilities": lambda entry: entry.get("capabilities", []),
    "metadata.name": lambda entry: [entry["metadata"]["name"]],
}
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_TERM = re.compile(r"\s*([A-Za-z.]{1,64})\s*=\s*'([^']{0,200})'\s*(?:AND\b|$)")


class BadFilter(Exception):
    """A filter or a facet is not usable; the message says why."""


@lru_cache(16)  # a gateway has one address
def publisher_domain(public_url: str) -> str:
    """The domain of the entries' URNs."""
    host = (urlsplit(public_url).hostname or "").rstrip(".").lower()
    try:
        ip_address(host)
    except ValueError:
        return host if "." in host and re.fullmatch(r"[a-z0-9.-]+", host) else LOCAL_DOMAIN
    return LOCAL_DOMAIN


def entry_urn(public_url: str, namespace: str, name: str) -> str:
    """`urn:air:<domain>:<namespace>:<name>`, without port and version."""
    return f"urn:air:{publisher_domain(public_url)}:{_ODD.sub('-', namespace) or 'default'}:{name}"


def display_name_of(agent: Registration) -> str:
    return agent.card.name if agent.card else agent.name


def catalog_entry_of(agent: Registration, public_url: str) -> dict[str, Any]:
    """The catalog entry of one agent; it refers to the card that the gateway publishes."""
    card = agent.card
    skills = card.skills if card else ()
    tags = list(dict.fromkeys(tag for skill in skills for tag in skill.tags))[:TAGS_MAX]
    shown: dict[str, Any] = {
        "identifier": entry_urn(public_url, agent.tenant, agent.name),
        "displayName": display_name_of(agent),
        "type": AGENT_CARD,
        "url": f"{public_url}/agents/{agent.name}/.well-known/agent-card.json",
        "description": card.description if card else "",
        "version": card.version if card else "",
        "updatedAt": datetime.fromtimestamp(agent.updated / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "capabilities": [skill.id for skill in skills][:CAPABILITIES_MAX],
        "metadata": {"name": agent.name, "endpoint": f"{public_url}/agents/{agent.name}"},
        **({"tags": tags} if tags else {}),
        **_representative_queries(agent),
    }
    return shown | _trust_manifest(public_url)


def catalog_document(agent_entries: Iterable[object], front_door: Registration, public_url: str) -> dict[str, Any]:
    """`/.well-known/ai-catalog.json`: the gateway's own agent, the search endpoint, and the entries of agents, encoded or not."""
    front_door_entry = catalog_entry_of(front_door, public_url) | {"url": f"{public_url}/.well-known/agent-card.json"}
    front_door_entry.pop("updatedAt")
    search = {
        "identifier": entry_urn(public_url, "registry", FRONT_DOOR),
        "displayName": "Agents of this gateway",
        "type": REGISTRY,
        "url": f"{public_url}/ard",
        **_trust_manifest(public_url),
    }
    entries = [front_door_entry, search, *agent_entries]
    return {"specVersion": SPEC_VERSION, "host": {"displayName": f"Interlock at {urlsplit(public_url).netloc}"}, "entries": entries}


def matches_filters(entry: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether the entry has one of the values for each path. Raises BadFilter for a path that is not supported."""
    return all(set(_path_reader(path)(entry)) & set(values) for path, values in filters.items())


def check_filter_paths(paths: Iterable[str]) -> None:
    """Raises BadFilter for a path that is not supported."""
    for path in paths:
        _path_reader(path)


def parse_filter(text: str) -> dict[str, list[str]]:
    """Parses `path = 'value' AND …`, the `filter` parameter of `GET /agents`. Raises BadFilter."""
    found: dict[str, list[str]] = {}
    place = 0
    while text[place:].strip():
        term = _TERM.match(text, place)
        if term is None or term[1] in found:
            raise BadFilter("filter must be terms such as type = 'application/a2a-agent-card+json', joined by AND, each path once")
        found[term[1]], place = [term[2]], term.end()
    check_filter_paths(found)
    return found


class Facet:
    """Counts how often each value of a path occurs."""

    def __init__(self, path: str, limit: int, min_count: int) -> None:
        """`limit`: how many values are shown. Raises BadFilter for a path that is not supported."""
        self._read_values = _path_reader(path)
        self._limit = limit
        self._min_count = min_count
        self._counted = Counter[str]()

    def count(self, entry: Mapping[str, Any]) -> None:
        """Counts the values of an entry, each once."""
        self._counted.update(dict.fromkeys(self._read_values(entry), 1))

    def document(self) -> dict[str, Any]:
        """Returns the values, the most frequent first; `otherCount` sums up the omitted ones."""
        counted = ((value, count) for value, count in self._counted.items() if count >= self._min_count)
        frequent = nsmallest(self._limit, counted, key=lambda one: (-one[1], one[0]))
        shown = [{"value": value, "count": count} for value, count in frequent]
        return {"buckets": shown, "otherCount": self._counted.total() - sum(count for _, count in frequent)}


def _path_reader(path: str) -> Callable[[Mapping[str, Any]], Sequence[str]]:
    found = FILTER_PATHS.get(path)
    if found is None:
        raise BadFilter(f"filter path is not supported; supported: {', '.join(FILTER_PATHS)}")
    return found


def _representative_queries(agent: Registration) -> dict[str, Any]:
    examples = [text for skill in (agent.card.document.get("skills") or () if agent.card else ()) for text in skill.get("examples") or ()]
    texts = list(dict.fromkeys(strip_hidden(text)[:500] for text in examples if isinstance(text, str) and text.strip()))[
        : QUERIES_MIN_MAX[1]
    ]
    return {"representativeQueries": texts} if len(texts) >= QUERIES_MIN_MAX[0] else {}


def _trust_manifest(public_url: str) -> dict[str, Any]:
    """The trust manifest that binds entries to the gateway's domain; empty without a domain."""
    domain = publisher_domain(public_url)
    return {} if domain == LOCAL_DOMAIN else {"trustManifest": {"identity": f"https://{domain}", "identityType": "https"}}
