"""Every setting of the gateway: `interlock.yaml`, then environment variables `INTERLOCK_…` (nested by `__`), which win."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from adapters.contract import UpstreamFault
from gateway.server.identity_settings import IdentitySettings

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (addresses to listen on, which clients can't call)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NO_CREDENTIAL_TEXT = "the gateway lacks a credential that its settings name"
HOUR, WEEK = 3600, 7 * 86_400  # seconds
COUNT_MAX = 10**15  # of a limit; a larger number is a mistake, and no limit at all is written by leaving it away
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128", "localhost")


class BadSettings(Exception):
    """A setting that can't be used; the message names it and says what is expected."""


class _StrictSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_address(url: str) -> str:
    """Raises ValueError for what no client could call."""
    try:
        parts = urlsplit(url)
        told = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port) and not parts.username
    except ValueError:
        told = False
    if url and (not told or parts.query or parts.fragment or url != url.strip()):
        raise ValueError(f"{url!r} is not an address that clients can call, such as https://agents.example.com")
    return url


def _origin(given: str) -> str:
    """Raises ValueError for what no browser sends as `Origin`."""
    parts = urlsplit(given)
    if given != "*" and (
        parts.scheme not in ("http", "https") or given.lower() != f"{parts.scheme}://{parts.netloc.lower()}" or "@" in given
    ):
        raise ValueError(f"{given!r} is not an origin, such as https://app.example.com, nor *")
    return given.lower()


def _check_database_url(url: str) -> str:
    """Raises ValueError for a database that the gateway can't use, without telling what may be a password."""
    if url and not url.startswith(("sqlite:///", "postgresql://")):
        kind = url.partition(":")[0][:32]
        raise ValueError(f"{kind!r} is no database that the gateway knows; write sqlite:///PATH or postgresql://USER@HOST/NAME")
    return url


def _secret(given: str) -> str:
    """Raises ValueError for a secret that stands in the settings itself, without repeating it."""
    if given and not given.startswith(("env:", "file:")):
        raise ValueError("write env:NAME or file:PATH, where the secret is; a secret does not belong in the settings")
    return given


class ServingSettings(_StrictSettings):
    """How the gateway is reached and what it takes in."""

    public_url: Annotated[str, AfterValidator(_check_address)] = (
        ""  # as clients see it, without a trailing slash; empty: http://{host}:{port}
    )
    public_grpc: str = ""  # host:port that gRPC clients see; empty: the host of public_url and grpc_port
    trusted_proxies: list[str] = []
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = []  # of pages that may call A2A and MCP; *: of all pages
    max_body: int = Field(4 << 20, ge=1024, le=1 << 30)  # bytes of one request
    max_headers: int = Field(32 << 10, ge=1024, le=1 << 20)  # bytes of one request line with its headers
    max_connections: int = Field(16_384, ge=1, le=1_000_000)  # of clients, in one process
    header_timeout: float = Field(15.0, gt=0, le=HOUR)  # seconds for a request's headers
    body_timeout: float = Field(30.0, gt=0, le=HOUR)  # seconds for a small body; a large one gets more
    idle_timeout: float = Field(75.0, gt=0, le=HOUR)  # seconds that a connection stays open between two requests
    send_timeout: float = Field(30.0, gt=0, le=HOUR)  # seconds that a client may read nothing of what waits for it
    tool_names: Literal["underscore", "dot"] = "underscore"
    drain: float = Field(20.0, ge=0, le=HOUR)  # seconds that requests and turns under way may take when the process ends
    drain_delay: float = Field(2.0, ge=0, le=HOUR)  # seconds between the end of readiness and the end of the listener


class DatabaseSettings(_StrictSettings):
    """Where everything is kept."""

    url: Annotated[str, AfterValidator(_check_database_url)] = (
        ""  # sqlite:///PATH or postgresql://…; empty: a SQLite file in INTERLOCK_HOME
    )
    wait: float = Field(30.0, ge=0, le=HOUR)  # seconds that a server which is away is waited for at start


class DevelopmentUserSettings(_StrictSettings):
    roles: list[str] = []


class CardSettings(_StrictSettings):
    """Whom to trust with signatures of agents' cards, beside the keys pinned for an agent."""

    key_origins: list[str] = []  # https://host[:port] that a signature's `jku` may lead to


class EgressSettings(_StrictSettings):
    allow: list[str] | None = None  # CIDRs and hosts; None: loopback with the development issuer, else nothing private


class VaultSettings(_StrictSettings):
    """Where credentials for upstreams are kept."""

    keys: list[str] = []  # env:NAME or files, the one that seals first; empty: made and kept in INTERLOCK_HOME/keys/vault


