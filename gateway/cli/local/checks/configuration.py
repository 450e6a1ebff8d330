"""Problems of a configuration: settings that can't work, and settings that hardly have the intended effect."""

import difflib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.cli.local.checks.sign_in import find_sign_in_problems
from gateway.cli.local.settings_problem import SettingsProblem

if TYPE_CHECKING:
    from gateway.server.settings import Settings

PREFIX = "INTERLOCK_"
OWN_VARIABLES = frozenset(
    {"INTERLOCK_URL", "INTERLOCK_TOKEN", "INTERLOCK_SERVING"}
)  # variables of the command line, and of the gateway for its workers
AGENT_VARIABLES = frozenset(
    {"INTERLOCK_CLIENT_ID", "INTERLOCK_CLIENT_SECRET", "INTERLOCK_SECRET"}
)  # variables of agents behind the gateway


def find_problems(settings: "Settings", environment: Mapping[str, str]) -> Iterator[SettingsProblem]:
    """Yields all problems, in the order of the file."""
    yield from find_unknown_variables(environment)
    yield from _check_processes(settings)
    yield from _check_exposure(settings)
    yield from _check_folders(settings)
    yield from _metrics_token(settings)
    yield from _check_issuers(settings)
    yield from find_sign_in_problems(settings)
    yield from _check_roles(settings)
    yield from _check_entries(settings)
    yield from _check_events(settings)


