"""tools and call: what MCP clients do, from the command line."""

import json
import sys
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.elicitation import here
from gateway.cli.exit_codes import Failed, WrongUsage
from gateway.cli.http_client import connect, quoted

Server = Annotated[str | None, typer.Option(help="One server, whose tools keep their own names (default: all that you may use).")]


def tools(server: Server = None, as_json: screen.AsJson = False) -> None:
    """Show the tools that you may call."""
    from gateway.cli.mcp_client import Tools

    with connect() as remote:
        items = Tools(remote, _path(server)).listed()
    if as_json:
        screen.data({"items": items})
        return
    rows = [(tool["name"], _first_line(tool.get("description") or tool.get("title") or "")) for tool in items]
    screen.table(["name", "what it does"], rows, "no tools that you may call")


def call(
    tool: Annotated[str, typer.Argument(help="The tool's name, as `interlock tools` shows it.", metavar="TOOL")],
    arguments: Annotated[
        str, typer.Argument(help="Its arguments, a JSON object; - reads them from standard input.", metavar="JSON")
    ] = "{}",
    server: Server = None,
    as_json: screen.AsJson = False,
) -> None:
    """Call a tool. What it asks of you in between is asked at the terminal."""
    given = _arguments(arguments)
    from gateway.cli.mcp_client import Tools

    with connect() as remote:
        result = Tools(remote, _path(server), here()).called(tool, given)
    if as_json:
        screen.data(result)
    else:
        screen.say(_text(result))
    if result.get("isError"):
        raise Failed(f"{tool} reports an error", "look at its arguments: interlock tools --json shows what it expects")


def _path(server: str | None) -> str:
    return "/mcp" if server is None else f"/mcp/{quoted(server)}"


def _arguments(text: str) -> dict[str, Any]:
    raw = sys.stdin.read() if text == "-" else text
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"the arguments are not JSON: {error}", """for example: interlock call crm_read '{"id": 7}'""") from error
    if not isinstance(given, dict):
        raise WrongUsage("the arguments are not a JSON object", """for example: interlock call crm_read '{"id": 7}'""")
    return given


def _text(result: dict[str, Any]) -> str:
    """What people see of a result: its text; what else it holds by its kind; the structured form where there is no text."""
    parts = [part.get("text") or f"[{part.get('type', 'content')}]" for part in result.get("content") or []]
    if not parts and "structuredContent" in result:
        return json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)
    return "\n".join(parts)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def register(app: typer.Typer) -> None:
    for command in (tools, call):
        app.command()(command)
