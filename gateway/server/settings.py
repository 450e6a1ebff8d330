"""All settings of the gateway: `interlock.yaml`, overridden by environment variables `INTERLOCK_…` (nested by `__`)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from adapters.contract import UpstreamFault
from gateway.events.settings import EventSettings, TriggerSettings, check_names
from gateway.server.sections.costs import CostSettings, Price, limit_problem
from gateway.server.sections.database import DatabaseSettings
from gateway.server.sections.identity import IdentitySettings
from gateway.server.sections.memory import MemorySettings
from gateway.server.sections.retention import RetentionSettings
from gateway.server.sections.sign_in import SignInSettings
from gateway.server.sections.state import StateSettings
from gateway.server.sections.switch import Switch
from policies.delegation.permissions import Permissions
from registry.cards.effects import parse_effects

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (addresses to listen on, which clients can't call)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NO_CREDENTIAL_TEXT = "the gateway lacks a credential that its settings name"
HOUR, WEEK = 3600, 7 * 86_400  # seconds
COUNT_MAX = 10**15  # of a limit; a larger number is a mistake, and no limit at all is written by leaving it away
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128", "localhost")


class BadSettings(Exception):
    """A setting that can't be used; the message names it and what is expected."""


class _StrictSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_address(url: str) -> str:
    """Returns the URL. Raises ValueError for a URL that clients can't call."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port) and not parts.username
    except ValueError:
        is_address = False
    if url and (not is_address or parts.query or parts.fragment or url != url.strip()):
        raise ValueError(f"{url!r} is not an address that clients can call, such as https://agents.example.com")
    return url


def _origin(origin: str) -> str:
    """Returns the origin in lower case. Raises ValueError for a text that no browser sends as `Origin`."""
    parts = urlsplit(origin)
    if origin != "*" and (
        parts.scheme not in ("http", "https") or origin.lower() != f"{parts.scheme}://{parts.netloc.lower()}" or "@" in origin
    ):
        raise ValueError(f"{origin!r} is not an origin, such as https://app.example.com, nor *")
    return origin.lower()


def _secret(reference: str) -> str:
    """Returns the reference to a secret. Raises ValueError for a secret in the settings themselves, without repeating it."""
    if reference and not reference.startswith(("env:", "file:")):
        raise ValueError("write env:NAME or file:PATH; the settings must not contain the secret itself")
    return reference


class ServingSettings(_StrictSettings):
    """How clients reach the gateway, and the limits of requests."""

    public_url: Annotated[str, AfterValidator(_check_address)] = (
        ""  # the URL that clients use, without a trailing slash; empty: http://{host}:{port}
    )
    public_grpc: str = ""  # host:port that gRPC clients use; empty: the host of public_url and grpc_port
    trusted_proxies: list[str] = []
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = []  # pages of these origins may call A2A and MCP; *: of all origins
    max_body: int = Field(4 << 20, ge=1024, le=1 << 30)  # bytes of one request
    max_headers: int = Field(32 << 10, ge=1024, le=1 << 20)  # bytes of one request line with its headers
    max_connections: int = Field(16_384, ge=1, le=1_000_000)  # client connections of one process
    admission_queue: int = Field(500, ge=0, le=100_000)  # requests that may wait to be admitted while the process is overloaded
    admission_lag: float = Field(0.01, gt=0, le=1)  # seconds of one iteration of the event loop, above which requests wait
    header_timeout: float = Field(15.0, gt=0, le=HOUR)  # seconds for a request's headers
    body_timeout: float = Field(30.0, gt=0, le=HOUR)  # seconds for a small body; a large one gets more
    idle_timeout: float = Field(75.0, gt=0, le=HOUR)  # seconds that a connection stays open between two requests
    send_timeout: float = Field(30.0, gt=0, le=HOUR)  # seconds that a client may leave an answer unread
    tool_names: Literal["underscore", "dot"] = "underscore"
    drain: float = Field(20.0, ge=0, le=HOUR)  # seconds that requests and turns in flight may take when the process ends
    drain_delay: float = Field(2.0, ge=0, le=HOUR)  # seconds between the end of readiness and the end of the listener


class DevelopmentUserSettings(_StrictSettings):
    roles: list[str] = []


def _check_permissions(texts: list[str]) -> list[str]:
    """Returns the permissions. Raises ValueError for a text that is none."""
    Permissions.parse(texts)
    return texts


class ServicePrincipalSettings(_StrictSettings):
    """Whom runs act for that a schedule or an event starts."""

    roles: list[str] = []
    ceiling: Annotated[list[str], AfterValidator(_check_permissions)] = ["*"]
    tenant: str = "default"


class CardSettings(_StrictSettings):
    """Trust in signatures of agents' cards, besides the keys pinned for an agent."""

    key_origins: list[str] = []  # https://host[:port] that a signature's `jku` may lead to


