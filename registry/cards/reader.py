"""Reads agent cards in A2A 1.0, 0.3 or both in one document, and names the field that is wrong."""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from registry.cards.card import AgentCard, AgentInterface, BadCard, Skill, strip_hidden

CARD_MAX = 1 << 20  # bytes
SKILLS_MAX = 500
INTERFACES_MAX = 32
LIST_MAX = 100  # tags or media types
URLS_MAX = 64
URL_MAX = 2048
NAME_MAX = 200  # characters of names, ids, versions, tags
TEXT_MAX = 20_000  # characters of a description
BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")  # that the adapter supports, best first
VERSIONS = ("1.0", "0.3")

# More than HIDDEN_IN_TEXT: a name is one line, and has none of the joiners, soft hyphens and line feeds that a text may have.
FORBIDDEN_IN_NAMES = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VERSION = re.compile(r"([0-9]{1,3}\.[0-9]{1,3})(?:\.[0-9A-Za-z.+-]{1,32})?")


def read_card(document: Any) -> AgentCard:
    """Reads a parsed card. Ignores unknown members; absent lists are empty, since ProtoJSON omits them. Raises BadCard."""
    if not isinstance(document, dict):
        raise BadCard("card", "must be a JSON object")
    capabilities = _object(document, "capabilities")
    return AgentCard(
        name=_name(document, "name"),
        description=_text(document, "description"),
        version=_name(document, "version"),
        interfaces=_interfaces(document),
        skills=_skills(document),
        streaming=_flag(capabilities, "streaming", "capabilities."),
        push_notifications=_flag(capabilities, "pushNotifications", "capabilities."),
        input_modes=_names(document, "defaultInputModes"),
        output_modes=_names(document, "defaultOutputModes"),
        document=document,
        extensions=_extensions(capabilities),
    )


def choose_interface(card: AgentCard, bindings: Collection[str] = BINDINGS) -> AgentInterface:
    """The interface to call: of A2A 1.0, else of 0.3, in the order of BINDINGS, and with a binding among `bindings`.

    Raises BadCard when the card has none of them.
    """
    for version in VERSIONS:
        for binding in BINDINGS:
            for interface in card.interfaces:
                if (interface.binding, interface.version) == (binding, version) and binding in bindings:
                    return interface
    known = ", ".join(binding for binding in BINDINGS if binding in bindings)
    raise BadCard("supportedInterfaces", f"has no interface that can be called: one of {known} in A2A 1.0 or 0.3 is needed")


def fetchable_urls(card: AgentCard) -> list[tuple[str, str]]:
    """(field, URL) of everything that a client could fetch: interfaces, icons, documentation, sign-in pages, keys. Raises BadCard."""
    found = list(_urls(card.document, ""))
    for number, signature in enumerate(_list(card.document, "signatures")):
        protected = signature.get("protected") if isinstance(signature, dict) else None
        found.extend(_urls(_protected_header(protected), f"signatures[{number}].protected."))
    if len(found) > URLS_MAX:
        raise BadCard("card", f"has more than {URLS_MAX} URLs")
    return found


def _extensions(capabilities: Mapping[str, Any]) -> dict[str, bool]:
    """The declared extensions by URI, and whether each is required (A2A 1.0 s4.4.4). Declarations without a URI are ignored."""
    declared: Any = capabilities.get("extensions", [])
    return {str(each["uri"]): each.get("required") is True for each in declared if isinstance(each, dict) and "uri" in each}


def _interfaces(document: Mapping[str, Any]) -> tuple[AgentInterface, ...]:
    found = [
        _interface(entry, f"supportedInterfaces[{i}]") for i, entry in enumerate(_list(document, "supportedInterfaces", INTERFACES_MAX))
    ]
    if "url" in document:
        found.extend(_a2a_03_interfaces(document))
    if not found:
        raise BadCard("supportedInterfaces", "is missing: an agent needs at least one interface (in A2A 0.3: url)")
    return tuple(dict.fromkeys(found))


def _interface(entry: Any, field: str) -> AgentInterface:
    """Reads an interface of A2A 1.0 s4.4.6."""
    if not isinstance(entry, dict):
        raise BadCard(field, "must be an object")
    binding = _name(entry, "protocolBinding", f"{field}.")
    tenant = _name(entry, "tenant", f"{field}.") if entry.get("tenant") else ""
    return AgentInterface(_url(entry, binding, f"{field}."), binding, _version(entry, "1.0", f"{field}."), tenant)


def _a2a_03_interfaces(document: Mapping[str, Any]) -> Iterator[AgentInterface]:
    """Yields the interfaces of A2A 0.3 s5.5: `url` with `preferredTransport`, then `additionalInterfaces`."""
    version = _version(document, "0.3", "")
    if version.startswith("1."):
        version = "0.3"  # in a document of both versions these members are of 0.3
    binding = _name(document, "preferredTransport") if "preferredTransport" in document else "JSONRPC"
    yield AgentInterface(_url(document, binding, ""), binding, version)
    for number, entry in enumerate(_list(document, "additionalInterfaces", INTERFACES_MAX)):
        field = f"additionalInterfaces[{number}]"
        if not isinstance(entry, dict):
            raise BadCard(field, "must be an object")
        binding = _name(entry, "transport", f"{field}.")
        yield AgentInterface(_url(entry, binding, f"{field}."), binding, version)


