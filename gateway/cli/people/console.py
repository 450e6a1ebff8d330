"""console: prints a one-time link that opens the console in a browser."""

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway


def console(as_json: screen.AsJson = False) -> None:
    """Print a link that opens the console in a browser as you: good for five minutes and one use."""
    link = call_gateway("POST", "/api/console/links")
    if as_json:
        screen.print_json(link)
        return
    screen.print_text(link["url"])
    screen.print_note(f"open it within {link['seconds'] // 60} minutes; anyone who opens it acts as you until the session ends")


def register(app: typer.Typer) -> None:
    app.command()(console)
