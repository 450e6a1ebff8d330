"""agent: registers, lists, changes and approves agents."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_agent
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, connect, list_all, quote_segment
from gateway.cli.remote.health import describe_health, probe_fields
from gateway.cli.remote.permissions import CEILING_HELP, parse_permissions

Name = Annotated[str, typer.Argument(help="The agent's name.", metavar="NAME", autocompletion=complete_agent)]
CONTRACTS_HELP = "A JSON file: {skill: {input: schema, output: schema}}, with an empty skill for all (docs/handoff.md)."
app = typer.Typer(help="Agents: add, list, show, refresh, set, approve, secret, rm.", no_args_is_help=True)


@app.command(epilog="Example: interlock agent add http://127.0.0.1:7001 --name sales")
def add(
    source: Annotated[str, typer.Argument(help="The agent's address, or a file with its card.", metavar="URL|FILE")],
    name: Annotated[str | None, typer.Option(help="The name it gets here (default: from its card).")] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of agent, which selects its adapter (default: a2a).")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of its kind (docs/adapters.md); may be repeated.", metavar="NAME=VALUE")
    ] = None,
    ceiling: Annotated[list[str] | None, typer.Option(help="A permission that the agent may have at most; may be repeated.")] = None,
    delegation: Annotated[str | None, typer.Option(help="How the agent gets its delegation: bearer, header, ticket or none.")] = None,
    contracts: Annotated[Path | None, typer.Option(help=CONTRACTS_HELP)] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Register an agent. One that is not registered by an operator waits for approval."""
    options = dict(map(_parse_option, option or ())) or None
    members = {"name": name, "kind": kind, "ceiling": ceiling or None, "delegation": delegation, "upstream": options}
    members["contracts"] = None if contracts is None else _read_contracts(contracts)
    body = {**_read_source(source), **{key: value for key, value in members.items() if value is not None}}
    agent = call_gateway("POST", "/api/agents", body=body, progress="reading the card…")
    if as_json:
        screen.print_json(agent)
        return
    _print_agent(agent)
    if agent.get("client_secret"):
        screen.print_fields([("client_secret", agent["client_secret"])])
        screen.print_note("the secret is shown once only: the agent needs it to exchange its tokens")
    if agent.get("status") == "pending":
        screen.print_note(f"an operator has to approve it: interlock agent approve {agent['name']}")


