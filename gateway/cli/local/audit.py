"""audit: the audit trail, verified, exported and watched from beside the database."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import Failed, WrongUsage
from gateway.cli.local import audit_prune as retention
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from gateway.server.settings import Settings
    from policies.audit.heads import Verifier
    from policies.audit.proof import Proof

# What a record that is no decision tells of itself in one line, in this order.
TELLING = (
    "verb",
    "verdict",
    "act",
    "family",
    "name",
    "approval",
    "agent",
    "status",
    "resource",
    "grant_id",
    "limit",
    "error",
    "reason",
    "count",
)
LOOK_EVERY = 0.5  # seconds between two looks of `tail --follow`
app = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.command()(retention.prune)


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export (default: the database itself).")] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Heads that you kept elsewhere, besides those of the export or of INTERLOCK_HOME.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="The public keys that you trust (interlock keys export), for a FILE elsewhere.")] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Take a trail without any record for sound.")] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Find any edit, deletion or reordering, a cut up to the last kept head, and a trail that has no records at all."""
    if keys is not None and file is None:
        raise WrongUsage("--keys is for a FILE", "interlock audit export -o FILE; interlock audit verify FILE --keys KEYS")
    with screen.progress("verifying…"):
        if file:
            proof = _proof_of_file(file, heads, _trusted(keys, config), allow_empty=allow_empty)
        else:
            proof = _proof_of_database(home.settings(config), heads, allow_empty=allow_empty)
    flaws = [{"chain": flaw.chain, "seq": flaw.seq, "problem": flaw.problem} for flaw in proof.flaws]
    if as_json:
        screen.data(
            {
                "sound": proof.sound,
                "records": proof.records,
                "chains": proof.chains,
                "heads": proof.heads,
                "cuts": proof.cuts,
                "unwitnessed": proof.unwitnessed,
                "flaws": flaws,
            }
        )
    seen = ", ".join(screen.counted(number, what) for number, what in _counts(proof))
    if not proof.sound:
        if not as_json:
            screen.table(["chain", "record", "problem"], [list(flaw.values()) for flaw in flaws])
        raise Failed(
            f"the audit trail is not sound: {screen.counted(len(flaws), 'flaw')} in {seen}",
            "keep this copy; compare it with an export kept elsewhere",
        )
    if not as_json:
        screen.say(f"the audit trail is sound: {seen}")
        if proof.unwitnessed:
            screen.say(f"{screen.counted(proof.unwitnessed, 'record')} since the last signed head, which nothing witnesses yet")


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write (default: standard output).")] = None,
    config: home.Config = None,
) -> None:
    """Write every record and the signed heads, one JSON document a line, as `verify FILE` reads them."""
    chosen = home.settings(config)
    signed = _kept_heads(chosen)
    from policies.audit.proof import rows_of

    with home.reading(chosen) as connection:
        lines = (json.dumps(line) for line in _exported(rows_of(connection), signed))
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        try:
            output.touch(mode=0o600)
            with output.open("w", encoding="utf-8") as target, screen.progress(f"writing {output}…"):
                target.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise Failed(f"{output} was not written: {error.strerror}") from error
    screen.note(
        f"written to {output}; check it beside these keys, or anywhere with --keys (interlock keys export): interlock audit verify {output}"
    )


