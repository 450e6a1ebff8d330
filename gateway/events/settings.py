"""Settings of events: systems that send them, webhooks that are sent them, and what they start."""

import re
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.events.own_types import OWN_NAME, OWN_TYPES, is_reserved, own_types_of

TYPES_MAX: Final = 100  # of one source or webhook
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}\*?|\*")
_NAME: Final = r"^[a-z0-9-]{1,64}$"
_ENTRY: Final = re.compile(r"[a-z0-9-]{1,64}")
_TOOL: Final = re.compile(r"[a-z0-9-]{1,64}\.[^\s{}]{1,128}")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}")


class _FixedSettings(BaseModel):
    """Settings that refuse unknown names and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_secret(reference: str) -> str:
    """Returns the reference. Raises ValueError for a secret in the settings themselves, without repeating it."""
    if not reference.startswith(("env:", "file:")):
        raise ValueError("write env:NAME or file:PATH; the settings must not contain the secret itself")
    return reference


def _check_types(patterns: list[str]) -> list[str]:
    """Returns the patterns. Raises ValueError for what is no type, and for one of the gateway's own that it does not have."""
    for pattern in patterns:
        if not _TYPE.fullmatch(pattern):
            raise ValueError(f"{pattern!r} is no type of events, such as shop.order.paid, shop.* or *")
        if is_reserved(pattern) and not own_types_of([pattern]):
            raise ValueError(f"{pattern!r} names no event of the gateway's own; it has {', '.join(sorted(OWN_TYPES))}")
    return patterns


def _check_foreign_types(patterns: list[str]) -> list[str]:
    """Returns the patterns. Raises ValueError for types that only the gateway sends."""
    for pattern in _check_types(patterns):
        if is_reserved(pattern):
            raise ValueError(f"{pattern!r} begins with {OWN_NAME}, which only the gateway's own events do")
    return patterns


def _check_own_types(patterns: list[str]) -> list[str]:
    """Returns the patterns. Raises ValueError for types that others send, which are stored anyway."""
    for pattern in _check_types(patterns):
        if not is_reserved(pattern):
            raise ValueError(f"{pattern!r} is no type of the gateway's own events; events of others are always stored")
    return patterns


def _check_webhook_url(url: str) -> str:
    """Returns the URL. Raises ValueError, without repeating a path or query, which may be secret."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port) and not parts.username
    except ValueError:
        is_address = False
    if not is_address or parts.fragment or url != url.strip():
        raise ValueError("is no http or https URL without a user and a fragment")
    return url


SecretReference = Annotated[str, AfterValidator(_check_secret)]


class SourceSettings(_FixedSettings):
    """A system that sends events as signed webhooks."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)  # workers get the settings by the names of the fields

    secret: SecretReference
    types: Annotated[list[str], Field(min_length=1, max_length=TYPES_MAX), AfterValidator(_check_foreign_types)]
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # of the data
    subject: str = Field("", max_length=500)  # a template of the event's subject
    tenant: str = "default"


class EventWebhookSettings(_FixedSettings):
    """A webhook that is sent events."""

    url: Annotated[str, AfterValidator(_check_webhook_url)]
    secret: SecretReference
    types: Annotated[list[str], Field(min_length=1, max_length=TYPES_MAX), AfterValidator(_check_types)]
    tenant: str = "default"


def _check_webhooks(webhooks: list[EventWebhookSettings]) -> list[EventWebhookSettings]:
    """Returns the webhooks. Raises ValueError for a URL that a tenant has twice."""
    if len({(each.tenant, each.url) for each in webhooks}) < len(webhooks):
        raise ValueError("has a URL twice; name all of its types in one entry")
    return webhooks


class EventSettings(_FixedSettings):
    """Events that come in and go out."""

    record: Annotated[list[str], AfterValidator(_check_own_types)] = []  # types of the gateway's own that are stored for readers
    sources: dict[Annotated[str, Field(pattern=_NAME)], SourceSettings] = {}
    webhooks: Annotated[list[EventWebhookSettings], AfterValidator(_check_webhooks)] = []


class TriggerSettings(_FixedSettings):
    """What an event starts: a workflow, a message to an agent, or the call of a tool."""

    name: str = Field(pattern=_NAME)
    type: str
    filter: dict[str, Any] = {}
    run_as: str = Field(pattern=_NAME)  # one of `service_principals`
    workflow: str = Field("", max_length=64)
    input: Any = None
    agent: str = Field("", max_length=64)
    skill: str = Field("", max_length=256)
    message: str = Field("", max_length=8192)
    tool: str = ""
    arguments: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if sum(map(bool, (self.workflow, self.agent, self.tool))) != 1:
            raise ValueError("names one of workflow, agent and tool")
        for member, target in (("input", "workflow"), ("message", "agent"), ("skill", "agent"), ("arguments", "tool")):
            if getattr(self, member) not in ("", None) and not getattr(self, target):
                raise ValueError(f"{member} belongs to {target}")
        if self.tool and not _TOOL.fullmatch(self.tool):
            raise ValueError("tool is written SERVER.TOOL")
        if any(not _ENTRY.fullmatch(each) for each in (self.workflow, self.agent) if each):
            raise ValueError("workflow and agent are names of the registry, and no templates")
        return self

    @model_validator(mode="after")
    def _check_type_and_filter(self) -> Self:
        _check_types([self.type])
        for name, value in self.filter.items():
            if not _ATTRIBUTE.fullmatch(name) or name == "type":
                raise ValueError(f"filter: {name!r} is no attribute of events beside the type")
            if name == "data" and not (isinstance(value, str) and value.strip().startswith("${")):
                raise ValueError("filter: data takes a condition, such as ${ .amount > 10 }")
        return self


def check_names(triggers: list[TriggerSettings]) -> list[TriggerSettings]:
    """Returns the triggers. Raises ValueError for a name that two of them have."""
    if len({each.name for each in triggers}) < len(triggers):
        raise ValueError("two triggers have one name")
    return triggers