class EgressSettings(_StrictSettings):
    allow: list[str] | None = None  # CIDRs and hosts; None: loopback with the development issuer, else nothing private


class VaultSettings(_StrictSettings):
    """Keys that encrypt stored credentials of upstreams."""

    keys: list[str] = []  # env:NAME or files, the encrypting key first; empty: created in INTERLOCK_HOME/keys/vault


def _check_kind_and_name(kinds: tuple[str, ...], text: str) -> str:
    """Returns the text. Raises ValueError unless it is one of `kinds`, a colon and a name."""
    kind, _, name = text.partition(":")
    if text and (kind not in kinds or not name):
        raise ValueError(f"{text!r} is not {' or '.join(f'{kind}:NAME' for kind in kinds)}, where NAME may be *")
    return text


class LimitRuleSettings(_StrictSettings):
    """One limit (gateway/calls/limits/meters.py). An omitted field is no limit."""

    who: Annotated[str, AfterValidator(lambda text: _check_kind_and_name(("user", "agent", "tenant"), text))] = ""
    what: Annotated[str, AfterValidator(lambda text: _check_kind_and_name(("agent", "server", "tool", "workflow"), text))] = ""
    rate: float | None = Field(None, gt=0, le=COUNT_MAX)
    burst: float | None = Field(None, ge=1, le=COUNT_MAX)
    concurrent: int | None = Field(None, ge=0, le=COUNT_MAX)
    calls_per_day: int | None = Field(None, ge=0, le=COUNT_MAX)
    cost_per_day: float | None = Field(None, ge=0, le=COUNT_MAX)
    cost_per_run: float | None = Field(None, ge=0, le=COUNT_MAX)
    max_bytes: int | None = Field(None, ge=0, le=COUNT_MAX)

    @model_validator(mode="after")
    def _check_bounds(self) -> "LimitRuleSettings":
        problem = limit_problem(self.what, self.model_dump(exclude_none=True, exclude={"who", "what"}))
        if problem:
            raise ValueError(problem)
        return self


class LimitsSettings(_StrictSettings):
    agent_timeout: float = Field(3600.0, gt=0, le=WEEK)  # seconds one turn of an agent may take
    agent_idle_timeout: float = Field(120.0, gt=0, le=WEEK)  # seconds that an agent may be silent in its turn
    tool_timeout: float = Field(60.0, gt=0, le=WEEK)  # seconds one tool call may take
    turn_events: int = Field(20_000, ge=10, le=10_000_000)  # most events stored of one turn of an agent
    turn_bytes: int = Field(32 << 20, ge=1024, le=1 << 30)  # most bytes of those events
    calls: int = Field(1000, ge=2, le=1_000_000)  # turns and calls in flight in one process, in fair shares
    calls_per_upstream: int = Field(400, ge=2, le=1_000_000)  # turns and calls in flight to one host, or one command
    queue_seconds: float = Field(10.0, ge=0, le=HOUR)  # most seconds that a call waits for a slot
    per: list[LimitRuleSettings] = []


class TelemetrySettings(_StrictSettings):
    sample: float = Field(0.1, ge=0, le=1)  # share of ordinary requests that are traced
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_token: Annotated[str, AfterValidator(_secret)] = ""  # a bearer token that is accepted at /metrics only


