"""The support bundle: what others need to help, in one archive, without secrets and without texts of people and agents."""

import json
import os
import platform
import sqlite3
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from adapters.version import VERSION, find_commit
from gateway.cli.exit_codes import CommandError, CommandFailed
from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding
from gateway.cli.local.doctor.running import Running

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.server.settings import Settings

LOG_BYTES: Final = 4 << 20  # of the end of a log
LOG_LINES: Final = 2000
WORD_MAX: Final = 200  # characters of one value of a log line
SHORTEST_SECRET: Final = 6  # characters; shorter values would be found in ordinary words
HIDDEN: Final = "[hidden]"
PACKAGES: Final = (
    "a2a-sdk",
    "aiohttp",
    "alembic",
    "cedarpy",
    "cryptography",
    "fastapi",
    "psycopg",
    "pydantic",
    "sqlalchemy",
    "uvicorn",
    "uvloop",
)
# Members of log lines that the gateway writes itself. Others may quote an agent, a server or a person.
LOG_MEMBERS: Final = (
    *("at", "level", "event", "logger", "trace_id", "seconds", "where", "count", "attempt", "after_seconds", "left_out"),
    *("pid", "exit_code", "signal"),
)
SLOW_EVENTS: Final = ("event_loop_blocked", "event_loop_stuck")
README: Final = """A support bundle of Interlock.

versions.json    the gateway, Python, the system, libraries
settings.json    the settings in force and where they come from; what may be a secret is not shown
findings.json    what interlock doctor found
metrics.txt      /metrics of the running gateway, or why it could not be read
database.json    migration, size, rows of each table
slow.json        what blocked the event loop, by place in the code
log.jsonl        the last lines of the log, if a file was named: time, event, place; no texts of people, agents and servers

It has no tokens, passwords, keys, messages, arguments or results. Names of agents, servers, tenants and hosts are in it.
"""


def write_bundle(path: Path, config: Path | None, findings: Sequence[DoctorFinding], running: Running | None, log: Path | None) -> None:
    """Writes the bundle to a new file that only its owner can read. Raises CommandFailed for a file that exists or can't be written."""
    try:
        settings = home.load_settings(config)
    except CommandError:
        settings = None
    parts = dict(_collect_parts(settings, findings, running, log))
    secrets = find_secrets(os.environ, settings)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, text in parts.items():
                archive.writestr(zipfile.ZipInfo(name), hide_secrets(text, secrets), zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise CommandFailed(f"{path} can't be written: {error.strerror}", "name a new file in a folder of yours") from error


def _collect_parts(
    settings: "Settings | None", findings: Sequence[DoctorFinding], running: Running | None, log: Path | None
) -> Iterator[tuple[str, str]]:
    lines = read_log(log) if log else []
    yield "README.txt", README
    yield "versions.json", _encode(_describe_versions())
    yield "findings.json", _encode([finding.to_document() for finding in findings])
    yield "metrics.txt", (running.metrics or f"# not read: {running.problem}\n") if running else "# not read: the settings can't be used\n"
    yield "slow.json", _encode(_sum_slow_places(lines))
    yield "log.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines)
    if settings is not None:
        from gateway.server.sections.in_force import describe_settings

        yield "settings.json", _encode(describe_settings(settings))
        yield "database.json", _encode(_describe_database(settings))


def _encode(document: Any) -> str:
    return json.dumps(document, indent=2, default=str) + "\n"


def _describe_versions() -> dict[str, Any]:
    return {
        "interlock": VERSION,
        "commit": find_commit(),
        "python": sys.version,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version_of(name) for name in PACKAGES},
    }


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _describe_database(settings: "Settings") -> dict[str, Any]:
    """Returns migration, size and rows of each table; of a database that can't be read, the problem."""
    from gateway.storage.migrations import HEAD

    file = home.sqlite_file(settings)
    try:
        with home.connect_to_database(settings) as connection:
            revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            server, rows = _server_version(connection), dict(_count_rows(connection))
    except CommandError as error:
        return {"expected": HEAD, "problem": error.message}
    size = file.stat().st_size if file else rows.pop("", None)
    return {"expected": HEAD, "migration": revision, "bytes": size, "server": server, "tables": rows}