def _check_kind_and_name(kinds: tuple[str, ...], text: str) -> str:
    """Raises ValueError for what is not one of `kinds`, a colon and a name."""
    kind, _, name = text.partition(":")
    if text and (kind not in kinds or not name):
        raise ValueError(f"{text!r} is not {' or '.join(f'{kind}:NAME' for kind in kinds)}, where NAME may be *")
    return text


class LimitRuleSettings(_StrictSettings):
    """One limit (gateway/calls/limits/limits.py). What is left out is without limit."""

    who: Annotated[str, AfterValidator(lambda given: _check_kind_and_name(("user", "agent", "tenant"), given))] = ""
    what: Annotated[str, AfterValidator(lambda given: _check_kind_and_name(("agent", "server", "tool"), given))] = ""
    rate: float | None = Field(None, gt=0, le=COUNT_MAX)
    burst: float | None = Field(None, ge=1, le=COUNT_MAX)
    concurrent: int | None = Field(None, ge=0, le=COUNT_MAX)
    calls_per_day: int | None = Field(None, ge=0, le=COUNT_MAX)
    cost_per_day: float | None = Field(None, ge=0, le=COUNT_MAX)
    max_bytes: int | None = Field(None, ge=0, le=COUNT_MAX)


class LimitsSettings(_StrictSettings):
    agent_timeout: float = Field(3600.0, gt=0, le=WEEK)  # seconds one turn of an agent may take
    agent_idle_timeout: float = Field(120.0, gt=0, le=WEEK)  # seconds for which an agent may give no sign of life in its turn
    tool_timeout: float = Field(60.0, gt=0, le=WEEK)  # seconds one tool call may take
    turn_events: int = Field(20_000, ge=10, le=10_000_000)  # that are kept of one turn of an agent
    turn_bytes: int = Field(32 << 20, ge=1024, le=1 << 30)  # of those events
    calls: int = Field(1000, ge=2, le=1_000_000)  # turns and calls under way at once in one process, in fair shares
    calls_per_upstream: int = Field(400, ge=2, le=1_000_000)  # of them at one host, or one command
    queue_seconds: float = Field(10.0, ge=0, le=HOUR)  # that a call waits for its turn at most
    per: list[LimitRuleSettings] = []


class TelemetrySettings(_StrictSettings):
    sample: float = Field(0.1, ge=0, le=1)  # share of ordinary requests that are traced
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_token: Annotated[str, AfterValidator(_secret)] = ""  # a bearer token that opens /metrics and nothing else


Label = Annotated[int, Field(ge=0, le=3)]


class EndpointSettings(_StrictSettings):
    """One more address of an agent."""

    url: str
    weight: int = Field(1, ge=0, le=100)  # its share of new tasks


class AgentSettings(_StrictSettings):
    """An agent of the configuration file, registered at start. Either `url` or `card`."""

    name: str
    url: str = ""
    card: dict[str, Any] | None = None
    kind: str = "a2a"
    ceiling: list[str] = ["*"]
    trusted_keys: list[dict[str, Any]] = []
    rank: int = Field(0, ge=-1000, le=1000)  # preference among agents that fit a message equally well
    delegation: Literal["bearer", "header", "ticket", "none", ""] = ""
    upstream: dict[str, Any] = {}
    clearance: Label = 3  # the most sensitive that the agent may be told
    contracts: dict[str, dict[str, Any]] = {}  # what its skills take in and give out
    context: Literal["none", "summary"] = "none"
    endpoints: list[EndpointSettings] = []


class McpServerSettings(_StrictSettings):
    """An MCP server of the configuration file. A command is accepted here and nowhere else."""

    name: str
    url: str = ""
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    ceiling: list[str] = ["*"]
    upstream: dict[str, Any] = {}
    openapi: str = ""  # the address of a document that describes an HTTP API
    sensitivity: Label = 0  # of what the server tells
    clearance: Label = 3
    sensitivities: dict[str, Label] = {}  # of single tools


class VirtualServerSettings(_StrictSettings):
    """A virtual server of the configuration file (registry/virtual/selection.py)."""

    name: str
    description: str = ""
    tools: list[str] = []
    prompts: list[str] = []
    resources: list[str] = []
    aliases: dict[str, str] = {}
    mode: Literal["all", "search"] = "all"
    overrides: dict[str, dict[str, Any]] = {}  # how single tools are shown


INHERITED_VARIABLES = (  # variables by which programs find others and their own files
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
)
DEFAULT_ROLES = {"operator": ["*"], "member": ["agent:*", "tool:*", "prompt:*", "resource:*"]}


