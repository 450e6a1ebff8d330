"""approval: lists, shows and decides approvals."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, list_all, quote_segment

ApprovalId = Annotated[str, typer.Argument(help="The approval's id, as a refusal or a waiting task names it.", metavar="ID")]
app = typer.Typer(help="Acts that wait for people: list, show, approve, deny.", no_args_is_help=True)


@app.command("list")
def list_approvals(
    state: Annotated[str, typer.Option(help="pending, approved, denied, used, expired, void, or all.")] = "pending",
    as_json: screen.AsJson = False,
) -> None:
    """Show approvals that wait: all if you may decide, else your own."""
    filters: dict[str, Any] = {} if state == "all" else {"state": state}
    items = list_all("/api/approvals", **filters)
    rows = ((i["id"], i["state"], _format_requester(i), i["resource"], i["prompt"], screen.format_time(i["expires"])) for i in items)
    screen.print_list(items, as_json, ["id", "state", "asked by", "for", "question", "until"], rows, "no approvals")


@app.command()
def show(approval_id: ApprovalId, as_json: screen.AsJson = False) -> None:
    """Show the exact request, its requester, and the policy that asks."""
    approval = call_gateway("GET", f"/api/approvals/{quote_segment(approval_id)}")
    screen.print_json(approval) if as_json else _print_approval(approval)


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
    reason: Annotated[str, typer.Option(help="Why; the requester reads it.")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Deny this act."""
    _decide(approval_id, "deny", reason, as_json)


def _decide(approval_id: str, decision: str, reason: str, as_json: bool) -> None:
    body = {"decision": decision, "reason": reason}
    approval = call_gateway("POST", f"/api/approvals/{quote_segment(approval_id)}/decision", body=body, progress="deciding…")
    if as_json:
        screen.print_json(approval)
        return
    screen.print_text(f"{approval_id} is {approval['state']}")
    if approval["state"] == "pending":
        screen.print_note(f"{len(approval['votes'])} of {approval['needed']} have approved; another approver must as well")
    elif approval["state"] == "approved":
        until = screen.format_time(approval["expires"])
        screen.print_note(
            f"a task that waits for it continues; otherwise {_format_requester(approval)} "
            f"may now repeat exactly this request once, until {until}"
        )


def _print_approval(approval: Mapping[str, Any]) -> None:
    votes = [
        f"{one['verdict']} by {_subject_of(one['by'])}{': ' if one['reason'] else ''}{one['reason']}" for one in approval.get("votes") or []
    ]
    arguments = approval.get("arguments")
    screen.print_fields(
        [
            ("approval", approval["id"]),
            ("state", approval["state"]),
            ("question", approval["prompt"]),
            ("asked by", _format_requester(approval)),
            ("for", f"{approval['action']} {approval['resource']}"),
            ("arguments", None if arguments is None else format_exact_json(arguments)),
            ("sent beside", format_exact_json(approval["beside"]) if approval.get("beside") else None),
            ("sha256", approval.get("arguments_sha256")),
            ("description", approval.get("description")),
            ("definition", approval.get("definition_sha256")),
            ("policies", ", ".join(approval.get("policies") or [])),
            ("needed", approval.get("needed")),
            ("votes", "; ".join(votes)),
            ("reason", approval.get("reason")),
            ("task", approval.get("task_id")),
            ("until", screen.format_time(approval["expires"])),
        ]
    )


def format_exact_json(arguments: Any) -> str:
    """Returns JSON in which characters that can't be seen, such as a zero-width space, are escaped."""
    text = json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _format_requester(approval: Mapping[str, Any]) -> str:
    requester = approval["requester"]
    return " > ".join([_subject_of(requester["principal"]), *requester["chain"]])


def _subject_of(owner: str) -> str:
    return owner.split("|", 2)[-1]
