"""The start message for the operator: URL, registered entries and next steps. A terminal gets text, otherwise the log gets an event."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from adapters.sandbox.isolation import Isolation
from adapters.version import describe_version
from gateway.server.composition.process import Gateway
from registry.cards.card import WORKFLOW_KIND, Family, Registration, RegistrationStatus
from registry.seeds import DEFAULT_TENANT

DEFAULT_URL, DEFAULT_HOME = "http://127.0.0.1:8080", Path(".interlock")
NAMES_SHOWN_MAX = 12
log = structlog.get_logger()


def print_banner(gateway: Gateway) -> None:
    """Prints the banner on a terminal, and logs `serving` otherwise."""
    if sys.stderr.isatty():
        print("\n".join(banner_lines(gateway)), file=sys.stderr, flush=True)
        return
    settings = gateway.settings
    known = {family.value: [entry.name for entry in gateway.registry.list("default", family)] for family in Family}
    sandbox = gateway.sandbox.isolation.kind if gateway.sandbox else "off"
    made = {"made": gateway.created_files} if gateway.created_files else {}
    refused = {"refused": files} if (files := [each.file for each in gateway.workflows.folder.refused_documents(DEFAULT_TENANT)]) else {}
    logged_settings = {
        "docs": f"{settings.public_url}/docs",
        "console": f"{settings.public_url}/console",
        "grpc": settings.public_grpc,
        "version": describe_version(),
        "next": next_steps(gateway),
        "sandbox": sandbox,
        **made,
        **refused,
        **known,
    }
    log.info("serving", url=settings.public_url, **logged_settings)


def banner_lines(gateway: Gateway) -> Iterator[str]:
    """Yields the lines for a terminal."""
    settings = gateway.settings
    grpc = f", gRPC at {settings.public_grpc}" if settings.public_grpc else ""
    yield f"Interlock {describe_version()} serves {settings.public_url}{grpc}"
    yield f"  api      {settings.public_url}/docs describes it, /openapi.json for programs"
    yield f"  console  {settings.public_url}/console, or sign in by a link: interlock console"
    yield f"  agents   {_describe_entries(gateway, Family.AGENT)}"
    yield f"  servers  {_describe_entries(gateway, Family.SERVER)}"
    if refused := [each.file for each in gateway.workflows.folder.refused_documents(DEFAULT_TENANT)]:
        yield f"  refused  {', '.join(refused[:NAMES_SHOWN_MAX])}: interlock workflow list says why"
    if gateway.sandbox is not None:
        yield f"  sandbox  {_describe_sandbox(gateway.sandbox.isolation)}"
    yield f"  people   {_describe_issuers(gateway)}"
    for number, (purpose, path) in enumerate(gateway.created_files.items()):
        yield f"  {'' if number else 'made':8} {purpose}: {path}"
    yield "  next     in another terminal" + (", in this folder:" if settings.home == DEFAULT_HOME else ":")
    yield from (f"             {step}" for step in next_steps(gateway))


def next_steps(gateway: Gateway) -> list[str]:
    """Returns commands to continue with, for a terminal without environment variables."""
    settings, steps = gateway.settings, []
    if settings.public_url != DEFAULT_URL:
        steps.append(f"export INTERLOCK_URL={settings.public_url}")
    if settings.home != DEFAULT_HOME and settings.is_development:  # whose command line signs tokens with the keys there
        steps.append(f"export INTERLOCK_HOME={shlex.quote(str(settings.home.absolute()))}")
    entries = gateway.registry.list("default")
    waiting = next((entry for entry in entries if entry.status is RegistrationStatus.PENDING), None)
    ready = next(filter(_takes_text, entries), None)
    steps.append(_sign_in_step(gateway, "admin" if waiting or not ready else "alice"))
    if waiting:
        steps.append(f"interlock {waiting.family.value} show {waiting.name}   # waits for an operator's approval")
    elif ready:
        steps.append(f'interlock send {ready.name} "hello"')
    else:
        address = "http://127.0.0.1:7001" if settings.is_development else "https://agent.example.com"  # elsewhere loopback is refused
        steps.append(f"interlock agent add {address}   # the address of an agent")
    return steps


def _takes_text(entry: Registration) -> bool:
    """Returns whether an entry is an active agent. A workflow is not, because its input has members of its own."""
    return entry.family is Family.AGENT and entry.kind != WORKFLOW_KIND and entry.status is RegistrationStatus.ACTIVE


def _sign_in_step(gateway: Gateway, user: str) -> str:
    if gateway.settings.is_development:
        return f"export INTERLOCK_TOKEN=$(interlock token --user {user})"
    return "interlock login" if gateway.settings.has_sign_in else "export INTERLOCK_TOKEN=…   # of your identity provider"


def _describe_entries(gateway: Gateway, family: Family) -> str:
    entries = gateway.registry.list("default", family)
    shown = [
        entry.name if entry.status is RegistrationStatus.ACTIVE else f"{entry.name} ({entry.status.value})"
        for entry in entries[:NAMES_SHOWN_MAX]
    ]
    more = [f"and {len(entries) - NAMES_SHOWN_MAX} more"] if len(entries) > NAMES_SHOWN_MAX else []
    return ", ".join([*shown, *more]) or "none yet"


def _describe_sandbox(isolation: Isolation) -> str:
    return "isolated by bubblewrap" if isolation.is_strong else f"weaker, isolated by its interpreter alone: {isolation.weakness}"


def _describe_issuers(gateway: Gateway) -> str:
    settings = gateway.settings
    issuers = [issuer.issuer for issuer in settings.identity.issuers]
    if settings.is_development:
        issuers.append("anyone with a token of the development issuer: for one machine, not for a network")
    return ", ".join(issuers) or "none: set identity.issuers"
