"""An MCP server on its standard streams; run as a program."""

import asyncio
import os
import signal
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("stdio")
canceled = asyncio.Event()


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
def environment() -> dict[str, str]:
    """All that this process was given."""
    return dict(os.environ)


@server.tool()
def process() -> int:
    return os.getpid()


@server.tool()
def fail() -> str:
    raise ToolError("no luck")


@server.tool()
def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool()
async def hang(seconds: float = 60) -> str:
    """Blocks the whole process, so that it answers nobody."""
    time.sleep(seconds)  # noqa: ASYNC251 (nothing else may run meanwhile)
    return "late"


@server.tool()
async def dawdle() -> str:
    """Takes long, while the process answers others."""
    try:
        await asyncio.sleep(60)
    finally:
        canceled.set()
    return "late"


@server.tool()
async def cancelled() -> str:
    """Waits until a call of `dawdle` is cancelled."""
    await canceled.wait()
    return "dawdle"


if __name__ == "__main__":
    server.run("stdio")
