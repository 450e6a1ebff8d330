"""audit: verifies, exports and shows the audit, read from the database of this machine."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.local import audit_prune as retention
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from gateway.server.settings import Settings
    from policies.audit.heads import StatementVerifier
    from policies.audit.proof import Proof

# Members shown in the line of a record that is not a decision, in this order.
SUMMARY_MEMBERS = (
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
POLL_SECONDS = 0.5  # seconds between two reads of `tail --follow`
app = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.command()(retention.prune)


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export (default: the database itself).")] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Signed heads kept elsewhere, besides those of the export or of INTERLOCK_HOME.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="The trusted public keys (interlock keys export), to verify a FILE on another machine.")
    ] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Accept an audit without records.")] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Find any edit, deletion or reordering, a truncation before the last kept head, and an audit without records."""
    if keys is not None and file is None:
        raise WrongUsage("--keys needs a FILE", "interlock audit export -o FILE; interlock audit verify FILE --keys KEYS")
    with screen.show_progress("verifying…"):
        if file:
            proof = _proof_of_file(file, heads, _trusted_keys(keys, config), allow_empty=allow_empty)
        else:
            proof = _proof_of_database(home.load_settings(config), heads, allow_empty=allow_empty)
    flaws = [{"chain": flaw.chain, "seq": flaw.seq, "problem": flaw.problem} for flaw in proof.flaws]
    if as_json:
        screen.print_json(
            {
                "sound": proof.is_sound,
                "records": proof.records,
                "chains": proof.chains,
                "heads": proof.heads,
                "cuts": proof.cuts,
                "unwitnessed": proof.unwitnessed,
                "flaws": flaws,
            }
        )
    seen = ", ".join(screen.format_count(number, what) for number, what in _proof_counts(proof))
    if not proof.is_sound:
        if not as_json:
            screen.print_table(["chain", "record", "problem"], [list(flaw.values()) for flaw in flaws])
        raise CommandFailed(
            f"the audit trail is not sound: {screen.format_count(len(flaws), 'flaw')} in {seen}",
            "keep this copy; compare it with an export kept elsewhere",
        )
    if not as_json:
        screen.print_text(f"the audit trail is sound: {seen}")
        if proof.unwitnessed:
            screen.print_text(
                f"{screen.format_count(proof.unwitnessed, 'record')} since the last signed head are not covered by a head yet"
            )


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write (default: standard output).")] = None,
    config: home.Config = None,
) -> None:
    """Write every record and the signed heads, one JSON document per line, as `verify FILE` reads them."""
    chosen = home.load_settings(config)
    signed = _read_own_heads(chosen)
    from policies.audit.proof import read_rows

    with home.connect_to_database(chosen) as connection:
        lines = (json.dumps(line) for line in _export_lines(read_rows(connection), signed))
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        try:
            output.touch(mode=0o600)
            with output.open("w", encoding="utf-8") as target, screen.show_progress(f"writing {output}…"):
                target.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise CommandFailed(f"{output} was not written: {error.strerror}") from error
    screen.print_note(
        f"written to {output}; verify it here, or elsewhere with --keys (interlock keys export): interlock audit verify {output}"
    )