@app.command("list")
def list_agents(
    q: Annotated[str | None, typer.Option("--q", help="Words to find them by.")] = None,
    skill: Annotated[str | None, typer.Option(help="A skill, by id or name.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag of a skill.")] = None,
    mode: Annotated[str | None, typer.Option(help="A media type of its input or output.")] = None,
    failing: Annotated[bool, typer.Option("--failing", help="Those that can't be called now, or failed their last check.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show the agents that you may see, or find some of them."""
    filters: dict[str, Any] = {"q": q, "skill": skill, "tag": tag, "mode": mode, "failing": "true" if failing else None}
    items = list_all("/api/agents", **{key: value for key, value in filters.items() if value})
    rows = ((a["name"], a["status"], describe_health(a), a.get("kind"), a.get("url"), ", ".join(_skill_names(a))) for a in items)
    empty = "nothing found" if any(filters.values()) else "no agents yet: interlock agent add URL"
    screen.print_list(items, as_json, ["name", "status", "health", "kind", "url", "skills"], rows, empty)


@app.command()
def show(name: Name, as_json: screen.AsJson = False) -> None:
    """Show one agent, and the changes of its card that wait for an operator."""
    agent = call_gateway("GET", f"/api/agents/{quote_segment(name)}")
    screen.print_json(agent) if as_json else _print_agent(agent)


@app.command()
def refresh(name: Name, as_json: screen.AsJson = False) -> None:
    """Read an agent's card again now."""
    agent = call_gateway("POST", f"/api/agents/{quote_segment(name)}/refresh", progress="reading the card…")
    screen.print_json(agent) if as_json else _print_agent(agent)


@app.command("set")
def set_terms(
    name: Name,
    ceiling: Annotated[list[str] | None, typer.Option(help=CEILING_HELP, metavar="PERMISSION")] = None,
    delegation: Annotated[str | None, typer.Option(help="How the agent gets its delegation: bearer, header, ticket or none.")] = None,
    clearance: Annotated[int | None, typer.Option(help="The highest sensitivity that it may receive, 0 to 3.")] = None,
    contracts: Annotated[Path | None, typer.Option(help=CONTRACTS_HELP)] = None,
    context: Annotated[str | None, typer.Option(help="What it gets of the earlier conversation: none or summary.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="One more URL with its weight; may be repeated, `none` for none.", metavar="URL[=WEIGHT]")
    ] = None,
    price: Annotated[str | None, typer.Option(help="What one call costs; '' for unknown.", metavar="AMOUNT")] = None,
    memory: Annotated[str | None, typer.Option(help="What it may do with memory: none, read or write.")] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Set an agent's ceiling, delegation, clearance, contracts, context, further endpoints, price and memory."""
    members: dict[str, Any] = {"ceiling": parse_permissions(ceiling), "delegation": delegation, "clearance": clearance, "context": context}
    members |= {"price": price, "memory": memory}
    members["contracts"] = None if contracts is None else _read_contracts(contracts)
    members["endpoints"] = None if not endpoint else [_parse_endpoint(each) for each in endpoint if each != "none"]
    body = {key: value for key, value in members.items() if value is not None}
    if not body:
        raise WrongUsage(
            "there is nothing to set", "give --ceiling, --delegation, --clearance, --contracts, --context, --endpoint, --price or --memory"
        )
    agent = call_gateway("PATCH", f"/api/agents/{quote_segment(name)}", body=body, progress="changing…")
    screen.print_json(agent) if as_json else _print_agent(agent)


@app.command()
def rm(name: Name, as_json: screen.AsJson = False) -> None:
    """Remove an agent."""
    call_gateway("DELETE", f"/api/agents/{quote_segment(name)}", progress="removing…")
    screen.print_json({"name": name, "removed": True}) if as_json else screen.print_text(f"{name} is removed")


@app.command()
def approve(
    name: Name,
    seen: Annotated[
        str | None,
        typer.Option(help="Approve only this version: `updated` of `interlock agent show` (default: the current one).", metavar="TIME"),
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Approve an agent with its current card, which is shown first."""
    with connect() as remote:
        agent = remote.approve(f"/api/agents/{quote_segment(name)}", _print_changes, seen)
    screen.print_json(agent) if as_json else screen.print_text(f"{name} is {agent['status']}")


@app.command()
def secret(name: Name, as_json: screen.AsJson = False) -> None:
    """Give an agent a new client secret; the previous one stops working."""
    renewed = call_gateway("POST", f"/api/agents/{quote_segment(name)}/secret", progress="renewing…")
    if as_json:
        screen.print_json(renewed)
        return
    screen.print_fields([(key, renewed.get(key)) for key in ("client_id", "client_secret")])
    screen.print_note("the secret is shown once only")


def _parse_option(text: str) -> tuple[str, Any]:
    """Parses `NAME=VALUE`. A value that is valid JSON is read as JSON, any other is text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise WrongUsage(f"{text} is not an option", "give NAME=VALUE, as in --option assistant=echo")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _read_contracts(path: Path) -> Any:
    return _read_json_file(path, "can't be read", "give {skill: {input: schema, output: schema}} (docs/handoff.md)")


def _read_json_file(file: str | Path, unreadable: str, expected: str) -> Any:
    """Returns the JSON document of a file. Raises WrongUsage with `unreadable` or `expected`."""
    try:
        return json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise WrongUsage(f"{file} {unreadable}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"{file} is not JSON: {error}", expected) from error


def _parse_endpoint(text: str) -> dict[str, Any]:
    url, equals, weight = text.rpartition("=")
    return {"url": url, "weight": int(weight)} if equals and weight.isdigit() else {"url": text}


def _read_source(text: str) -> dict[str, Any]:
    if text.startswith(("http://", "https://")):
        return {"url": text}
    card_form = "give the agent's card, as served at /.well-known/agent-card.json"
    return {"card": _read_json_file(text, "is neither an http address nor a file that can be read", card_form)}


def _skill_names(agent: dict[str, Any]) -> list[str]:
    return [str(skill.get("id", skill)) if isinstance(skill, dict) else str(skill) for skill in agent.get("skills") or []]


def _print_agent(agent: dict[str, Any]) -> None:
    names = ("name", "status", "kind", "url", "delegation", "clearance", "signature", "owner", "client_id", "created", "updated")
    pairs: list[tuple[str, object]] = [(name, agent.get(name)) for name in names]
    ceiling = agent.get("ceiling")
    pairs += [("at most", " ".join(ceiling) if isinstance(ceiling, list) else ceiling), ("skills", ", ".join(_skill_names(agent)))]
    pairs.append(("contracts", ", ".join(skill or "(all skills)" for skill in agent.get("contracts") or {})))
    pairs.append(("price of a call", agent.get("price")))
    pairs.append(("context", agent.get("context") if agent.get("context") != "none" else ""))
    pairs.append(("memory", agent.get("memory") if agent.get("memory") != "none" else ""))
    pairs.append(("endpoints", ", ".join(f"{each['url']}={each['weight']}" for each in agent.get("endpoints") or [])))
    pairs.append(("killed", "an operator has killed it: interlock kill list" if agent.get("killed") else ""))
    pairs.append(("quarantined", agent.get("quarantine")))
    pairs += probe_fields(agent)
    screen.print_fields(pairs)
    _print_calls(agent.get("calls") or {}, str(agent.get("name")))
    _print_drift(agent)


def _print_calls(calls: dict[str, Any], name: str) -> None:
    """Prints the endpoints of an agent and how calls go, where there is anything to show."""
    endpoints = calls.get("endpoints") or []
    fault = calls.get("last_fault")
    if len(endpoints) < 2 and not fault:
        return
    rows = [(each["url"], each["weight"], each["state"], each["faults"], each["since"] or "") for each in endpoints]
    screen.print_table(["endpoint", "weight", "state", "faults in a row", "since"], rows)
    if fault:
        screen.print_note(f"last fault of {name}: {fault['problem']}, at {fault['at']}")
    retries = calls.get("retries") or {}
    screen.print_note(f"retries made: {retries.get('used', 0)}; retries left now: {retries.get('left', 0)}")


def _print_drift(agent: dict[str, Any]) -> None:
    """Prints what an operator has to check before approving."""
    for warning in agent.get("warnings") or []:
        screen.print_note(f"check: {warning}")
    drift = agent.get("drift") or []
    if drift:
        rows = [(change["path"], screen.format_value(change["before"]), screen.format_value(change["after"])) for change in drift]
        screen.print_table(["changed", "before", "after"], rows)
        seen = f" --seen {agent['updated']}" if agent.get("updated") else ""
        screen.print_note(f"to accept it: interlock agent approve {agent['name']}{seen}")


def _print_changes(agent: dict[str, Any]) -> None:
    """Prints what is being approved, on stderr."""
    for field in ("url", "signature", "owner"):
        if agent.get(field):
            screen.print_note(f"{field}: {agent[field]}")
    screen.print_note(f"skills: {', '.join(_skill_names(agent)) or 'none'}")
    for warning in agent.get("warnings") or []:
        screen.print_note(f"check: {warning}")
    for change in agent.get("drift") or []:
        screen.print_note(f"changed: {change['path']}: {screen.format_change(change['before'], change['after'])}")