@app.command()
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last records to show.", min=1, max=10_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new record until interrupted.")] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Show the last records."""
    chosen = home.settings(config)
    with home.reading(chosen) as connection:
        shown: dict[str, int] = {}
        while True:
            fresh = _newest(connection, shown, lines)
            connection.rollback()
            shown |= {record["chain"]: max(record["seq"], shown.get(record["chain"], 0)) for record in fresh}
            for record in fresh:
                screen.data_line(record) if as_json else screen.say(_line(record))
            if not follow:
                return
            time.sleep(LOOK_EVERY)


def _counts(proof: "Proof") -> list[tuple[int, str]]:
    cuts = [(proof.cuts, "cut")] if proof.cuts else []
    return [(proof.records, "record"), (proof.chains, "chain"), (proof.heads, "signed head"), *cuts]


def _trusted(keys: Path | None, config: Path | None) -> "Verifier":
    """The keys of a file, which needs no gateway and no database, or those of this machine."""
    if keys is None:
        return home.keys(home.settings(config))
    from policies.keys.jwks import BadKeySet
    from policies.keys.published import PublishedKeys

    try:
        return PublishedKeys(json.loads(keys.read_text()))
    except (OSError, ValueError, BadKeySet) as error:
        raise WrongUsage(
            f"{keys} is no set of public keys: {error}", "make one beside the gateway: interlock keys export > FILE"
        ) from error


def _proof_of_database(chosen: "Settings", heads: Path | None, *, allow_empty: bool) -> "Proof":
    """The heads are read first: each names a record that was durable by then. A chain that began meanwhile has its head afterwards."""
    from policies.audit.proof import prove, rows_of

    signed = [*_kept_heads(chosen), *_heads_in(heads)]
    with home.reading(chosen) as connection:
        later = (line for _ in range(1) for line in _kept_heads(chosen))  # read when asked for, which is after the rows
        return prove(rows_of(connection), signed, home.keys(chosen), later, allow_empty=allow_empty)


def _proof_of_file(file: Path, heads: Path | None, trusted: "Verifier", *, allow_empty: bool) -> "Proof":
    from policies.audit.proof import prove

    rows: list[Mapping[str, Any]] = []
    signed = _heads_in(heads)
    try:
        with file.open("rb") as source:
            for number, line in enumerate(source, 1):
                document = _document(file, number, line)
                if document.keys() == {"head"}:
                    signed.append(str(document["head"]))
                else:
                    rows.append(document)
    except OSError as error:
        raise WrongUsage(f"{file} can't be read: {error.strerror}", "make an export: interlock audit export -o FILE") from error
    return prove(rows, signed, trusted, allow_empty=allow_empty)


def _document(file: Path, number: int, line: bytes) -> dict[str, Any]:
    """A record with exactly the members that it was exported with, or a head.

    Any other line was edited: it proves nothing and is missed in its chain. So was one that has a member twice, since readers differ in
    which of the two they show, or one more, which no hash covers.
    """
    from policies.audit.proof import COLUMNS
    from policies.strict_json import BadJson, parse

    try:
        document = parse(line)
    except BadJson:
        document = None
    if isinstance(document, dict) and (document.keys() == COLUMNS or document.keys() == {"head"}):
        return document
    return {"chain": f"{file.name} line {number}", "seq": None, "body": "", "prev": "", "hash": ""}


def _exported(rows: Iterable[Mapping[str, Any]], signed: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    yield from rows
    for head in signed:
        yield {"head": head}


def _kept_heads(chosen: "Settings") -> list[str]:
    from policies.audit.heads import read_heads

    return read_heads(chosen.home / "audit.heads")


def _heads_in(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{path} can't be read as a file of heads", "give a copy of audit.heads") from error


def _newest(connection: Any, shown: Mapping[str, int], limit: int) -> list[dict[str, Any]]:
    """The last records that were not shown yet, oldest first."""
    from sqlalchemy import and_, not_, or_, select

    from policies.tables import audit

    seen = or_(*(and_(audit.c.chain == chain, audit.c.seq <= seq) for chain, seq in shown.items())) if shown else None
    query = select(audit.c.body).order_by(audit.c.at.desc(), audit.c.chain, audit.c.seq.desc()).limit(limit)
    rows = connection.execute(query if seen is None else query.where(not_(seen))).all()
    return [json.loads(row.body) for row in reversed(rows)]


def _told(record: Mapping[str, Any]) -> str:
    """Who did what, of a record that is neither a decision nor an outcome."""
    who = (record.get("principal") or {}).get("subject", "")
    target = record.get("target") or {}
    said = [target.get("kind", ""), target.get("name", ""), *(record.get(name) or "" for name in TELLING)]
    what = " ".join(str(each) for each in said if each and isinstance(each, str | int))
    return ": ".join(filter(None, (who, what))) or f"chain {record['chain']}, record {record['seq']}"


def _line(record: Mapping[str, Any]) -> str:
    """A record as one line for people."""
    at = datetime.fromtimestamp(record["at"] / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if record["kind"] == "outcome":
        return f"{at}  {record['outcome']:<8} {record['decision_id']}  after {record['duration_us'] / 1000:.1f} ms"
    if record["kind"] != "decision":
        return f"{at}  {record['kind']:<8} {_told(record)}"
    who = " > ".join([record["principal"]["subject"], *(link["agent"] for link in record["path"])])
    ruling = "allowed" if record["allowed"] else "refused"
    why = "" if record["allowed"] else f" ({record['reason_id']})"
    return f"{at}  {ruling:<8} {record['decision_id']}  {who}: {record['action']} {record['resource']}{why}"
