"""tools and call: what MCP clients do, in revision 2026-07-28, from the command line."""

import base64
import json
import sys
from typing import Annotated, Any

import typer

from gateway.commands import screen
from gateway.commands.outcomes import Failed, WrongUsage
from gateway.commands.remote import Remote, connect, quoted

REVISION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": {"name": "interlock", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
Server = Annotated[str | None, typer.Option(help="One server, whose tools keep their own names (default: all that you may use).")]
PAGES = 100


def tools(server: Server = None, as_json: screen.AsJson = False) -> None:
    """Show the tools that you may call."""
    with connect() as remote, screen.progress("asking…"):
        items = _listed(remote, _path(server))
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
    """Call a tool."""
    given = _arguments(arguments)
    with connect() as remote, screen.progress(f"calling {tool}…"):
        result = request(remote, _path(server), "tools/call", {"name": tool, "arguments": given})
    if as_json:
        screen.data(result)
    else:
        screen.say(_text(result))
    if result.get("isError"):
        raise Failed(f"{tool} reports an error", "look at its arguments: interlock tools --json shows what it expects")
    if result.get("resultType") == "input_required":
        raise Failed(f"{tool} asks for more input, which this command can't give", "call it from an MCP client that supports elicitation")


def request(remote: Remote, path: str, method: str, params: dict[str, Any]) -> Any:
    """The result of one MCP request: nothing was agreed before, so each says all about itself (revision 2026-07-28)."""
    headers = {"MCP-Protocol-Version": REVISION, "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = header_value(params["name"])
    return remote.rpc(path, method, {**params, "_meta": META}, headers)


def header_value(name: str) -> str:
    """A name as a header: plain when it is visible ASCII, else in base64 between marks."""
    if name.isascii() and name.isprintable() and name == name.strip() and not name.startswith("=?"):
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


def _listed(remote: Remote, path: str) -> list[Any]:
    items: list[Any] = []
    cursor: dict[str, str] = {}
    for _ in range(PAGES):
        result = request(remote, path, "tools/list", cursor)
        items += result["tools"]
        if not result.get("nextCursor"):
            break
        cursor = {"cursor": result["nextCursor"]}
    return items


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
