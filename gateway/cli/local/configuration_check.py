"""What a configuration says that can't be, or that nobody would notice: looked for before the gateway starts, and by `interlock check`."""

import difflib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gateway.server.settings import Settings

PREFIX = "INTERLOCK_"
OURS = frozenset({"INTERLOCK_URL", "INTERLOCK_TOKEN", "INTERLOCK_SERVING"})  # of the command line, and of the gateway for its workers
OTHERS = frozenset({"INTERLOCK_CLIENT_ID", "INTERLOCK_CLIENT_SECRET", "INTERLOCK_SECRET"})  # of agents behind the gateway


@dataclass(frozen=True, slots=True)
class Trouble:
    """`fatal`: the gateway can't do what is asked. Else it works, but hardly as somebody meant it."""

    where: str
    problem: str
    todo: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def troubles(chosen: "Settings", environment: Mapping[str, str]) -> Iterator[Trouble]:
    """All that is found, in the order of the file."""
    yield from strangers(environment)
    yield from _exposed(chosen)
    yield from _folders(chosen)
    yield from _metrics_token(chosen)
    yield from _issuers(chosen)
    yield from _roles(chosen)
    yield from _seeds(chosen)


def _exposed(chosen: "Settings") -> Iterator[Trouble]:
    """What is meant for one machine and is on a network."""
    from gateway.server.settings import LOOPBACK

    if chosen.host in LOOPBACK:
        return
    if chosen.development:
        problem = f"whoever can read {chosen.home} is anybody they like here, on a network"
        yield Trouble("identity.development", problem, "set identity.issuers; this is for a try", fatal=False)
        return
    public = urlsplit(chosen.public_url)
    if not chosen.server.public_url:
        problem = f"{chosen.host} is on a network, and clients there can't know the gateway by an address"
        yield Trouble("server.public_url", problem, "set it to the https:// address that clients use")
    elif public.scheme != "https" and public.hostname not in LOOPBACK:
        todo = "end TLS before the gateway, and set server.public_url to the https:// address that clients use"
        yield Trouble("server.public_url", f"{chosen.public_url} would have tokens cross a network for everybody to read", todo)


def _folders(chosen: "Settings") -> Iterator[Trouble]:
    """The folder of a SQLite file that the settings name: the gateway makes its home, and no other folder."""
    if chosen.database.url.startswith("sqlite:///"):
        folder = Path(chosen.database.url.removeprefix("sqlite:///")).absolute().parent
        if not folder.is_dir():
            yield Trouble("database.url", f"there is no folder {folder}", "make it, or correct database.url")
        elif not os.access(folder, os.W_OK):
            yield Trouble("database.url", f"this user may not write in {folder}", "let them, or correct database.url")


def _metrics_token(chosen: "Settings") -> Iterator[Trouble]:
    """A scrape token that is absent, or so short that it could be guessed."""
    from adapters.contract import UpstreamFault
    from gateway.ingress.http.scrape_token import SHORTEST
    from gateway.server.settings import given_text

    if not chosen.telemetry.metrics_token:
        return
    where = "telemetry.metrics_token"
    try:
        token = given_text(chosen.telemetry.metrics_token)
    except (UpstreamFault, OSError, UnicodeDecodeError) as error:
        yield Trouble(where, getattr(error, "detail", "") or str(error), "put the token there, or leave telemetry.metrics_token away")
        return
    if len(token) < SHORTEST:
        yield Trouble(where, f"the token has fewer than {SHORTEST} characters", "make one with: openssl rand -hex 32")


def _issuers(chosen: "Settings") -> Iterator[Trouble]:
    """Providers that can't be told apart, or whose people can't be put into tenants."""
    given = chosen.identity.issuers
    names = Counter(issuer.issuer for issuer in given)
    for index, issuer in enumerate(given):
        where = f"identity.issuers[{index}] {issuer.issuer}"
        if names[issuer.issuer] > 1:
            yield Trouble(where, "two entries have this issuer", "leave one of them away")
        if not issuer.issuer or "|" in issuer.issuer or issuer.issuer == chosen.public_url:
            yield Trouble(where, "an issuer needs a name of its own, without |", "write the `iss` of its tokens")
        if urlsplit(issuer.jwks_url).scheme not in ("http", "https"):
            yield Trouble(f"{where}: jwks_url", f"{issuer.jwks_url!r} is not an address", "write the https:// address of its keys")
        if len(issuer.tenants) > 1 and not issuer.tenant_claim:
            yield Trouble(where, "several tenants need a tenant_claim", "name the claim that says which")


