"""policy: checks, tests and replays the policies that the gateway would load."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed
from gateway.cli.http_client import call_gateway, connect
from gateway.cli.local import installation as home

if TYPE_CHECKING:
    from gateway.server.settings import Settings
    from policies.cedar.engine import KnownTool, RuleSet
    from policies.delegation.chain import Principal
    from policies.what_if.rehearsal import CaseResult

REPLAYED_AT_ONCE = 200  # decisions of one request
EVALUATED_ACTIONS = {"agent": "invokeAgent", "tool": "callTool"}
app = typer.Typer(help="The policies.", no_args_is_help=True)


Folder = Annotated[Path | None, typer.Argument(help="A folder of .cedar files (default: the configured one).")]


@app.command()
def check(
    folder: Folder = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Read every policy as the gateway would, and report what is wrong."""
    chosen = home.load_settings(config)
    rules = _load_rules(chosen, folder)
    names = sorted(set(rules.id_by_key.values()))
    if as_json:
        screen.print_json({"version": rules.version, "policies": names, "doubts": doubts_about(chosen, rules)})
        return
    screen.print_text(f"{len(rules.id_by_key)} policies are valid, version {rules.version}")
    several = Counter(rules.id_by_key.values())
    screen.print_text("\n".join(f"  {name}" + (f" ({several[name]} policies)" if several[name] > 1 else "") for name in names))
    for doubt in doubts_about(chosen, rules):
        screen.print_problem(f"warning: {doubt}")


@app.command()
def test(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="YAML files with cases, or a folder of policies with its *.test.yaml (default: those of the configured folder)."
        ),
    ] = None,
    policies: Annotated[Path | None, typer.Option("--policies", help="A folder of .cedar files (default: the configured one).")] = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Test the policies with cases: expected permits, expected refusals, and their reasons."""
    chosen = home.load_settings(config)
    results = [(path, result) for path, found in _rehearse(chosen, policies, files) for result in found]
    failed = [result for _, result in results if result.problems]
    if as_json:
        screen.print_json({"ok": not failed, "cases": [_result_document(path, result) for path, result in results]})
    elif results:
        rows = [
            ("failed" if one.problems else "ok", one.case.name, one.outcome, _explain_ruling(one), "; ".join(one.problems))
            for _, one in results
        ]
        screen.print_table(["case", "name", "ruling", "because of", "problem"], rows)
    if failed or not results:
        raise CommandFailed(
            f"{len(failed)} of {len(results)} cases failed" if results else "there are no cases",
            "write NAME.test.yaml beside the policies (docs/policies.md), or: interlock policy test FILE" if not results else "",
        )


def _rehearse(settings: "Settings", folder: Path | None, files: list[Path] | None) -> "Iterator[tuple[Path, list[CaseResult]]]":
    from policies.cedar.engine import DEFAULT_USER_PREFIX, BadPolicy, PolicyEngine
    from policies.tokens.claims import DEVELOPMENT_ISSUER
    from policies.what_if.cases import BadCases, read_cases
    from policies.what_if.rehearsal import build_authority, rehearse

    def roles_of(person: "Principal") -> Sequence[str]:
        return settings.roles_of(person.subject) if person.issuer == DEVELOPMENT_ISSUER else ()

    where = _choose_folder(settings, folder, files or [])
    try:
        authority = build_authority(PolicyEngine(settings.roles, where), settings.roles)
    except BadPolicy as error:
        raise CommandFailed(error.describe_in(str(where or "")), "correct the file; interlock policy check") from error
    for path in _find_case_files(where, files or []):
        try:
            cases = read_cases(path.read_text("utf-8"), DEFAULT_USER_PREFIX, roles_of)
        except (BadCases, OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"{path}: {error}", "docs/policies.md describes cases") from error
        yield path, rehearse(authority, cases)


def _choose_folder(settings: "Settings", folder: Path | None, files: list[Path]) -> Path | None:
    """The policies that the cases test: the folder that is named, else the configured one, else the one in which the first file lies."""
    named = folder or next((path for path in files if path.is_dir()), None)
    if named is None and settings.policies:
        named = Path(settings.policies)
    return named or next((path.parent for path in files if any(path.parent.glob("*.cedar"))), None)


def _find_case_files(folder: Path | None, files: list[Path]) -> list[Path]:
    places = files or ([folder] if folder else [])
    return [found for place in places for found in (sorted(place.glob("*.test.yaml")) if place.is_dir() else [place])]


def _explain_ruling(result: "CaseResult") -> str:
    decision = result.decision
    return ", ".join((*decision.policies, *decision.missing)) or decision.reason_id


def _result_document(path: Path, result: "CaseResult") -> dict[str, Any]:
    decision = result.decision
    return {
        "file": str(path),
        "line": result.case.line,
        "name": result.case.name,
        "ok": not result.problems,
        "expected": result.case.expect,
        "ruling": result.outcome,
        "reason_id": decision.reason_id,
        "policies": list(decision.policies),
        "missing": list(decision.missing),
        "problems": list(result.problems),
    }


@app.command("what-if")
def what_if(
    folder: Annotated[Path | None, typer.Argument(help="A folder of .cedar files (default: the gateway's own, as it is now).")] = None,
    decision: Annotated[list[str] | None, typer.Option("--decision", help="A decision to rule on again (default: the newest).")] = None,
    only: Annotated[str, typer.Option("--only", help="denied, allowed or all.")] = "denied",
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most decisions to rule on.")] = 100,
    arguments: Annotated[Path | None, typer.Option("--arguments", help="A JSON file: arguments by decision id.")] = None,
    beside: Annotated[bool, typer.Option("--beside", help="Rule by the gateway's own folder too, except files of the same name.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Rule on past decisions again by other policies, and show which would change."""
    body: dict[str, Any] = {"only": only, "decisions": decision or []}
    if folder is not None:
        body |= {"policies": _read_policy_texts(folder), **({"beside_current": True} if beside else {})}
    if arguments is not None:
        body["arguments"] = _read_json(arguments)
    found = _replay_all(body, limit)
    if as_json:
        screen.print_json(found)
        return
    screen.print_table(
        ["decision", "person", "act", "then", "now", "because of"], [_replay_row(one) for one in found["items"]], "no decisions"
    )
    summary = found["summary"]
    screen.print_text(f"{summary['changed']} of {summary['replayed']} would change, {summary['unknown']} can't be determined")


