"""The everything-server of the official SDK, with the two tools that the kit calls and it lacks."""

import importlib
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel


class Name(BaseModel):
    name: str


def extended(server: Any) -> None:
    """Adds them to an MCPServer."""

    def who() -> Elicit[Name]:
        return Elicit("What is your name?", Name)

    @server.tool(name="test_streaming_elicitation")  # type: ignore[untyped-decorator]  # the server is of a checkout without types
    async def greet(context: Context, name: Annotated[Name, Resolve(who)]) -> str:
        """Tells of its progress; the question comes as a result."""
        await context.report_progress(1, 1, "asked")
        return f"Hello {name.name}"

    @server.tool(name="test_logging_tool")  # type: ignore[untyped-decorator]  # as above
    async def log(context: Context) -> str:
        """Logs, for those who want logs."""
        await context.info("Tool execution started")
        return "Logged"


if __name__ == "__main__":
    everything = importlib.import_module("mcp_everything_server.server")
    extended(everything.mcp)
    everything.main()