Label = Annotated[int, Field(ge=0, le=3)]


def _check_effects(effects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the declarations. Raises ValueError for one that is invalid."""
    parse_effects(effects)
    return effects


Effects = Annotated[dict[str, dict[str, Any]], AfterValidator(_check_effects)]  # whom calls act on, by tool or skill


class EndpointSettings(_StrictSettings):
    """One more address of an agent."""

    url: str
    weight: int = Field(1, ge=0, le=100)  # its share of new tasks


class AgentSettings(_StrictSettings):
    """An agent of the configuration file, registered at start, with either `url` or `card`."""

    name: str
    url: str = ""
    card: dict[str, Any] | None = None
    kind: str = "a2a"
    ceiling: list[str] = ["*"]
    trusted_keys: list[dict[str, Any]] = []
    rank: int = Field(0, ge=-1000, le=1000)  # preference among agents that fit a message equally well
    delegation: Literal["bearer", "header", "ticket", "none", ""] = ""
    upstream: dict[str, Any] = {}
    clearance: Label = 3  # the highest sensitivity that the agent may receive
    contracts: dict[str, dict[str, Any]] = {}  # schemas of the input and output of its skills
    context: Literal["none", "summary"] = "none"
    endpoints: list[EndpointSettings] = []
    effects: Effects = {}
    price: Price | None = None  # of one call
    memory: Literal["none", "read", "write"] = "none"


class McpServerSettings(_StrictSettings):
    """An MCP server of the configuration file. Only the configuration file may name a command."""

    name: str
    url: str = ""
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    ceiling: list[str] = ["*"]
    upstream: dict[str, Any] = {}
    openapi: str = ""  # URL of an OpenAPI document
    sensitivity: Label = 0  # of the server's results
    clearance: Label = 3
    sensitivities: dict[str, Label] = {}  # of single tools
    model_free: list[str] = []  # tools behind which no model works
    effects: Effects = {}
    prices: dict[str, Price] = {}  # of one call, by tool; `*`: of every other call


class VirtualServerSettings(_StrictSettings):
    """A virtual server of the configuration file (registry/virtual/selection.py)."""

    name: str
    description: str = ""
    tools: list[str] = []
    prompts: list[str] = []
    resources: list[str] = []
    aliases: dict[str, str] = {}
    mode: Literal["all", "search"] = "all"
    overrides: dict[str, dict[str, Any]] = {}  # changed definitions of single tools


INHERITED_VARIABLES = (  # variables that commands need to find programs and files
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
)
DEFAULT_ROLES = {"operator": ["*"], "member": ["agent:*", "tool:*", "prompt:*", "resource:*"]}


class Settings(BaseSettings):
    """All settings. Unknown names are refused."""

    model_config = SettingsConfigDict(env_prefix="INTERLOCK_", env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Path(".interlock")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    grpc_port: int = Field(0, ge=0, le=65535)  # 0: A2A is not served over gRPC
    workers: int = Field(1, ge=1, le=1024)
    server: ServingSettings = ServingSettings()
    database: DatabaseSettings = DatabaseSettings()
    identity: IdentitySettings = IdentitySettings()
    sign_in: SignInSettings = SignInSettings()
    roles: Annotated[dict[str, list[str]], AfterValidator(lambda roles: {**DEFAULT_ROLES, **roles})] = DEFAULT_ROLES
    users: dict[str, DevelopmentUserSettings] = {}
    agents: list[AgentSettings] = []
    servers: list[McpServerSettings] = []
    virtual: list[VirtualServerSettings] = []
    sandbox: Switch = "auto"  # the built-in server that runs code; auto: where bubblewrap works, or in development
    service_principals: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")], ServicePrincipalSettings] = {}
    policies: str = ""  # a folder of .cedar files
    notify: list[Annotated[str, AfterValidator(_check_address)]] = []  # webhooks that are told what people are asked
    events: EventSettings = EventSettings()
    triggers: Annotated[list[TriggerSettings], AfterValidator(check_names)] = []  # what events start
    workflows: str = ""  # a folder of workflow documents, which are published at start
    cards: CardSettings = CardSettings()
    egress: EgressSettings = EgressSettings()
    vault: VaultSettings = VaultSettings()
    limits: LimitsSettings = LimitsSettings()
    costs: CostSettings = CostSettings()
    state: StateSettings = StateSettings()
    memory: MemorySettings = MemorySettings()
    retention: RetentionSettings = RetentionSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load_settings has merged the file, the environment and the flags

    @property
    def public_url(self) -> str:
        reached = self.host if self.host not in WILDCARDS else "127.0.0.1"
        host = f"[{reached}]" if ":" in reached else reached
        return (self.server.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def public_grpc(self) -> str:
        """The gRPC address in cards, `host:port`; empty while gRPC is off."""
        if not self.grpc_port:
            return ""
        host = urlsplit(self.public_url).hostname or self.host
        return self.server.public_grpc or f"{f'[{host}]' if ':' in host else host}:{self.grpc_port}"

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.home.absolute() / 'interlock.db'}"

    @property
    def is_development(self) -> bool:
        """Whether the gateway's own development issuer is trusted."""
        if self.identity.development == "auto":
            return self.host in LOOPBACK and not self.identity.issuers
        return self.identity.development == "on"

    @property
    def has_development_sign_in(self) -> bool:
        """Whether people may sign in as any development user: on loopback only, unless the operator says otherwise."""
        chosen, is_local = self.sign_in.development, self.host in LOOPBACK and urlsplit(self.public_url).hostname in LOOPBACK
        return self.is_development and (chosen == "on" or (chosen == "auto" and is_local))

    @property
    def has_sign_in(self) -> bool:
        """Whether people can sign in at the gateway."""
        return self.has_development_sign_in or bool(self.sign_in.providers)

    def roles_of(self, subject: str) -> tuple[str, ...]:
        """Returns the roles of a user of the development issuer."""
        known = self.users.get(subject)
        if known is not None:
            return tuple(known.roles)
        return ("operator",) if subject == "admin" else ("member",)

    @property
    def allowed_targets(self) -> Sequence[str]:
        """Private networks and hosts that may be called."""
        if self.egress.allow is not None:
            return self.egress.allow
        return LOOPBACK_NETWORKS if self.is_development else ()


def environment_value(reference: str) -> str:
    """Returns the value of `env:NAME`, or "" when the variable is not set."""
    return os.environ.get(reference.removeprefix("env:"), "")


def resolve_text(value: str) -> str:
    """Returns the value of `env:NAME`, and any other text unchanged. Raises UpstreamFault when the variable is not set."""
    if not value.startswith("env:"):
        return value
    found = environment_value(value)
    if not found:
        raise UpstreamFault(NO_CREDENTIAL_TEXT, f"the environment has no variable {value.removeprefix('env:')}")
    return found


def command_environment(seed: McpServerSettings) -> dict[str, str]:
    """Returns the environment of a command: INHERITED_VARIABLES, and `env` with `env:NAME` values resolved. Raises BadSettings."""
    for name, value in seed.env.items():
        wanted = value.removeprefix("env:")
        if value.startswith("env:") and wanted not in os.environ:
            raise BadSettings(f"servers.{seed.name}.env.{name}: the environment variable {wanted} is not set")
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    return inherited | {name: environment_value(value) if value.startswith("env:") else value for name, value in seed.env.items()}


def resolve_credential(value: str) -> str:
    """Returns the value of `env:NAME` or the content of `file:PATH`, and any other text unchanged.

    The file is read at each call, since platforms replace workload tokens. Raises UpstreamFault for an empty or missing value.
    """
    if not value.startswith("file:"):
        return resolve_text(value)
    path = Path(value.removeprefix("file:"))
    text = path.read_text().strip() if path.is_file() else ""
    if not text:
        raise UpstreamFault(NO_CREDENTIAL_TEXT, f"the file {path} does not exist or is empty")
    return text
