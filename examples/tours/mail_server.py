"""An MCP server with one tool that pretends to send mails to customers."""

import argparse
from itertools import count
from typing import TypedDict

from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette

from examples.serving import HOST, serve


class Mail(TypedDict):
    mail: str
    customer_id: int


def build() -> Starlette:
    """The server as an ASGI application at `/mcp`."""
    numbers = count(1)
    server = MCPServer("mail", instructions="Mails to customers.", log_level="WARNING")

    @server.tool()
    def send(customer_id: int, text: str = "") -> Mail:
        """Sends a mail to a customer."""
        return Mail(mail=f"M-{next(numbers)}", customer_id=customer_id)

    return server.streamable_http_app(json_response=True, host=HOST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    serve(build(), parser.parse_args().port)