def strangers(environment: Mapping[str, str]) -> Iterator[Trouble]:
    """Variables that look like settings and are none."""
    from gateway.server.settings import Settings

    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environment):
        if not name.upper().startswith(PREFIX) or name in OURS | OTHERS or name.upper().partition("__")[0] in known:
            continue
        near = difflib.get_close_matches(name.upper(), [*known, *OURS], n=1)
        yield Trouble(name, "no setting has this name", f"is {near[0]} meant?" if near else "unset it; see docs/settings.md", fatal=False)


def _roles(chosen: "Settings") -> Iterator[Trouble]:
    from policies.delegation.permissions import BadPermission, Permissions

    for role, texts in chosen.roles.items():
        try:
            Permissions.of(texts)
        except BadPermission as error:
            yield Trouble(f"roles.{role}", str(error), "see docs/permissions.md")
    for user, given in chosen.users.items():
        for role in given.roles:
            if role not in chosen.roles:
                near = difflib.get_close_matches(role, chosen.roles, n=1)
                yield Trouble(
                    f"users.{user}.roles",
                    f"there is no role {role!r}, so it permits nothing",
                    f"is {near[0]} meant?" if near else f"add {role} to roles; there are {', '.join(chosen.roles)}",
                    fatal=False,
                )


def _seeds(chosen: "Settings") -> Iterator[Trouble]:
    families: tuple[tuple[str, Sequence[Any]], ...] = (("agents", chosen.agents), ("servers", chosen.servers))
    names = Counter([*(seed.name for _, seeds in families for seed in seeds), *(seed.name for seed in chosen.virtual)])
    for family, seeds in families:
        for index, seed in enumerate(seeds):
            where = f"{family}[{index}] {seed.name}"
            if names[seed.name] > 1:
                yield Trouble(where, "two entries have this name", "agents and servers share their names: give each its own")
            yield from _named(where, seed)
            yield from _ceiling(where, seed)
            yield from _target(where, seed)
            yield from _shared(where, seed)
            yield from _unset(where, {"upstream": seed.upstream, "env": getattr(seed, "env", {})})


def _named(where: str, seed: Any) -> Iterator[Trouble]:
    from registry.names import BadName, check_name

    try:
        check_name(seed.name)
    except BadName as error:
        yield Trouble(where, str(error), "give it another name")


def _ceiling(where: str, seed: Any) -> Iterator[Trouble]:
    from policies.delegation.permissions import BadPermission, Permissions

    try:
        Permissions.of(seed.ceiling)
    except BadPermission as error:
        yield Trouble(f"{where}: ceiling", str(error), "see docs/permissions.md")


def _unset(where: str, given: Any, path: str = "") -> Iterator[Trouble]:
    """Texts that stand for a variable or a file which is not there: an empty credential would be sent instead."""
    if isinstance(given, dict):
        for name, value in given.items():
            yield from _unset(where, value, f"{path}.{name}" if path else str(name))
    elif isinstance(given, list):
        for index, value in enumerate(given):
            yield from _unset(where, value, f"{path}[{index}]")
    elif isinstance(given, str) and given.startswith("env:"):
        name = given.removeprefix("env:")
        if name not in os.environ or (path.startswith("upstream") and not os.environ[name]):
            yield Trouble(f"{where}: {path}", f"the environment has no variable {name}", f"set {name} for the gateway")


def _shared(where: str, seed: Any) -> Iterator[Trouble]:
    """Credentials that everybody who may call it shares, which nobody said aloud."""
    if seed.upstream.get("headers") and "account" not in seed.upstream and "auth" not in seed.upstream:
        problem = "its upstream.headers are one account, which everybody who may call it shares"
        todo = "say so with upstream.account: service; or with account: person and auth: {} each person connects their own"
        yield Trouble(f"{where}: upstream", problem, todo, fatal=False)


def _target(where: str, seed: Any) -> Iterator[Trouble]:
    """One of url and card, or of url and command."""
    other = "card" if hasattr(seed, "card") else "command"
    if bool(seed.url) == bool(getattr(seed, other)):
        yield Trouble(where, f"one of url and {other} is needed", f"write url: http://… or {other}: …, and not both")
    if seed.url and urlsplit(seed.url).scheme not in ("http", "https", "grpc", "grpcs"):
        yield Trouble(f"{where}: url", f"{seed.url!r} is not an address", f"is http://{seed.url} meant?")
    if other == "command" and seed.command and shutil.which(seed.command) is None:
        yield Trouble(f"{where}: command", f"there is no program {seed.command!r} on the PATH", "install it, or write its whole path")