def _skills(document: Mapping[str, Any]) -> tuple[Skill, ...]:
    skills: dict[str, Skill] = {}
    for number, entry in enumerate(_list(document, "skills", SKILLS_MAX)):
        field = f"skills[{number}]"
        if not isinstance(entry, dict):
            raise BadCard(field, "must be an object")
        skill = Skill(
            id=_name(entry, "id", f"{field}."),
            name=_name(entry, "name", f"{field}."),
            description=_text(entry, "description", f"{field}.", required=False),
            tags=_names(entry, "tags", f"{field}."),
        )
        if skill.id in skills:
            raise BadCard(f"{field}.id", "is the id of another skill too")
        skills[skill.id] = skill
    return tuple(skills.values())


def _url(holder: Mapping[str, Any], binding: str, prefix: str) -> str:
    url = holder.get("url")
    field = f"{prefix}url"
    if not isinstance(url, str) or not url:
        raise BadCard(field, "is missing or not a text")
    if len(url) > URL_MAX or FORBIDDEN_IN_NAMES.search(url):
        raise BadCard(field, f"is longer than {URL_MAX} characters or has invisible characters")
    if binding != "GRPC" and not url.lower().startswith(("http://", "https://")):
        raise BadCard(field, "must begin with http:// or https://")
    return url


def _version(holder: Mapping[str, Any], absent: str, prefix: str) -> str:
    """The protocol version as Major.Minor. Raises BadCard."""
    text = holder.get("protocolVersion") or absent
    found = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadCard(f"{prefix}protocolVersion", "must be a version such as 1.0")
    return found.group(1)


def _name(holder: Mapping[str, Any], key: str, prefix: str = "") -> str:
    return _check_plain(holder.get(key), prefix + key)


def _check_plain(text: Any, field: str) -> str:
    """Checks a name or id: not empty, at most NAME_MAX characters, none of them hidden. Raises BadCard."""
    if not isinstance(text, str) or not text.strip():
        raise BadCard(field, "is missing, empty or not a text")
    if len(text) > NAME_MAX:
        raise BadCard(field, f"is longer than {NAME_MAX} characters")
    if FORBIDDEN_IN_NAMES.search(text):
        raise BadCard(field, "has control, bidirectional or invisible characters")
    return text


def _text(holder: Mapping[str, Any], key: str, prefix: str = "", required: bool = True) -> str:
    text = holder.get(key, None if required else "")
    if not isinstance(text, str) or (required and not text.strip()):
        raise BadCard(prefix + key, "is missing, empty or not a text")
    if len(text) > TEXT_MAX:
        raise BadCard(prefix + key, f"is longer than {TEXT_MAX} characters")
    if _CONTROL.search(text):
        raise BadCard(prefix + key, "has control characters")
    return strip_hidden(text)


def _names(holder: Mapping[str, Any], key: str, prefix: str = "") -> tuple[str, ...]:
    return tuple(_check_plain(entry, f"{prefix}{key}[{number}]") for number, entry in enumerate(_list(holder, key, LIST_MAX, prefix)))


def _list(holder: Mapping[str, Any], key: str, limit: int = LIST_MAX, prefix: str = "") -> Sequence[Any]:
    entries = holder.get(key, [])
    if not isinstance(entries, list):
        raise BadCard(prefix + key, "must be a list")
    if len(entries) > limit:
        raise BadCard(prefix + key, f"has more than {limit} entries")
    return entries


def _object(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = holder.get(key, {})
    if not isinstance(found, dict):
        raise BadCard(key, "must be an object")
    return found


def _flag(holder: Mapping[str, Any], key: str, prefix: str) -> bool:
    flag = holder.get(key)
    if not isinstance(flag, bool | None):
        raise BadCard(prefix + key, "must be true or false")
    return bool(flag)


def _urls(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Yields members whose name ends with `url`, and `jku`, at any depth. Skips gRPC targets, which have no scheme."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _urls(entry, f"{field.removesuffix('.')}[{number}].")
    elif isinstance(value, dict):
        grpc = str(value.get("protocolBinding") or value.get("transport") or value.get("preferredTransport")) == "GRPC"
        for key, member in value.items():
            named = key.lower().endswith("url") or key == "jku"
            if named and isinstance(member, str) and member and not (grpc and key == "url"):
                yield field + key, member
            elif isinstance(member, dict | list):
                yield from _urls(member, f"{field}{key}.")


def _protected_header(text: Any) -> Any:
    """The protected header of a card's signature (RFC 7515); None where it can't be read, so that no key is fetched for it."""
    try:
        return json.loads(base64.urlsafe_b64decode(str(text) + "=="))
    except (binascii.Error, ValueError, RecursionError):
        return None