def _replay_all(body: dict[str, Any], limit: int) -> dict[str, Any]:
    """Returns the replay of at most `limit` decisions, which takes a request for each few hundred of them."""
    items, summary, cursor = list[Any](), Counter[str](), ""
    with connect() as remote, screen.show_progress("ruling again…"):
        while len(items) < limit and cursor is not None:
            part = {**body, "limit": min(REPLAYED_AT_ONCE, limit - len(items)), **({"cursor": cursor} if cursor else {})}
            found = remote.request("POST", "/api/policies/what-if", body=part)
            items += found["items"]
            summary.update(found["summary"])
            cursor = found.get("next")
    return {**found, "summary": dict(summary), "items": items}


@app.command(epilog="Example: interlock policy evaluate tool:inventory.refund --who bob --chain support,sales --draft policies/")
def evaluate(
    act: Annotated[str, typer.Argument(help="A permission: agent:NAME or tool:SERVER.TOOL.", metavar="ACT")],
    who: Annotated[str, typer.Option("--who", help="The person (default: yourself).", metavar="PERSON")] = "",
    chain: Annotated[str, typer.Option("--chain", help="Agents between, first to last.", metavar="AGENT,AGENT")] = "",
    arguments: Annotated[str, typer.Option("--arguments", help="The arguments, as JSON.", metavar="JSON")] = "",
    draft: Annotated[Path | None, typer.Option("--draft", help="A folder of .cedar files to rule by, beside those in force.")] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Show how the gateway would rule on an act, and how by a draft of policies. Nothing is done, stored or enforced."""
    kind, _, name = act.partition(":")
    if kind not in EVALUATED_ACTIONS or not name:
        raise CommandFailed(f"{act} is not an act", "write agent:NAME or tool:SERVER.TOOL")
    body: dict[str, Any] = {
        "subject": {"type": "user", "id": who or _own_subject()},
        "action": {"name": EVALUATED_ACTIONS[kind]},
        "resource": {"type": kind, "id": name},
        "context": {**({"chain": chain.split(",")} if chain else {}), **({"arguments": _parse_arguments(arguments)} if arguments else {})},
    }
    if draft is not None:
        answer = call_gateway(
            "POST", "/api/policies/evaluate", body={**body, "policies": _read_policy_texts(draft), "beside_current": True}
        )
        rulings = {"now": answer["now"], "by the draft": answer["draft"]}
    else:
        answer = call_gateway("POST", "/access/v1/evaluation", body=body)
        rulings = {"now": answer}
    if as_json:
        screen.print_json(answer)
        return
    screen.print_table(["when", "ruling", "because of", "missing"], [(when, *_ruling_row(ruling)) for when, ruling in rulings.items()])


def _own_subject() -> str:
    return str(call_gateway("GET", "/api/whoami")["subject"])


def _parse_arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"--arguments: {error}", 'write JSON, such as {"quantity": 3}') from error


def _ruling_row(ruling: dict[str, Any]) -> tuple[str, str, str]:
    context = ruling["context"]
    problem = context.get("error", {}).get("message", "")
    because = problem or ", ".join(context["policies"]) or context["reason_id"]
    return "allowed" if ruling["decision"] else "refused", because, ", ".join(context.get("missing", ()))


def _replay_row(one: dict[str, Any]) -> tuple[str, ...]:
    who = " > ".join([one["principal"].split("|", 2)[-1], *one["chain"]])
    now = one["now"]["ruling"] + (" *" if one["changed"] else "")
    return one["id"], who, one["permission"], one["then"]["ruling"], now, one["now"]["note"] or ", ".join(one["now"]["policies"])


def _read_policy_texts(folder: Path) -> dict[str, str]:
    from policies.cedar.files.folder import BadPolicy, read_operator_files

    try:
        texts = dict(read_operator_files(folder))
    except BadPolicy as error:
        raise CommandFailed(error.describe_in(str(folder))) from error
    if not texts:
        raise CommandFailed(f"{folder} has no policies", "give a folder of .cedar files, or none for the gateway's own")
    return texts


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{path}: {error}", 'write {"d_…": {"quantity": 3}}') from error


@app.command()
def schema(config: home.Config = None) -> None:
    """Print the Cedar schema for editors: what policies can refer to, with the arguments of every registered tool."""
    chosen = home.load_settings(config)
    from policies.cedar.engine import schema_text

    screen.print_text(schema_text(registered_tools(chosen)))


def doubts_about(settings: "Settings", rules: "RuleSet") -> list[str]:
    """The warnings about valid policies, those included that read values which a server holds."""
    from policies.cedar.files.unstored_facts import unstored_fact_warnings

    held = unstored_fact_warnings(rules.operator_policies, rules.operator_places, settings.state.backed_prefixes)
    return [*rules.warnings, *held]


def _load_rules(settings: "Settings", folder: Path | None) -> "RuleSet":
    from policies.cedar.engine import BadPolicy, load_rules

    configured = Path(settings.policies) if settings.policies else None
    try:
        return load_rules(settings.roles, folder or configured, registered_tools(settings), known=())
    except BadPolicy as error:
        where = str(folder or settings.policies)
        raise CommandFailed(error.describe_in(where), "correct the file; a running gateway keeps the last good rules") from error


def registered_tools(settings: "Settings") -> "list[KnownTool]":
    """Returns the tools in the gateway's database; none where there is no database yet."""
    from gateway.registration.tool_schemas import read_known_tools

    try:
        with home.connect_to_database(settings) as connection:
            return read_known_tools(connection)
    except CommandFailed:
        return []