class Settings(BaseSettings):
    """All of them. Unknown names are refused."""

    model_config = SettingsConfigDict(env_prefix="INTERLOCK_", env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Path(".interlock")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    grpc_port: int = Field(0, ge=0, le=65535)  # 0: A2A is not served over gRPC
    workers: int = Field(1, ge=1, le=1024)
    server: ServingSettings = ServingSettings()
    database: DatabaseSettings = DatabaseSettings()
    identity: IdentitySettings = IdentitySettings()
    roles: Annotated[dict[str, list[str]], AfterValidator(lambda given: {**DEFAULT_ROLES, **given})] = DEFAULT_ROLES
    users: dict[str, DevelopmentUserSettings] = {}
    agents: list[AgentSettings] = []
    servers: list[McpServerSettings] = []
    virtual: list[VirtualServerSettings] = []
    sandbox: Literal["auto", "on", "off"] = "auto"  # the built-in server for calculations; auto: where bubblewrap works, or in development
    policies: str = ""  # a folder of .cedar files
    workflows: str = ""  # a folder of workflow documents, which nothing reads yet
    cards: CardSettings = CardSettings()
    egress: EgressSettings = EgressSettings()
    vault: VaultSettings = VaultSettings()
    limits: LimitsSettings = LimitsSettings()
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
        return (init_settings,)  # `load` merges the file, the environment and the flags before

    @property
    def public_url(self) -> str:
        reached = self.host if self.host not in WILDCARDS else "127.0.0.1"
        host = f"[{reached}]" if ":" in reached else reached
        return (self.server.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def public_grpc(self) -> str:
        """What cards say of gRPC: `host:port`, or nothing while it is off."""
        if not self.grpc_port:
            return ""
        host = urlsplit(self.public_url).hostname or self.host
        return self.server.public_grpc or f"{f'[{host}]' if ':' in host else host}:{self.grpc_port}"

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.home.absolute() / 'interlock.db'}"

    @property
    def is_development(self) -> bool:
        """Whether the gateway's own development issuer vouches for people."""
        if self.identity.development == "auto":
            return self.host in LOOPBACK and not self.identity.issuers
        return self.identity.development == "on"

    def roles_of(self, subject: str) -> tuple[str, ...]:
        """Of a user of the development issuer."""
        known = self.users.get(subject)
        if known is not None:
            return tuple(known.roles)
        return ("operator",) if subject == "admin" else ("member",)

    @property
    def allowed_targets(self) -> Sequence[str]:
        """Private networks and hosts that may be called all the same."""
        if self.egress.allow is not None:
            return self.egress.allow
        return LOOPBACK_NETWORKS if self.is_development else ()


def upstream_headers(upstream: Mapping[str, Any]) -> Mapping[str, str]:
    """What the operator lets us send along: `headers` of an entry's `upstream`, where `env:NAME` is read from the environment."""
    return {name: resolve_text(value) for name, value in upstream.get("headers", {}).items()}


def environment_value(reference: str) -> str:
    """What the environment has for `env:NAME`; empty where it has nothing."""
    return os.environ.get(reference.removeprefix("env:"), "")


def resolve_text(value: str) -> str:
    """What `env:NAME` stands for; any other text is itself. Raises UpstreamFault where the environment has nothing for it."""
    if not value.startswith("env:"):
        return value
    found = environment_value(value)
    if not found:
        raise UpstreamFault(NO_CREDENTIAL_TEXT, f"the environment has no variable {value.removeprefix('env:')}")
    return found


def command_environment(seed: McpServerSettings) -> dict[str, str]:
    """What a command gets as its environment: `env`, where `env:NAME` is read from ours, and INHERITED. Raises BadSettings."""
    for name, value in seed.env.items():
        wanted = value.removeprefix("env:")
        if value.startswith("env:") and wanted not in os.environ:
            raise BadSettings(f"servers.{seed.name}.env.{name}: the environment variable {wanted} is not set")
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    return inherited | {name: environment_value(value) if value.startswith("env:") else value for name, value in seed.env.items()}


def resolve_credential(value: str) -> str:
    """The same, and `file:PATH` for what a platform writes anew now and then, such as the token of a workload. Raises UpstreamFault."""
    if not value.startswith("file:"):
        return resolve_text(value)
    path = Path(value.removeprefix("file:"))
    text = path.read_text().strip() if path.is_file() else ""
    if not text:
        raise UpstreamFault(NO_CREDENTIAL_TEXT, f"there is no file {path}, or nothing in it")
    return text
