"""claim: takes, renews, releases and lists claims on subjects."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, list_all, quote_segment

PATH = "/api/claims"
COLUMNS = ["id", "subject", "effect", "state", "holder", "purpose", "priority", "until", "rests until"]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
app = typer.Typer(help="Claims on subjects, so that agents do not contradict each other: take, renew, release, list.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The id of the claim.", metavar="ID")]
Token = Annotated[int, typer.Option("--token", help="The fencing token that `claim take` printed.", metavar="N")]
For = Annotated[str, typer.Option("--for", help="How long it lasts without a renewal, such as 10m.", metavar="TIME")]


@app.command(epilog='Example: interlock claim take customer:42 --purpose "ticket 7" --for 30m --cool-down 2d')
def take(
    subject: Annotated[str, typer.Argument(help="Whom it is about, such as customer:42.", metavar="SUBJECT")],
    effect: Annotated[str, typer.Option("--effect", help="One effect, such as outbound-email (default: all).", metavar="NAME")] = "*",
    purpose: Annotated[str, typer.Option("--purpose", help="What for, in one line that others read.", metavar="TEXT")] = "",
    priority: Annotated[int, typer.Option("--priority", help="0 to 1000: a higher one ends claims of a lower one.")] = 100,
    duration: For = "10m",
    cool_down: Annotated[str, typer.Option("--cool-down", help="How long others wait after its end, such as 2d.", metavar="TIME")] = "0s",
    wait: Annotated[str, typer.Option("--wait", help="How long to wait for others, up to 60s.", metavar="TIME")] = "0s",
    as_json: screen.AsJson = False,
) -> None:
    """Claim a subject. While you hold it, the gateway refuses others' calls about it that have no higher priority."""
    body = {
        "subject": subject,
        "effect": effect,
        "purpose": purpose,
        "priority": priority,
        "seconds": parse_seconds(duration),
        "cool_down_seconds": parse_seconds(cool_down),
        "wait_seconds": parse_seconds(wait),
    }
    _print_claim(call_gateway("POST", PATH, body=body, progress="claiming…"), as_json)


@app.command()
def renew(claim_id: Id, token: Token, duration: For = "10m", as_json: screen.AsJson = False) -> None:
    """Keep a claim for longer."""
    body = {"token": token, "seconds": parse_seconds(duration)}
    _print_claim(call_gateway("PUT", f"{PATH}/{quote_segment(claim_id)}", body=body, progress="renewing…"), as_json)


@app.command()
def release(
    claim_id: Id,
    token: Token,
    cool_down: Annotated[
        str, typer.Option("--cool-down", help="How long others wait from now on (default: as it was taken).", metavar="TIME")
    ] = "",
    as_json: screen.AsJson = False,
) -> None:
    """End a claim."""
    rest = f"&cool_down_seconds={parse_seconds(cool_down)}" if cool_down else ""
    _print_claim(call_gateway("DELETE", f"{PATH}/{quote_segment(claim_id)}?token={token}{rest}", progress="releasing…"), as_json)


@app.command("list")
def list_claims(
    subject: Annotated[str, typer.Option("--subject", help="Claims on this subject, as far as you may see them.", metavar="SUBJECT")] = "",
    everybody: Annotated[bool, typer.Option("--everybody", help="Claims of all people; needs audit:read.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show the claims that are held, and those that rest: your own, or those on a subject."""
    items = list_all(PATH, subject=subject) if subject else list_all(PATH, everybody="true") if everybody else list_all(PATH)
    screen.print_list(items, as_json, COLUMNS, (_row_of(each) for each in items), _note_of_none(subject))


def _note_of_none(subject: str) -> str:
    if subject:
        return f"no claims on {subject} that you may see; claims of others need the permission to read them (docs/conflicts.md#claims)"
    return "no claims: interlock claim take SUBJECT"


def parse_seconds(text: str) -> int:
    """The seconds of a time such as 90s, 10m, 2h or 3d. Raises WrongUsage."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal()) or unit not in UNITS or len(number) > 9:
        raise WrongUsage(f"{text!r} is not a time", "write 90s, 10m, 2h or 3d")
    return int(number) * UNITS[unit]


def _print_claim(claim: dict[str, Any], as_json: bool) -> None:
    if as_json:
        screen.print_json(claim)
        return
    names = ("id", "subject", "effect", "state", "token", "purpose", "priority", "until", "cool_down_until")
    screen.print_fields([(name.replace("_", " "), _shown(name, claim[name])) for name in names])


def _shown(name: str, value: object) -> object:
    return screen.format_time(str(value)) if value and name in ("until", "cool_down_until") else value


def _row_of(claim: dict[str, Any]) -> tuple[object, ...]:
    holder = claim["holder"] or {}
    who = holder.get("agent") or str(holder.get("owner", "")).split("|", 2)[-1]
    times = screen.format_time(claim["until"]), screen.format_time(claim["cool_down_until"] or "")
    return (claim["id"], claim["subject"], claim["effect"], claim["state"], who, claim["purpose"], claim["priority"], *times)
