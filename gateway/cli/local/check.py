"""check: verifies whether the gateway can run on this machine, and says what to do if it can't."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandError, CommandFailed
from gateway.cli.local import installation as home
from gateway.cli.local.checks import configuration as examine

if TYPE_CHECKING:
    from gateway.server.settings import Settings

DISTRIBUTION = "interlock-gateway"
COLLECTOR_SECONDS = 3.0  # to connect to the collector of traces
PACKAGES = ("gateway", "adapters", "registry", "policies")
MIGRATE_TODO = "the next start of the gateway migrates it; interlock migrate does it now"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. A `todo` with `ok` is a recommendation; without `ok` it says how to solve the problem."""

    name: str
    ok: bool
    detail: str
    todo: str = ""


def check(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Verify settings, packages, folders, keys, database, policies and documents of workflows."""
    with screen.show_progress("checking…"):
        findings = list(collect_findings(config))
    bad = [finding for finding in findings if not finding.ok]
    if as_json:
        screen.print_json({"ok": not bad, "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [(f.name, "problem" if not f.ok else "look" if f.todo else "ok", f.detail, f.todo) for f in findings]
        screen.print_table(["check", "outcome", "found", "what to do"], rows)
    if bad:
        raise CommandFailed(f"{len(bad)} of {len(findings)} checks found a problem")


def collect_findings(config: Path | None) -> Iterator[Finding]:
    """Yields the findings one by one. Unusable settings end the checks."""
    yield from check_package_owners()
    try:
        chosen = home.load_settings(config)
    except CommandError as stop:
        yield Finding("settings", False, stop.message, "correct the setting")
        return
    yield Finding("settings", True, f"{chosen.public_url}, development issuer {'on' if chosen.is_development else 'off'}")
    for trouble in examine.find_problems(chosen, os.environ):
        yield Finding(trouble.field, not trouble.is_fatal, trouble.problem, trouble.todo)
    checks: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
        ("home", _check_home),
        ("keys", _check_keys),
        ("vault keys", _check_vault),
        ("database", _check_database),
        ("policies", _check_policies),
        ("sandbox", _check_sandbox),
        ("traces", _check_traces),
    )
    for name, look in checks:
        try:
            yield look(chosen)
        except CommandError as stop:
            yield Finding(name, False, stop.message, stop.todo)
        except OSError as error:
            yield Finding(name, False, str(error), "check owner and modes of this path")
    yield from _check_providers(chosen)
    yield from check_workflow_documents(chosen)


def _check_providers(settings: "Settings") -> Iterator[Finding]:
    """Asks the identity providers of sign-in for their metadata."""
    if settings.sign_in.providers:
        from gateway.cli.local.checks.sign_in import ask_providers

        yield from (Finding(each.name, each.is_usable, each.detail, each.todo) for each in ask_providers(settings))


def check_package_owners() -> Iterator[Finding]:
    """Checks that no other distribution installs packages of the same names, which would overwrite or shadow the gateway's."""
    from importlib.metadata import packages_distributions
    from importlib.util import find_spec

    product_folder = Path(__file__).parents[3]
    owned = packages_distributions()
    for package in PACKAGES:
        others = sorted(set(owned.get(package, [])) - {DISTRIBUTION})
        spec = find_spec(package)
        found = Path(spec.origin).parents[1] if spec and spec.origin else None
        if others:
            yield Finding(
                f"package {package}", False, f"also owned by {', '.join(others)}", f"pip uninstall {' '.join(others)}; install again"
            )
        elif found != product_folder:
            yield Finding(
                f"package {package}",
                False,
                f"comes from {found}, not from {product_folder}",
                "install the gateway in a virtual environment of its own",
            )
        else:
            yield Finding(f"package {package}", True, f"{DISTRIBUTION}, in {product_folder}")


def _check_home(settings: "Settings") -> Finding:
    from gateway.storage.files.start_failures import WRITE_TODO

    if not settings.home.exists() and not settings.home.is_symlink():
        ancestor = next(folder for folder in settings.home.absolute().parents if folder.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
            problem = f"{settings.home.absolute()} does not exist, and this user can't create it in {ancestor}"
            return Finding("home", False, problem, f"set INTERLOCK_HOME to a folder of yours, or {WRITE_TODO}")
        return Finding("home", True, f"{settings.home.absolute()} will be created by interlock serve")
    if not settings.home.is_dir():
        return Finding("home", False, f"{settings.home} is not a folder", "set INTERLOCK_HOME to a folder")
    mode = stat.S_IMODE(settings.home.stat().st_mode)
    if mode & 0o002:
        return Finding("home", False, f"{settings.home} is writable by all users", f"chmod 700 {settings.home}")
    if not os.access(settings.home, os.W_OK | os.X_OK):
        problem = f"{settings.home.absolute()} can't be written by this user, or is on a file system that is mounted read-only"
        return Finding("home", False, problem, WRITE_TODO)
    return Finding("home", True, f"{settings.home.absolute()}")


def _check_keys(settings: "Settings") -> Finding:
    folder = settings.home / "keys"
    if not folder.exists():
        return Finding("keys", True, "will be created by interlock serve")
    for path in (folder, *sorted(folder.glob("*.json"))):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding("keys", False, f"{path} is accessible to other users", f"chmod go= {path}; then interlock keys rotate")
    return Finding("keys", True, f"{home.open_signing_keys(settings).active_kid} signs")


def _check_vault(settings: "Settings") -> Finding:
    if not settings.vault.keys and not (settings.home / "keys" / "vault").exists():
        return Finding("vault keys", True, "will be created by interlock serve")
    home.open_vault_keys(settings)
    return Finding("vault keys", True, "from vault.keys" if settings.vault.keys else f"in {settings.home / 'keys' / 'vault'}")


def _check_database(settings: "Settings") -> Finding:
    from gateway.server.composition.storage import check_revision
    from gateway.storage.database import Database, engine_for
    from gateway.storage.database_start import DatabaseUnusable
    from gateway.storage.files.lost_records import refuse_lost_records
    from gateway.storage.migrations import HEAD

    file, heads = home.sqlite_file(settings), settings.home / "audit.heads"
    database = Database(engine_for(settings.database_url))
    try:
        missing = refuse_lost_records(database.engine, heads, home.open_signing_keys(settings)) if heads.exists() else 0
        if file is not None and not file.exists():
            return Finding("database", True, "will be created by interlock serve")
        with home.connect_to_database(settings) as connection:
            connection.exec_driver_sql("SELECT 1")
        revision = check_revision(database)
    except DatabaseUnusable as error:
        return Finding("database", False, str(error), error.todo)
    finally:
        database.close()
    if missing:
        detail = f"{missing} chains of audit records that {heads} proves are missing: an older backup was restored"
        return Finding("database", True, detail, "interlock audit verify")
    if revision < HEAD:
        return Finding("database", True, f"at {revision or 'nothing'}, this version expects {HEAD}", MIGRATE_TODO)
    return Finding("database", True, f"at {revision}" if revision == HEAD else f"at {revision}, on which this version ({HEAD}) works too")


def _check_policies(settings: "Settings") -> Finding:
    from gateway.cli.local.policy import doubts_about
    from policies.cedar.engine import BadPolicy, load_rules

    try:
        rules = load_rules(settings.roles, Path(settings.policies) if settings.policies else None)
    except BadPolicy as error:
        return Finding("policies", False, error.describe_in(settings.policies), "correct the file; interlock policy check")
    doubts = "; ".join(doubts_about(settings, rules))
    return Finding("policies", True, f"{len(rules.id_by_key)} policies, version {rules.version}", doubts)


def check_workflow_documents(settings: "Settings") -> Iterator[Finding]:
    """Checks each document of the folder `workflows` by itself. The gateway checks at start what they name."""
    from gateway.cli.local.checks.workflows import refused_documents

    if not settings.workflows or not os.access(settings.workflows, os.R_OK | os.X_OK) or not Path(settings.workflows).is_dir():
        return
    refused, count = refused_documents(settings)
    for each in refused:
        detail = "; ".join(screen.problem_lines(each.to_document()["problems"]))
        yield Finding(f"workflow {each.file}", False, detail, f"correct {Path(settings.workflows) / each.file}")
    if not refused:
        yield Finding("workflows", True, f"{count} without mistakes; what they name is checked at start")


def _check_traces(settings: "Settings") -> Finding:
    """Whether the collector that the environment names can be reached; without one no traces are exported."""
    address = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        unused = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT alone exports nothing: set OTEL_EXPORTER_OTLP_ENDPOINT" if address else ""
        return Finding("traces", True, "not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set", unused)
    found = urlsplit(address)
    if found.scheme not in ("http", "https") or not found.hostname:
        return Finding("traces", False, f"{address!r} is not an address", "set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318")
    try:
        socket.create_connection((found.hostname, found.port or (443 if found.scheme == "https" else 80)), COLLECTOR_SECONDS).close()
    except OSError as error:
        todo = "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; the gateway runs without it, and its traces are lost"
        return Finding("traces", True, f"the collector at {found.hostname} can't be reached: {error.strerror or error}", todo)
    return Finding("traces", True, f"{settings.telemetry.sample:.0%} of ordinary requests, and all that fail, to {found.hostname}")


def _check_sandbox(settings: "Settings") -> Finding:
    from adapters.sandbox.isolation import find_isolation
    from gateway.server.composition.built_in.sandbox import is_offered

    found, todo = find_isolation(), "apt-get install bubblewrap, and allow user namespaces"
    if settings.sandbox == "off":
        return Finding("sandbox", True, "off")
    if not is_offered(settings, found):
        return Finding(
            "sandbox",
            settings.sandbox == "auto",
            f"not offered: {found.weakness}",
            todo if found.is_available else "install pydantic-monty",
        )
    return Finding(
        "sandbox", True, f"isolated by {found.kind}" + (f": {found.weakness}" if found.weakness else ""), "" if found.is_strong else todo
    )
