"""agent: register agents and look at them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import connect, quoted
from gateway.cli.remote.health import health, looks
from gateway.cli.remote.permissions import CEILING, permissions

Name = Annotated[str, typer.Argument(help="The agent's name.", metavar="NAME")]
CONTRACTS = "A JSON file: {skill: {input: schema, output: schema}}, with an empty skill for all (docs/handoff.md)."
app = typer.Typer(help="Agents: register, list, find, show, look at again, approve, remove, renew secrets.", no_args_is_help=True)


@app.command()
def add(  # noqa: PLR0913 (each is an option of the command)
    source: Annotated[str, typer.Argument(help="The agent's address, or a file with its card.", metavar="URL|FILE")],
    name: Annotated[str | None, typer.Option(help="The name it gets here (default: from its card).")] = None,
    kind: Annotated[str | None, typer.Option(help="Its dialect (default: a2a).")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="What its kind needs to know (docs/adapters.md); may be repeated.", metavar="NAME=VALUE")
    ] = None,
    ceiling: Annotated[list[str] | None, typer.Option(help="What it may do at most, whoever asks; may be repeated.")] = None,
    delegation: Annotated[
        str | None, typer.Option(help="How it is handed what a person delegated: bearer, header, ticket or none.")
    ] = None,
    contracts: Annotated[Path | None, typer.Option(help=CONTRACTS)] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Register an agent; by others than operators it waits for approval."""
    options = dict(map(_option, option or ())) or None
    given = {"name": name, "kind": kind, "ceiling": ceiling or None, "delegation": delegation, "upstream": options}
    given["contracts"] = None if contracts is None else _contracts(contracts)
    with connect() as remote, screen.progress("reading the card…"):
        body = {**_source(source), **{key: value for key, value in given.items() if value is not None}}
        agent = remote.request("POST", "/api/agents", body=body)
    if as_json:
        screen.data(agent)
        return
    _show(agent)
    if agent.get("client_secret"):
        screen.fields([("client_secret", agent["client_secret"])])
        screen.note("the secret is shown this once: the agent needs it to exchange the tokens it is given")
    if agent.get("status") == "pending":
        screen.note(f"an operator has to approve it: interlock agent approve {agent['name']}")