@app.command()
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last records to show.", min=1, max=10_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show each new record until interrupted.")] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Show the last records."""
    chosen = home.load_settings(config)
    with home.connect_to_database(chosen) as connection:
        shown: dict[str, int] = {}
        while True:
            fresh = _read_newest(connection, shown, lines)
            connection.rollback()
            shown |= {record["chain"]: max(record["seq"], shown.get(record["chain"], 0)) for record in fresh}
            for record in fresh:
                screen.print_json_line(record) if as_json else screen.print_text(_format_record(record))
            if not follow:
                return
            time.sleep(POLL_SECONDS)


def _proof_counts(proof: "Proof") -> list[tuple[int, str]]:
    cuts = [(proof.cuts, "cut")] if proof.cuts else []
    return [(proof.records, "record"), (proof.chains, "chain"), (proof.heads, "signed head"), *cuts]


def _trusted_keys(keys: Path | None, config: Path | None) -> "StatementVerifier":
    """Returns the keys of a file, which needs neither gateway nor database, or those of this machine."""
    if keys is None:
        return home.open_signing_keys(home.load_settings(config))
    from policies.keys.jwks import BadKeySet
    from policies.keys.published import PublishedKeys

    try:
        return PublishedKeys(json.loads(keys.read_text()))
    except (OSError, ValueError, BadKeySet) as error:
        raise WrongUsage(
            f"{keys} is not a set of public keys: {error}", "create one on the gateway's machine: interlock keys export > FILE"
        ) from error


def _proof_of_database(settings: "Settings", heads: Path | None, *, allow_empty: bool) -> "Proof":
    """Verifies the database. Heads are read before the rows, so that each names a durable record, and again afterwards for new chains."""
    from policies.audit.proof import read_rows, verify_chains

    signed = [*_read_own_heads(settings), *_read_heads_file(heads)]
    with home.connect_to_database(settings) as connection:
        later = (line for _ in range(1) for line in _read_own_heads(settings))  # a generator, so that it is read after the rows
        return verify_chains(read_rows(connection), signed, home.open_signing_keys(settings), later, allow_empty=allow_empty)


def _proof_of_file(file: Path, heads: Path | None, trusted: "StatementVerifier", *, allow_empty: bool) -> "Proof":
    from policies.audit.proof import verify_chains

    rows: list[Mapping[str, Any]] = []
    signed = _read_heads_file(heads)
    try:
        with file.open("rb") as source:
            for number, line in enumerate(source, 1):
                document = _parse_export_line(file, number, line)
                if document.keys() == {"head"}:
                    signed.append(str(document["head"]))
                else:
                    rows.append(document)
    except OSError as error:
        raise WrongUsage(f"{file} can't be read: {error.strerror}", "make an export: interlock audit export -o FILE") from error
    return verify_chains(rows, signed, trusted, allow_empty=allow_empty)


def _parse_export_line(file: Path, number: int, line: bytes) -> dict[str, Any]:
    """Returns a record with exactly its exported members, or a head.

    Any other line was edited and is returned as an invalid record, so that its chain has a gap. That includes lines with a member twice,
    which readers resolve differently, or with a further member, which no hash covers.
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


def _export_lines(rows: Iterable[Mapping[str, Any]], signed: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    yield from rows
    for head in signed:
        yield {"head": head}


def _read_own_heads(settings: "Settings") -> list[str]:
    from policies.audit.heads import read_heads

    return read_heads(settings.home / "audit.heads")


def _read_heads_file(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{path} can't be read as a file of heads", "give a copy of audit.heads") from error


def _read_newest(connection: Any, shown_seqs: Mapping[str, int], limit: int) -> list[dict[str, Any]]:
    """Returns the last records that were not shown yet, oldest first."""
    from sqlalchemy import and_, not_, or_, select

    from policies.tables import audit_records

    seen = (
        or_(*(and_(audit_records.c.chain == chain, audit_records.c.seq <= seq) for chain, seq in shown_seqs.items()))
        if shown_seqs
        else None
    )
    query = select(audit_records.c.body).order_by(audit_records.c.at.desc(), audit_records.c.chain, audit_records.c.seq.desc()).limit(limit)
    rows = connection.execute(query if seen is None else query.where(not_(seen))).all()
    return [json.loads(row.body) for row in reversed(rows)]


def _describe_record(record: Mapping[str, Any]) -> str:
    """Returns person and act of a record that is neither a decision nor an outcome."""
    who = (record.get("principal") or {}).get("subject", "")
    target = record.get("target") or {}
    parts = [target.get("kind", ""), target.get("name", ""), *(record.get(name) or "" for name in SUMMARY_MEMBERS)]
    target_text = " ".join(str(each) for each in parts if each and isinstance(each, str | int))
    return ": ".join(filter(None, (who, target_text))) or f"chain {record['chain']}, record {record['seq']}"


def _format_record(record: Mapping[str, Any]) -> str:
    """Returns a record as one line."""
    at = datetime.fromtimestamp(record["at"] / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if record["kind"] == "outcome":
        return f"{at}  {record['outcome']:<8} {record['decision_id']}  after {record['duration_us'] / 1000:.1f} ms"
    if record["kind"] != "decision":
        return f"{at}  {record['kind']:<8} {_describe_record(record)}"
    who = " > ".join([record["principal"]["subject"], *(link["agent"] for link in record["path"])])
    ruling = "allowed" if record["allowed"] else "refused"
    why = "" if record["allowed"] else f" ({record['reason_id']})"
    return f"{at}  {ruling:<8} {record['decision_id']}  {who}: {record['action']} {record['resource']}{why}"
