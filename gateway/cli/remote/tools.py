"""tools and call: lists and calls tools over MCP."""

import json
import sys
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_server
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.http_client import connect, quote_segment
from gateway.cli.terminal.elicitation import current_terminal

CALL_EXAMPLE = """Example: interlock call inventory_check '{"sku": "SKU-7"}'"""
ServerOption = Annotated[
    str | None,
    typer.Option(help="One server, whose tools have their own names (default: all servers).", autocompletion=complete_server),
]


def tools(server: ServerOption = None, as_json: screen.AsJson = False) -> None:
    """Show the tools that you may call."""
    from gateway.cli.mcp_client import McpToolClient

    with connect() as remote:
        items = McpToolClient(remote, _mcp_path(server)).list_tools()
    rows = ((tool["name"], _first_line(tool.get("description") or tool.get("title") or "")) for tool in items)
    screen.print_list(items, as_json, ["name", "what it does"], rows, "no tools that you may call")


def call(
    tool: Annotated[str, typer.Argument(help="The tool's name, as `interlock tools` shows it.", metavar="TOOL")],
    arguments: Annotated[
        str, typer.Argument(help="Its arguments, a JSON object; - reads them from standard input.", metavar="JSON")
    ] = "{}",
    server: ServerOption = None,
    as_json: screen.AsJson = False,
) -> None:
    """Call a tool. Questions of the tool are asked at the terminal."""
    call_arguments = _read_arguments(arguments)
    from gateway.cli.mcp_client import McpToolClient

    with connect() as remote:
        result = McpToolClient(remote, _mcp_path(server), current_terminal()).call_tool(tool, call_arguments)
    if as_json:
        screen.print_json(result)
    else:
        screen.print_text(_result_text(result))
    if result.get("isError"):
        raise CommandFailed(f"{tool} reports an error", "check its arguments: interlock tools --json shows what it expects")


def _mcp_path(server: str | None) -> str:
    return "/mcp" if server is None else f"/mcp/{quote_segment(server)}"


def _read_arguments(text: str) -> dict[str, Any]:
    raw = sys.stdin.read() if text == "-" else text
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"the arguments are not JSON: {error}", """for example: interlock call crm_read '{"id": 7}'""") from error
    if not isinstance(document, dict):
        raise WrongUsage("the arguments are not a JSON object", """for example: interlock call crm_read '{"id": 7}'""")
    return document


def _result_text(result: dict[str, Any]) -> str:
    """Returns the text of a result. Other content is named by its kind; without content the structured form is printed."""
    parts = [part.get("text") or f"[{part.get('type', 'content')}]" for part in result.get("content") or []]
    if not parts and "structuredContent" in result:
        return json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)
    return "\n".join(parts)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def register(app: typer.Typer) -> None:
    app.command()(tools)
    app.command(epilog=CALL_EXAMPLE)(call)
