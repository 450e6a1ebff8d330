"""audit prune: removes audit records older than a day, so that the rest can still be verified."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.days import DAY_FORMS, parse_day
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from gateway.server.settings import Settings
    from policies.audit.cuts import AuditCut
    from policies.audit.heads import HeadsFile


def prune(
    before: Annotated[str, typer.Option(help=f"A day (UTC): {DAY_FORMS}. Older records are removed.", metavar="DAY")],
    archive: Annotated[Path | None, typer.Option(help="A new file for the removed records, one JSON document per line.")] = None,
    confirmed: Annotated[
        bool, typer.Option("--yes", help="Remove the records; without it the command only shows what it would remove.")
    ] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Remove old records, and sign what was removed, so that the rest can be verified. SQLite: stop the gateway first."""
    moment, chosen = _parse_before(before), home.load_settings(config)
    from policies.audit.cuts import delete_records, find_due_cuts
    from policies.audit.cuts import read_records as going

    with exclusive_access(chosen) if confirmed else nullcontext(), home.connect_to_database(chosen, read_only=not confirmed) as connection:
        _refuse_during_holds(connection)
        cuts = find_due_cuts(connection, moment)
        if confirmed and cuts:
            if archive is not None:
                _write_archive(archive, (row for cut in cuts for row in going(connection, cut)))
            heads = _record_cuts(chosen, connection, cuts)
            with screen.show_progress("removing…"):
                for cut in cuts:
                    delete_records(connection, cut)
            heads.compact()  # the last head of each chain names a remaining record, and the statements remain
    count = sum(cut.records for cut in cuts)
    if as_json:
        screen.print_json({"removed": confirmed, "records": count, "cuts": [cut.claims(0) for cut in cuts]})
    elif not confirmed:
        screen.print_text(
            f"{screen.format_count(count, 'record')} of {screen.format_count(len(cuts), 'chain')} would be removed; add --yes to do it"
        )
    else:
        gone = f"{screen.format_count(count, 'record')} of {screen.format_count(len(cuts), 'chain')} removed"
        screen.print_text(f"{gone}; interlock audit verify shows that nothing else is missing")


def _refuse_during_holds(connection: "Connection") -> None:
    """Raises CommandFailed while there are legal holds: a chain has the records of all people and tenants, and is cut as a whole."""
    from sqlalchemy import func, select

    from gateway.storage.tables import legal_holds

    if count := connection.execute(select(func.count()).select_from(legal_holds)).scalar_one():
        in_force = screen.format_count(count, "legal hold")
        raise CommandFailed(f"{in_force} in force: nothing was removed", "interlock db holds; interlock db release ID")


def _parse_before(text: str) -> int:
    """Returns a day as microseconds since 1970. Raises WrongUsage."""
    try:
        day = parse_day(text)
    except typer.BadParameter as error:
        raise WrongUsage(f"--before {text}: {error}", "such as --before 2026-01-31") from None
    at = datetime.combine(day, time(), UTC)
    if at > datetime.now(UTC):
        raise WrongUsage(f"--before {text} is in the future", "today's records can't be removed")
    return int(at.timestamp() * 1e6)


@contextmanager
def exclusive_access(settings: "Settings") -> Iterator[None]:
    """Locks the home and the file of a SQLite database, which one process may write. Raises CommandFailed."""
    from gateway.storage.files.data_folder import HomeInUse, lock_home
    from gateway.storage.files.database_file import lock_database_file

    if home.sqlite_file(settings) is None:
        yield
        return
    try:
        lock, file_lock = lock_home(settings.home), lock_database_file(settings.database_url, settings.home)
    except HomeInUse as error:
        raise CommandFailed(str(error), "stop the gateway, prune, and start it again") from error
    except OSError as error:
        raise CommandFailed(f"{settings.home}: {error.strerror}", "is INTERLOCK_HOME right?") from error
    with lock, file_lock or nullcontext():
        yield


def _write_archive(path: Path, rows: Iterable[object]) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
        with path.open("w", encoding="utf-8") as target:
            target.writelines(f"{json.dumps(row)}\n" for row in rows)
    except FileExistsError:
        raise WrongUsage(f"{path} exists already", "name a new file") from None
    except OSError as error:
        raise CommandFailed(f"{path} was not written: {error.strerror}", "nothing was removed") from error


def _record_cuts(settings: "Settings", connection: "Connection", cuts: "list[AuditCut]") -> "HeadsFile":
    """Writes a signed statement of each cut beside the heads, then records each cut in a chain of its own in the audit."""
    from policies.audit.cuts import CUT_JWT_TYPE
    from policies.audit.heads import HeadsFile
    from policies.audit.log import AuditLog
    from policies.ids import new_id, now_us

    heads = HeadsFile(settings.home / "audit.heads", home.open_signing_keys(settings), now_us)
    audit, batch = AuditLog(new_id("a"), now_us), _ImmediateInserts(connection)
    audit.begin_chain(connection, batch)
    for cut in cuts:
        claims = cut.claims(now_us())
        heads.write_statement(claims, CUT_JWT_TYPE)
        audit.record(batch, {"kind": "cut", "tenant": "", "decision_id": "", "txn": "", "cut": claims})
    connection.commit()
    audit.on_commit()
    heads.write_head(audit.head)
    return heads


class _ImmediateInserts:
    """A batch that inserts each row at once."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def insert(self, target: "Table", values: tuple[object, ...]) -> None:
        self._connection.execute(target.insert().values(values))
