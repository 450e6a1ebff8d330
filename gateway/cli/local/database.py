"""db: shows how large the database is and what it consists of, deletes what is old, gives space back, and holds what must stay."""

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed
from gateway.cli.local import audit_prune
from gateway.cli.local import installation as home
from gateway.cli.state import retention

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.server.settings import Settings

ROOM = 2  # times the size of a SQLite file that its vacuum needs on the disk: a copy, and the log of its transaction
app = typer.Typer(help="The database and what is kept in it: size, prune, vacuum, hold, holds, release.", no_args_is_help=True)


@app.command()
def size(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Show the tables with their rows and bytes, the oldest row, and what `db prune` would delete. The gateway may keep running."""
    chosen = home.load_settings(config)
    with screen.show_progress("measuring…"), home.connect_to_database(chosen) as connection:
        found = _measure(chosen, connection)
    if as_json:
        screen.print_json(found)
        return
    rows = (
        (each["table"], f"{'about ' if each['estimated'] else ''}{each['rows']:,}", _format_bytes(each["bytes"]), each["oldest"] or "")
        for each in found["tables"]
        if each["rows"]
    )
    screen.print_table(["table", "rows", "size with indexes", "oldest"], rows)
    if empty := [each["bytes"] for each in found["tables"] if not each["rows"]]:
        screen.print_text(f"{screen.format_count(len(empty), 'empty table')}: {_format_bytes(sum(empty))}")
    free = "" if found["free_bytes"] is None else f", of which {_format_bytes(found['free_bytes'])} are free for new rows"
    screen.print_text(f"{_format_bytes(found['bytes'])} in all{free}")
    for tenant in found["due"]:
        screen.print_text(
            f"{tenant['tenant']}: {screen.format_count(tenant['tasks'], 'task')} last changed before {tenant['before']} are due"
        )
    if not found["due"]:
        screen.print_note("nothing is due for deletion: retention.days and retention.tasks keep everything that there is")


@app.command()
def vacuum(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Give the space of deleted rows back to the disk, and renew the statistics of queries. SQLite: stop the gateway first."""
    chosen = home.load_settings(config)
    file = home.sqlite_file(chosen)
    lock = audit_prune.exclusive_access(chosen) if file else nullcontext()
    with lock, home.connect_to_database(chosen, read_only=False) as connection, screen.show_progress("vacuuming, which can take minutes…"):
        before = _bytes_of(connection)
        if file is not None:
            _check_room(file, before)
        connection.rollback()
        if file is None:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM (ANALYZE)")
        else:
            cursor = connection.connection.cursor()  # outside a transaction
            for statement in ("VACUUM", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"):
                cursor.execute(statement)
        after = _bytes_of(connection)
    if as_json:
        screen.print_json({"bytes_before": before, "bytes_after": after})
    else:
        screen.print_text(f"{_format_bytes(before)} before, {_format_bytes(after)} now")


def _measure(settings: "Settings", connection: "Connection") -> dict[str, Any]:
    """Returns the document that --json prints."""
    from gateway.audit.retention.selection import count_due, find_cutoff, list_tenants
    from gateway.audit.retention.sizes import read_database_bytes, read_free_bytes, read_table_sizes
    from gateway.server.composition.access.retention import terms_of
    from gateway.storage.tables import tasks
    from policies.ids import now_us

    tables = [
        {"table": each.table, "rows": each.rows, "estimated": each.is_estimate, "bytes": each.bytes, "oldest": _format_moment(each.oldest)}
        for each in read_table_sizes(connection)
    ]
    terms, due = terms_of(settings.retention), []
    for tenant in list_tenants(connection, tasks.c.tenant):
        cutoff = find_cutoff(connection, tenant, terms.of(tenant), now_us())
        count = 0 if cutoff is None else count_due(connection, tenant, cutoff)
        due += [{"tenant": tenant, "tasks": count, "before": _format_moment(cutoff)}] if count else []
    return {"bytes": read_database_bytes(connection), "free_bytes": read_free_bytes(connection), "tables": tables, "due": due}


def _bytes_of(connection: "Connection") -> int:
    from gateway.audit.retention.sizes import read_database_bytes

    return read_database_bytes(connection)


def _check_room(file: Path, size: int) -> None:
    """Raises CommandFailed where SQLite could not write its copy: VACUUM writes the whole database anew beside it."""
    import shutil

    free = shutil.disk_usage(file.parent).free
    if free < ROOM * size:
        needed = f"{_format_bytes(ROOM * size)} are needed beside {file}, and {_format_bytes(free)} are free"
        raise CommandFailed(
            f"there is too little room to write the database anew: {needed}", "free some space, or move the database to a larger disk"
        )


def _format_moment(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _format_bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


retention.register(app)
