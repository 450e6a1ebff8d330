"""why and revoke: explains a decision, lists refusals, and revokes a grant."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, quote_segment


def why(
    decision_id: Annotated[
        str, typer.Argument(help="The decision's id, as a refusal names it. Without it: your last refusals.", metavar="[DECISION_ID]")
    ] = "",
    everybody: Annotated[
        bool, typer.Option("--all", help="The last refusals of all people; needs the permission to read the audit.")
    ] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Explain a decision: the person, the chain, the act, and the policies that decided; or list the last refusals."""
    if not decision_id:
        _print_refusals(everybody=everybody, as_json=as_json)
        return
    decision = call_gateway("GET", f"/api/decisions/{quote_segment(decision_id)}")
    if as_json:
        screen.print_json(decision)
        return
    _print_decision(decision)


def _print_refusals(*, everybody: bool, as_json: bool) -> None:
    found = call_gateway("GET", f"/api/decisions{'?everybody=true' if everybody else ''}")["items"]
    rows = (
        (screen.format_time(each["at"]), each["id"], _chain_of(each), f"{each['action']} {each['resource']}", each["reason_id"])
        for each in found
    )
    screen.print_list(found, as_json, ["at", "decision", "for", "asked for", "reason"], rows, "nothing was refused")


def _chain_of(decision: dict[str, Any]) -> str:
    return " > ".join([decision["principal"].split("|", 2)[-1], *(link["agent"] for link in decision["chain"])])


def revoke(
    grant_id: Annotated[str, typer.Argument(help="The grant's id, as `interlock why` shows it.", metavar="GRANT_ID")],
    as_json: screen.AsJson = False,
) -> None:
    """Revoke a grant: the agents that act under it, and all below them, may do nothing more."""
    call_gateway("DELETE", f"/api/grants/{quote_segment(grant_id)}", progress="revoking…")
    screen.print_json({"id": grant_id, "revoked": True}) if as_json else screen.print_text(f"{grant_id} is revoked")


def _print_decision(decision: dict[str, Any]) -> None:
    tenant, issuer, subject = decision["principal"].split("|", 2)
    verdict = "allowed" if decision["allowed"] else "refused"
    screen.print_fields(
        [
            ("decision", decision["id"]),
            ("ruling", verdict),
            ("reason", f"{decision['reason_id']}: {decision.get('reason', '')}" if not decision["allowed"] else ""),
            ("at", screen.format_time(decision.get("at", ""))),
            ("person", f"{subject} of tenant {tenant}, vouched for by {issuer}"),
            ("roles", ", ".join(decision.get("roles") or [])),
            ("token", "" if (scope := decision.get("scope") or ["*"]) == ["*"] else f"narrowed to {' '.join(scope)}"),
            ("chain", _chain_of(decision)),
            ("asked for", " ".join(filter(None, (decision["action"], decision.get("verb"), decision["resource"])))),
            ("missing", ", ".join(decision["missing"])),
            ("policies", ", ".join(decision["policies"])),
            ("on", " ".join(filter(None, (decision.get("subject"), decision.get("effect"))))),
            ("because", " ".join(each["text"] for each in decision.get("facts") or [])),
            ("problem", decision.get("problem")),
            ("approval", decision.get("approval")),
            ("approved by", ", ".join(one.split("|", 2)[-1] for one in decision.get("approvers") or [])),
            ("outcome", decision.get("outcome")),
            ("task", decision["task_id"]),
            ("grant", decision.get("grant_id")),
        ]
    )
    if decision["chain"]:
        screen.print_table(["through", f"could do at most, for {subject}", "this act"], _chain_rows(decision))


def _chain_rows(decision: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields what each agent could do: the person's roles, intersected with the token's scope and the ceilings up to that agent."""
    from policies.delegation.permissions import Permissions

    for link in decision["chain"]:
        held = Permissions(frozenset(link["permissions"]))
        covered = decision.get("permission") and held.covers(decision["permission"])
        yield link["agent"], " ".join(link["permissions"]) or "nothing", "yes" if covered else "no"


def register(app: typer.Typer) -> None:
    for command in (why, revoke):
        app.command()(command)