def _server_version(connection: "Connection") -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    return str(connection.exec_driver_sql("SELECT version()").scalar())


def _count_rows(connection: "Connection") -> Iterator[tuple[str, Any]]:
    """Yields the rows of each table; on PostgreSQL its estimate and the bytes, and under an empty name the bytes of the database."""
    if connection.dialect.name == "sqlite":
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").scalars().all()
        for name in names:
            yield name, connection.exec_driver_sql(f'SELECT COUNT(*) FROM "{name}"').scalar()  # noqa: S608 (a name of the schema)
        return
    statement = "SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid) AS bytes FROM pg_stat_user_tables ORDER BY relname"
    for row in connection.exec_driver_sql(statement):
        yield row.relname, {"rows": row.n_live_tup, "dead": row.n_dead_tup, "bytes": row.bytes}
    yield "", connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the last lines of a log, each with the members that the gateway itself writes. Raises CommandFailed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            texts = file.read(LOG_BYTES).decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError as error:
        raise CommandFailed(f"the log {path} can't be read: {error.strerror}", "name a file that this user may read") from error
    return [line for text in texts if (line := _keep_own_members(text))]


def _keep_own_members(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(line, dict):
        return {}
    kept = {name: line[name] for name in LOG_MEMBERS if isinstance(line.get(name), int | float)}
    kept |= {name: line[name][:WORD_MAX] for name in LOG_MEMBERS if isinstance(line.get(name), str)}
    if isinstance(exception := line.get("exception"), dict):
        kept["exception"] = {name: str(exception.get(name, ""))[: 5 * WORD_MAX] for name in ("error", "where")}
    return kept if line.get("logger") is None else {name: kept[name] for name in kept if name != "event"}


def _sum_slow_places(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what blocked the event loop by its innermost place, the longest first."""
    seconds: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for line in lines:
        if line.get("event") in SLOW_EVENTS:
            place = str(line.get("where", "")).partition(" < ")[0]
            seconds[place] += line.get("seconds", 0)
            times[place] += 1
    return [{"where": place, "times": times[place], "seconds": round(total, 2)} for place, total in seconds.most_common()]


def find_secrets(environment: Mapping[str, str], settings: "Settings | None") -> frozenset[str]:
    """Returns the values of variables and settings that may be secrets, so that none of them is in any part of the bundle."""
    from gateway.telemetry.logs import SECRET_NAME

    found = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    for value in _list_texts(settings.model_dump()) if settings is not None else ():
        if value.startswith("env:"):
            found.add(environment.get(value.removeprefix("env:"), ""))
        elif value.startswith("file:"):
            found.add(_read_secret(value.removeprefix("file:")))
        elif "@" in value:
            found.add(_password_in(value))
    found |= {value for name, value in _name_texts(settings.model_dump() if settings is not None else {}) if SECRET_NAME.search(name)}
    references = ("env:", "file:")
    return frozenset(value for value in found if len(value) >= SHORTEST_SECRET and not value.startswith(references))


def _read_secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _password_in(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _list_texts(value: Any) -> Iterator[str]:
    yield from (text for _, text in _name_texts(value))


def _name_texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields each text of nested settings with the names that lead to it."""
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from _name_texts(member, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _name_texts(member, name)
    elif isinstance(value, str):
        yield name, value


def hide_secrets(text: str, secrets: frozenset[str]) -> str:
    """Returns the text without known secrets, and without what looks like a token or a password in a URL."""
    from gateway.telemetry.logs import hide_secret_texts

    for form in sorted({form for secret in secrets for form in _forms_of(secret)}, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return hide_secret_texts(text)


def _forms_of(secret: str) -> Iterator[str]:
    """Yields a secret as it is, in JSON, and in a URL."""
    for form in (secret, unquote(secret)):
        yield from (json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1], quote(form, safe=""))
        if len(form) >= SHORTEST_SECRET:
            yield form
