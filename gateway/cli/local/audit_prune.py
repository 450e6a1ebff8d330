"""audit prune: what is older than a day of your choice goes from the audit, in a way that the rest still proves."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import Failed, WrongUsage
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.server.settings import Settings
    from policies.audit.cuts import Cut
    from policies.audit.heads import HeadsFile


def prune(
    before: Annotated[str, typer.Option(help="A day, such as 2026-01-31: what is older goes (UTC).")],
    archive: Annotated[Path | None, typer.Option(help="Where to write what goes, one JSON document a line; a new file.")] = None,
    confirmed: Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said what would go.")] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Remove old records, and sign what was removed: the rest stays provable. SQLite: stop the gateway first."""
    moment, chosen = _moment(before), home.settings(config)
    from policies.audit.cuts import carry_out, due
    from policies.audit.cuts import records as going

    with _alone(chosen) if confirmed else nullcontext(), home.reading(chosen, only=not confirmed) as connection:
        cuts = due(connection, moment)
        if confirmed and cuts:
            if archive is not None:
                _archive(archive, (row for cut in cuts for row in going(connection, cut)))
            heads = _state(chosen, connection, cuts)
            with screen.progress("removing…"):
                for cut in cuts:
                    carry_out(connection, cut)
            heads.compact()  # the last head of each chain is of a record that stays, and the statements stay too
    count = sum(cut.records for cut in cuts)
    if as_json:
        screen.data({"removed": confirmed, "records": count, "cuts": [cut.claims(0) for cut in cuts]})
    elif not confirmed:
        screen.say(f"{screen.counted(count, 'record')} of {screen.counted(len(cuts), 'chain')} would go; add --yes to do it")
    else:
        gone = f"{screen.counted(count, 'record')} of {screen.counted(len(cuts), 'chain')} removed"
        screen.say(f"{gone}; interlock audit verify shows that nothing else is missing")


def _moment(day: str) -> int:
    """Microseconds since 1970. Raises WrongUsage."""
    try:
        at = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise WrongUsage(f"--before {day}: a day is expected", "such as --before 2026-01-31") from None
    if at > datetime.now(UTC):
        raise WrongUsage(f"--before {day} is in the future", "the audit of today stays")
    return int(at.timestamp() * 1e6)


@contextmanager
def _alone(chosen: "Settings") -> Iterator[None]:
    """SQLite is written by one process."""
    from gateway.storage.files.data_folder import HomeInUse, locked
    from gateway.storage.files.database_file import lock_database_file

    if home.sqlite_file(chosen) is None:
        yield
        return
    try:
        lock, file_lock = locked(chosen.home), lock_database_file(chosen.database_url, chosen.home)
    except HomeInUse as error:
        raise Failed(str(error), "stop the gateway, prune, and start it again") from error
    except OSError as error:
        raise Failed(f"{chosen.home}: {error.strerror}", "is INTERLOCK_HOME right?") from error
    with lock, file_lock or nullcontext():
        yield


def _archive(path: Path, rows: Iterable[object]) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
        with path.open("w", encoding="utf-8") as target:
            target.writelines(f"{json.dumps(row)}\n" for row in rows)
    except FileExistsError:
        raise WrongUsage(f"{path} is there already", "name a new file") from None
    except OSError as error:
        raise Failed(f"{path} was not written: {error.strerror}", "nothing was removed") from error


def _state(chosen: "Settings", connection: "Connection", cuts: "list[Cut]") -> "HeadsFile":
    """Signed statements come first, durably, beside the heads; and the audit itself tells of each cut, in a chain of its own."""
    from policies.audit.cuts import TYPE
    from policies.audit.heads import HeadsFile
    from policies.audit.log import Audit
    from policies.ids import new_id, now_us

    heads = HeadsFile(chosen.home / "audit.heads", home.keys(chosen), now_us)
    audit, batch = Audit(new_id("a"), now_us), _Rows(connection)
    audit.open(connection, batch)
    for cut in cuts:
        told = cut.claims(now_us())
        heads.note(told, TYPE)
        audit.append(batch, {"kind": "cut", "tenant": "", "decision_id": "", "txn": "", "cut": told})
    connection.commit()
    audit.committed()
    heads.keep(audit.head)
    return heads


class _Rows:
    """Inserts at once."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def add(self, table: object, row: dict[str, object]) -> None:
        from policies.tables import audit

        self._connection.execute(audit.insert().values(row))