@app.command("list")
def list_agents(
    q: Annotated[str | None, typer.Option("--q", help="Words to find them by.")] = None,
    skill: Annotated[str | None, typer.Option(help="A skill, by id or name.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag of a skill.")] = None,
    mode: Annotated[str | None, typer.Option(help="A media type that is taken in or given out.")] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Show the agents that you may see, or find some of them."""
    given: dict[str, Any] = {"q": q, "skill": skill, "tag": tag, "mode": mode}
    with connect() as remote, screen.progress("asking…"):
        items = remote.every("/api/agents", **{key: value for key, value in given.items() if value})
    if as_json:
        screen.data({"items": items})
        return
    rows = [(a["name"], a["status"], health(a), a.get("kind"), a.get("url"), ", ".join(_skills(a))) for a in items]
    empty = "nothing found" if any(given.values()) else "no agents yet: interlock agent add URL"
    screen.table(["name", "status", "health", "kind", "url", "skills"], rows, empty)


@app.command()
def show(name: Name, as_json: screen.AsJson = False) -> None:
    """Show one agent, and what changed of its card where that waits for an operator."""
    with connect() as remote, screen.progress("asking…"):
        agent = remote.get(f"/api/agents/{quoted(name)}")
    screen.data(agent) if as_json else _show(agent)


@app.command()
def refresh(name: Name, as_json: screen.AsJson = False) -> None:
    """Look at an agent's card again, now."""
    with connect() as remote, screen.progress("reading the card…"):
        agent = remote.request("POST", f"/api/agents/{quoted(name)}/refresh")
    screen.data(agent) if as_json else _show(agent)


@app.command("set")
def set_terms(  # noqa: PLR0913 (each is an option of the command)
    name: Name,
    ceiling: Annotated[list[str] | None, typer.Option(help=CEILING, metavar="PERMISSION")] = None,
    delegation: Annotated[str | None, typer.Option(help="How its token reaches it: bearer, header, ticket or none.")] = None,
    clearance: Annotated[int | None, typer.Option(help="The most sensitive that it may be told, 0 to 3.")] = None,
    contracts: Annotated[Path | None, typer.Option(help=CONTRACTS)] = None,
    context: Annotated[str | None, typer.Option(help="What it is told of the conversation before: none or summary.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="One more address, with its weight; may be repeated, `none` for none.", metavar="URL[=WEIGHT]")
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Say what an agent may do at most, how it gets its token, what it may be told, what it takes in, and where else it is called."""
    given: dict[str, Any] = {"ceiling": permissions(ceiling), "delegation": delegation, "clearance": clearance, "context": context}
    given["contracts"] = None if contracts is None else _contracts(contracts)
    given["endpoints"] = None if not endpoint else [_endpoint(each) for each in endpoint if each != "none"]
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise WrongUsage("nothing is to be set", "give --ceiling, --delegation, --clearance, --contracts, --context or --endpoint")
    with connect() as remote, screen.progress("changing…"):
        agent = remote.request("PATCH", f"/api/agents/{quoted(name)}", body=body)
    screen.data(agent) if as_json else _show(agent)


@app.command()
def rm(name: Name, as_json: screen.AsJson = False) -> None:
    """Remove an agent."""
    with connect() as remote, screen.progress("removing…"):
        remote.request("DELETE", f"/api/agents/{quoted(name)}")
    screen.data({"name": name, "removed": True}) if as_json else screen.say(f"{name} is removed")


@app.command()
def approve(
    name: Name,
    seen: Annotated[
        str | None, typer.Option(help="Only as it was then: `updated`, as `interlock agent show` tells it (default: now).", metavar="TIME")
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Let an agent be called that waits for approval, with the card that it shows now, which is told first."""
    with connect() as remote:
        agent = remote.approve(f"/api/agents/{quoted(name)}", _tell, seen)
    screen.data(agent) if as_json else screen.say(f"{name} is {agent['status']}")


@app.command()
def secret(name: Name, as_json: screen.AsJson = False) -> None:
    """Give an agent a new client secret; the one before is worth nothing any more."""
    with connect() as remote, screen.progress("renewing…"):
        renewed = remote.request("POST", f"/api/agents/{quoted(name)}/secret")
    if as_json:
        screen.data(renewed)
        return
    screen.fields([(key, renewed.get(key)) for key in ("client_id", "client_secret")])
    screen.note("the secret is shown this once")


def _option(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; what reads as JSON is, anything else is a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise WrongUsage(f"{text} is no option", "give NAME=VALUE, as --option assistant=echo")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _contracts(path: Path) -> Any:
    """What a file says, in JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WrongUsage(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"{path} is not JSON: {error}", "give {skill: {input: schema, output: schema}} (docs/handoff.md)") from error


def _endpoint(text: str) -> dict[str, Any]:
    url, equals, weight = text.rpartition("=")
    return {"url": url, "weight": int(weight)} if equals and weight.isdigit() else {"url": text}


def _source(text: str) -> dict[str, Any]:
    if text.startswith(("http://", "https://")):
        return {"url": text}
    path = Path(text)
    try:
        card = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WrongUsage(f"{text} is neither an http address nor a file that can be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"{text} is not JSON: {error}", "give the agent's card, as it stands at /.well-known/agent-card.json") from error
    return {"card": card}


def _skills(agent: dict[str, Any]) -> list[str]:
    return [str(skill.get("id", skill)) if isinstance(skill, dict) else str(skill) for skill in agent.get("skills") or []]


def _show(agent: dict[str, Any]) -> None:
    names = ("name", "status", "kind", "url", "delegation", "clearance", "signature", "owner", "client_id", "created", "updated")
    pairs: list[tuple[str, object]] = [(name, agent.get(name)) for name in names]
    ceiling = agent.get("ceiling")
    pairs += [("at most", " ".join(ceiling) if isinstance(ceiling, list) else ceiling), ("skills", ", ".join(_skills(agent)))]
    pairs.append(("contracts", ", ".join(skill or "(all skills)" for skill in agent.get("contracts") or {})))
    pairs.append(("context", agent.get("context") if agent.get("context") != "none" else ""))
    pairs.append(("endpoints", ", ".join(f"{each['url']}={each['weight']}" for each in agent.get("endpoints") or [])))
    pairs.append(("killed", "an operator has stopped it: interlock kill list" if agent.get("killed") else ""))
    pairs.append(("quarantined", agent.get("quarantine")))
    pairs += looks(agent)
    screen.fields(pairs)
    _show_calls(agent.get("calls") or {}, str(agent.get("name")))
    _show_drift(agent)


def _show_calls(calls: dict[str, Any], name: str) -> None:
    """Where it is called and how that goes, where there is anything to tell."""
    endpoints = calls.get("endpoints") or []
    fault = calls.get("last_fault")
    if len(endpoints) < 2 and not fault:
        return
    rows = [(each["url"], each["weight"], each["state"], each["faults"], each["since"] or "") for each in endpoints]
    screen.table(["endpoint", "weight", "state", "faults in a row", "since"], rows)
    if fault:
        screen.note(f"last fault of {name}: {fault['problem']}, at {fault['at']}")
    retries = calls.get("retries") or {}
    screen.note(f"tried again: {retries.get('used', 0)}; as many may be at once now: {retries.get('left', 0)}")


def _show_drift(agent: dict[str, Any]) -> None:
    """What an operator has to look at before they approve."""
    for warning in agent.get("warnings") or []:
        screen.note(f"look at it: {warning}")
    drift = agent.get("drift") or []
    if drift:
        rows = [(change["path"], screen.brief(change["before"]), screen.brief(change["after"])) for change in drift]
        screen.table(["changed", "before", "after"], rows)
        seen = f" --seen {agent['updated']}" if agent.get("updated") else ""
        screen.note(f"to accept it: interlock agent approve {agent['name']}{seen}")


def _tell(agent: dict[str, Any]) -> None:
    """What is approved, beside the answer itself."""
    for field in ("url", "signature", "owner"):
        if agent.get(field):
            screen.note(f"{field}: {agent[field]}")
    screen.note(f"skills: {', '.join(_skills(agent)) or 'none'}")
    for warning in agent.get("warnings") or []:
        screen.note(f"look at it: {warning}")
    for change in agent.get("drift") or []:
        screen.note(f"changed: {change['path']}: {screen.brief(change['before'])} → {screen.brief(change['after'])}")