def _check_processes(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields what the processes of one gateway can't share: a SQLite file, and a port for HTTP and gRPC."""
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        problem = f"{settings.workers} workers need Postgres: SQLite is written by one process"
        yield SettingsProblem("workers", problem, "set INTERLOCK_DATABASE__URL=postgresql://…, or workers to 1")
    if settings.grpc_port == settings.port:
        problem = f"gRPC needs a port of its own, and {settings.port} is that of HTTP"
        yield SettingsProblem("grpc_port", problem, f"set it to {settings.port + 1}, or to 0, which is off")


def _check_exposure(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields settings for a single machine that are used on a network, or behind a proxy that makes them public."""
    from gateway.server.settings import LOOPBACK, WILDCARDS

    public, is_local = urlsplit(settings.public_url), settings.host in LOOPBACK
    if is_local and public.hostname in LOOPBACK:
        return
    if settings.is_development:
        yield _describe_development(settings, is_local)
        return
    if not settings.server.public_url:
        where = "every network interface of this machine" if settings.host in WILDCARDS else "a network"
        problem = (
            f"host {settings.host} opens A2A, MCP, /api and /metrics to {where}, and clients there need an address that is served over TLS"
        )
        todo = "end TLS in front of the gateway and set server.public_url to the https:// address that clients use; or leave --host away"
        yield SettingsProblem("server.public_url", problem, todo)
    elif public.scheme != "https" and public.hostname not in LOOPBACK:
        todo = "end TLS in front of the gateway, and set server.public_url to the https:// address that clients use"
        yield SettingsProblem("server.public_url", f"at {settings.public_url} tokens cross the network in plain text", todo)


def _describe_development(settings: "Settings", is_local: bool) -> SettingsProblem:
    """Returns the problem of a development issuer on a network. It is fatal unless the operator has asked for this issuer."""
    reached = f"behind a proxy at {settings.public_url}" if is_local else f"on {settings.host}"
    problem = f"the gateway is reachable from the network {reached}, and who can read {settings.home} can sign in as anybody"
    todo = "set identity.issuers to your identity provider; the development issuer is for tests on one machine"
    if settings.identity.development == "on":
        return SettingsProblem("identity.development", problem, todo, is_fatal=False)
    return SettingsProblem("identity.issuers", f"{problem}, since no issuer is set", f"{todo}, for which identity.development is on")


def _check_folders(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields problems of the folders of a SQLite file and of workflows. The gateway creates its home, and no other folder."""
    if settings.workflows and not os.access(settings.workflows, os.R_OK | os.X_OK):
        problem = "can't be read by this user" if Path(settings.workflows).exists() else "does not exist"
        yield SettingsProblem("workflows", f"the folder {settings.workflows} {problem}", "create it, or correct `workflows`")
    elif settings.workflows and not Path(settings.workflows).is_dir():
        yield SettingsProblem("workflows", f"{settings.workflows} is not a folder", "name the folder in which the documents are")
    if settings.database.url.startswith("sqlite:///"):
        folder = Path(settings.database.url.removeprefix("sqlite:///")).absolute().parent
        if not folder.is_dir():
            yield SettingsProblem(
                "database.url", f"the folder {folder} does not exist", "create it, or correct database.url", may_pass=True
            )
        elif not os.access(folder, os.W_OK):
            problem, todo = f"this user may not write to {folder}", "change its owner or modes, or correct database.url"
            yield SettingsProblem("database.url", problem, todo)


def _metrics_token(chosen: "Settings") -> Iterator[SettingsProblem]:
    """Yields a problem for a scrape token that is missing, or too short."""
    from adapters.contract import UpstreamFault
    from gateway.ingress.http.scrape_token import SHORTEST
    from gateway.server.settings import resolve_credential

    if not chosen.telemetry.metrics_token:
        return
    where = "telemetry.metrics_token"
    try:
        token = resolve_credential(chosen.telemetry.metrics_token)
    except (UpstreamFault, OSError, UnicodeDecodeError) as error:
        yield SettingsProblem(where, getattr(error, "detail", "") or str(error), "put the token there, or remove telemetry.metrics_token")
        return
    if len(token) < SHORTEST:
        yield SettingsProblem(where, f"the token has fewer than {SHORTEST} characters", "make one with: openssl rand -hex 32")


def _check_issuers(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields issuers that can't be told apart, or whose people have no tenant."""
    issuers = settings.identity.issuers
    if not issuers and not settings.is_development:
        problem = "the gateway accepts no token of a person: the development issuer is off, and no issuer is set"
        yield SettingsProblem("identity.issuers", problem, "set identity.issuers to your identity provider", is_fatal=False)
    names = Counter(issuer.issuer for issuer in issuers)
    for index, issuer in enumerate(issuers):
        where = f"identity.issuers[{index}] {issuer.issuer}"
        if names[issuer.issuer] > 1:
            yield SettingsProblem(where, "two entries have this issuer", "remove one of them")
        if not issuer.issuer or "|" in issuer.issuer or issuer.issuer == settings.public_url:
            yield SettingsProblem(where, "an issuer needs a name of its own, without |", "write the `iss` of its tokens")
        if urlsplit(issuer.jwks_url).scheme not in ("http", "https"):
            yield SettingsProblem(f"{where}: jwks_url", f"{issuer.jwks_url!r} is not an address", "write the https:// address of its keys")
        if len(issuer.tenants) > 1 and not issuer.tenant_claim:
            yield SettingsProblem(where, "several tenants need a tenant_claim", "name the claim that has the tenant")


def find_unknown_variables(environment: Mapping[str, str]) -> Iterator[SettingsProblem]:
    """Yields variables that look like settings and are not."""
    from gateway.server.settings import Settings

    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environment):
        if not name.upper().startswith(PREFIX) or name in OWN_VARIABLES | AGENT_VARIABLES or name.upper().partition("__")[0] in known:
            continue
        near = difflib.get_close_matches(name.upper(), [*known, *OWN_VARIABLES], n=1)
        yield SettingsProblem(
            name, "no setting has this name", f"is {near[0]} meant?" if near else "unset it; see docs/settings.md", is_fatal=False
        )


def _check_roles(settings: "Settings") -> Iterator[SettingsProblem]:
    from policies.delegation.permissions import BadPermission, Permissions

    for role, texts in settings.roles.items():
        try:
            Permissions.parse(texts)
        except BadPermission as error:
            yield SettingsProblem(f"roles.{role}", str(error), "see docs/permissions.md")
    for user, user_settings in settings.users.items():
        for role in user_settings.roles:
            if role not in settings.roles:
                near = difflib.get_close_matches(role, settings.roles, n=1)
                yield SettingsProblem(
                    f"users.{user}.roles",
                    f"there is no role {role!r}, so it permits nothing",
                    f"is {near[0]} meant?" if near else f"add {role} to roles; there are {', '.join(settings.roles)}",
                    is_fatal=False,
                )


def _check_entries(settings: "Settings") -> Iterator[SettingsProblem]:
    families: tuple[tuple[str, Sequence[Any]], ...] = (("agents", settings.agents), ("servers", settings.servers))
    names = Counter([*(seed.name for _, seeds in families for seed in seeds), *(seed.name for seed in settings.virtual)])
    for family, seeds in families:
        for index, seed in enumerate(seeds):
            where = f"{family}[{index}] {seed.name}"
            if names[seed.name] > 1:
                yield SettingsProblem(where, "two entries have this name", "agents and servers share their names: give each its own")
            yield from _check_name(where, seed)
            yield from _check_ceiling(where, seed)
            yield from _check_target(where, seed)
            yield from _check_shared_account(where, seed)
            yield from _check_references(where, {"upstream": seed.upstream, "env": getattr(seed, "env", {})})


def _check_events(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields what of sources, webhooks and triggers can't work. Without any of them, nothing is loaded to find out."""
    if not (settings.events.sources or settings.events.webhooks or settings.triggers):
        return
    from gateway.server.composition.events.rules import read_event_rules
    from gateway.server.settings import BadSettings

    try:
        read_event_rules(settings)
    except BadSettings as error:
        field, _, problem = str(error).partition(": ")
        yield SettingsProblem(field, problem, "see docs/events.md")


def _check_name(field: str, entry: Any) -> Iterator[SettingsProblem]:
    from registry.names import BadName, check_name

    try:
        check_name(entry.name)
    except BadName as error:
        yield SettingsProblem(field, str(error), "give it another name")


def _check_ceiling(field: str, entry: Any) -> Iterator[SettingsProblem]:
    from policies.delegation.permissions import BadPermission, Permissions

    try:
        Permissions.parse(entry.ceiling)
    except BadPermission as error:
        yield SettingsProblem(f"{field}: ceiling", str(error), "see docs/permissions.md")


def _check_references(field: str, texts: Any, path: str = "") -> Iterator[SettingsProblem]:
    """Yields `env:` references to variables that are not set, since the gateway would send an empty credential."""
    if isinstance(texts, dict):
        for name, value in texts.items():
            yield from _check_references(field, value, f"{path}.{name}" if path else str(name))
    elif isinstance(texts, list):
        for index, value in enumerate(texts):
            yield from _check_references(field, value, f"{path}[{index}]")
    elif isinstance(texts, str) and texts.startswith("env:"):
        name = texts.removeprefix("env:")
        if name not in os.environ or (path.startswith("upstream") and not os.environ[name]):
            yield SettingsProblem(f"{field}: {path}", f"the environment variable {name} is not set", f"set {name} for the gateway")


def _check_shared_account(field: str, entry: Any) -> Iterator[SettingsProblem]:
    """Yields credentials that all callers of an entry share without `account: service`."""
    if entry.upstream.get("headers") and "account" not in entry.upstream and "auth" not in entry.upstream:
        problem = "its upstream.headers are one account, which all its callers share"
        todo = "set upstream.account: service; or account: person and auth: {}, so that each person connects their own"
        yield SettingsProblem(f"{field}: upstream", problem, todo, is_fatal=False)


def _check_target(field: str, entry: Any) -> Iterator[SettingsProblem]:
    """Yields a problem unless an entry has exactly one of url and card, or of url and command."""
    other = "card" if hasattr(entry, "card") else "command"
    if bool(entry.url) == bool(getattr(entry, other)):
        yield SettingsProblem(field, f"one of url and {other} is needed", f"write url: http://… or {other}: …, and not both")
    if entry.url and urlsplit(entry.url).scheme not in ("http", "https", "grpc", "grpcs"):
        yield SettingsProblem(f"{field}: url", f"{entry.url!r} is not an address", f"is http://{entry.url} meant?")
    if other == "command" and entry.command and shutil.which(entry.command) is None:
        yield SettingsProblem(
            f"{field}: command", f"there is no program {entry.command!r} on the PATH", "install it, or write its full path"
        )
