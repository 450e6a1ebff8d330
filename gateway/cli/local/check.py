"""check: whether the gateway could run here, and what to do where it could not."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import output as screen
from gateway.cli.exit_codes import Failed, Stop
from gateway.cli.local import configuration_check as examine
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from gateway.server.settings import Settings

DISTRIBUTION = "interlock-gateway"
PACKAGES = ("gateway", "adapters", "registry", "policies")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `todo` is empty when it is in order; with `ok` it is something to look at all the same."""

    name: str
    ok: bool
    detail: str
    todo: str = ""


def check(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Verify settings, packages, folders, keys, database and policies."""
    with screen.progress("checking…"):
        findings = list(findings_of(config))
    bad = [finding for finding in findings if not finding.ok]
    if as_json:
        screen.data({"ok": not bad, "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [(f.name, "problem" if not f.ok else "look" if f.todo else "ok", f.detail, f.todo) for f in findings]
        screen.table(["check", "outcome", "found", "what to do"], rows)
    if bad:
        raise Failed(f"{len(bad)} of {len(findings)} checks found a problem")


def findings_of(config: Path | None) -> Iterator[Finding]:
    """Looks at one thing after another; without settings there is little else to look at."""
    yield from owners()
    try:
        chosen = home.settings(config)
    except Stop as stop:
        yield Finding("settings", False, stop.message, "correct the setting")
        return
    yield Finding("settings", True, f"{chosen.public_url}, development issuer {'on' if chosen.development else 'off'}")
    for trouble in examine.troubles(chosen, os.environ):
        yield Finding(trouble.where, not trouble.fatal, trouble.problem, trouble.todo)
    looks: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
        ("home", _home),
        ("keys", _keys),
        ("vault keys", _vault),
        ("database", _database),
        ("policies", _policies),
        ("sandbox", _sandbox),
    )
    for name, look in looks:
        try:
            yield look(chosen)
        except Stop as stop:
            yield Finding(name, False, stop.message, stop.todo)
        except OSError as error:
            yield Finding(name, False, str(error), "look at owner and modes of this path")


def owners() -> Iterator[Finding]:
    """Our top-level names are generic: another distribution with the same name would overwrite or shadow ours unseen."""
    from importlib.metadata import packages_distributions
    from importlib.util import find_spec

    here = Path(__file__).parents[3]
    owned = packages_distributions()
    for package in PACKAGES:
        others = sorted(set(owned.get(package, [])) - {DISTRIBUTION})
        spec = find_spec(package)
        found = Path(spec.origin).parents[1] if spec and spec.origin else None
        if others:
            yield Finding(
                f"package {package}", False, f"also owned by {', '.join(others)}", f"pip uninstall {' '.join(others)}; install again"
            )
        elif found != here:
            yield Finding(f"package {package}", False, f"comes from {found}, not from {here}", "run it in a virtual environment of its own")
        else:
            yield Finding(f"package {package}", True, f"{DISTRIBUTION}, in {here}")


def _home(chosen: "Settings") -> Finding:
    if not chosen.home.exists():
        return Finding("home", True, f"{chosen.home} will be made by interlock serve")
    if not chosen.home.is_dir():
        return Finding("home", False, f"{chosen.home} is no folder", "set INTERLOCK_HOME to a folder")
    mode = stat.S_IMODE(chosen.home.stat().st_mode)
    if mode & 0o002:
        return Finding("home", False, f"{chosen.home} may be written by everybody", f"chmod 700 {chosen.home}")
    return Finding("home", True, f"{chosen.home}")


def _keys(chosen: "Settings") -> Finding:
    folder = chosen.home / "keys"
    if not folder.exists():
        return Finding("keys", True, "will be made by interlock serve")
    for path in (folder, *sorted(folder.glob("*.json"))):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding("keys", False, f"{path} is open to others", f"chmod go= {path}; then interlock keys rotate")
    return Finding("keys", True, f"{home.keys(chosen).active} signs")


def _vault(chosen: "Settings") -> Finding:
    if not chosen.vault.keys and not (chosen.home / "keys" / "vault").exists():
        return Finding("vault keys", True, "will be made by interlock serve")
    home.vault_keys(chosen)
    return Finding("vault keys", True, "from vault.keys" if chosen.vault.keys else f"in {chosen.home / 'keys' / 'vault'}")


def _database(chosen: "Settings") -> Finding:
    from gateway.server.composition.storage import check_revision
    from gateway.storage.database import Database, engine_for
    from gateway.storage.database_start import DatabaseUnusable
    from gateway.storage.files.lost_records import refuse_lost_records
    from gateway.storage.migrations import HEAD

    file, heads = home.sqlite_file(chosen), chosen.home / "audit.heads"
    database = Database(engine_for(chosen.database_url))
    try:
        if heads.exists():
            refuse_lost_records(database.engine, heads, home.keys(chosen))
        if file is not None and not file.exists():
            return Finding("database", True, "will be made by interlock serve")
        with home.reading(chosen) as connection:
            connection.exec_driver_sql("SELECT 1")
        revision = check_revision(database)
    except DatabaseUnusable as error:
        return Finding("database", False, str(error), error.todo)
    finally:
        database.close()
    if revision != HEAD:
        return Finding("database", False, f"at {revision or 'nothing'}, this version expects {HEAD}", "interlock migrate")
    return Finding("database", True, f"at {revision}")


def _policies(chosen: "Settings") -> Finding:
    from policies.cedar.engine import BadPolicy, load

    try:
        rules = load(chosen.roles, Path(chosen.policies) if chosen.policies else None)
    except BadPolicy as error:
        return Finding("policies", False, str(error), "correct the file; interlock policy check")
    return Finding("policies", True, f"{len(rules.names)} policies, version {rules.version}", "; ".join(rules.doubts))


def _sandbox(chosen: "Settings") -> Finding:
    from adapters.sandbox.isolation import isolation
    from gateway.server.composition.sandbox import wanted

    found, todo = isolation(), "apt-get install bubblewrap, and allow user namespaces"
    if chosen.sandbox == "off":
        return Finding("sandbox", True, "off")
    if not wanted(chosen, found):
        return Finding("sandbox", chosen.sandbox == "auto", f"not offered: {found.why}", todo if found.works else "install pydantic-monty")
    return Finding("sandbox", True, f"isolated by {found.kind}" + (f": {found.why}" if found.why else ""), "" if found.strong else todo)
