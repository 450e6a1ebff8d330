"""approval: what waits for people, and their decisions."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect, quoted

ApprovalId = Annotated[str, typer.Argument(help="The approval's id, as a refusal or a waiting task names it.", metavar="ID")]
app = typer.Typer(help="Acts that wait for people: list, show, approve, deny.", no_args_is_help=True)


@app.command("list")
def list_approvals(
    state: Annotated[str, typer.Option(help="pending, approved, denied, used, expired, void, or all.")] = "pending",
    as_json: screen.AsJson = False,
) -> None:
    """Show what waits for a decision: all of it if you may decide, else your own."""
    given: dict[str, Any] = {} if state == "all" else {"state": state}
    with connect() as remote, screen.progress("asking…"):
        items = remote.every("/api/approvals", **given)
    if as_json:
        screen.data({"items": items})
        return
    rows = [(i["id"], i["state"], _who(i), i["resource"], i["prompt"], screen.moment(i["expires"])) for i in items]
    screen.table(["id", "state", "asked by", "for", "question", "until"], rows, "nothing waits")


@app.command()
def show(approval_id: ApprovalId, as_json: screen.AsJson = False) -> None:
    """Show exactly what is asked for, by whom, and under which policy."""
    with connect() as remote, screen.progress("asking…"):
        approval = remote.get(f"/api/approvals/{quoted(approval_id)}")
    screen.data(approval) if as_json else _show(approval)


@app.command()
def approve(
    approval_id: ApprovalId,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Allow exactly this act, once."""
    _decide(approval_id, "approve", reason, as_json)


@app.command()
def deny(
    approval_id: ApprovalId,
    reason: Annotated[str, typer.Option(help="Why; whoever asked is told.")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Do not allow it."""
    _decide(approval_id, "deny", reason, as_json)


def _decide(approval_id: str, decision: str, reason: str, as_json: bool) -> None:
    body = {"decision": decision, "reason": reason}
    with connect() as remote, screen.progress("deciding…"):
        approval = remote.request("POST", f"/api/approvals/{quoted(approval_id)}/decision", body=body)
    if as_json:
        screen.data(approval)
        return
    screen.say(f"{approval_id} is {approval['state']}")
    if approval["state"] == "pending":
        screen.note(f"{len(approval['votes'])} of {approval['needed']} have approved; somebody else has to as well")
    elif approval["state"] == "approved":
        until = screen.moment(approval["expires"])
        screen.note(
            f"a task that waits for it goes on by itself; else {_who(approval)} may now do exactly the same again, once, until {until}"
        )


def _show(approval: Mapping[str, Any]) -> None:
    votes = [f"{one['verdict']} by {_name(one['by'])}{': ' if one['reason'] else ''}{one['reason']}" for one in approval.get("votes") or []]
    arguments = approval.get("arguments")
    screen.fields(
        [
            ("approval", approval["id"]),
            ("state", approval["state"]),
            ("question", approval["prompt"]),
            ("asked by", _who(approval)),
            ("for", f"{approval['action']} {approval['resource']}"),
            ("arguments", None if arguments is None else exactly(arguments)),
            ("sent beside", exactly(approval["beside"]) if approval.get("beside") else None),
            ("sha256", approval.get("arguments_sha256")),
            ("description", approval.get("description")),
            ("definition", approval.get("definition_sha256")),
            ("policies", ", ".join(approval.get("policies") or [])),
            ("needed", approval.get("needed")),
            ("votes", "; ".join(votes)),
            ("reason", approval.get("reason")),
            ("task", approval.get("task_id")),
            ("until", screen.moment(approval["expires"])),
        ]
    )


def exactly(arguments: Any) -> str:
    """JSON in which nothing hides: what can't be seen, such as a space of no width, stands there as its number."""
    text = json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _who(approval: Mapping[str, Any]) -> str:
    requester = approval["requester"]
    return " > ".join([_name(requester["principal"]), *requester["chain"]])


def _name(owner: str) -> str:
    return owner.split("|", 2)[-1]
