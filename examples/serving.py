"""The command line that the example agents share."""

import argparse
import logging
import os
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from examples.on_behalf import Gateway, credentials_from

HOST = "127.0.0.1"


def serve_agent(about: str, build: Callable[[str, Gateway], ASGIApp]) -> None:
    """Reads the flags, builds the agent for its own URL and the gateway it calls back, and serves it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gateway", default=os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), help="where the gateway is")
    parser.add_argument("--credentials", default="", help="JSON file with client_id and client_secret; may be written after the start")
    given = parser.parse_args()
    gateway = Gateway(given.gateway.rstrip("/"), credentials_from(given.credentials))
    serve(build(f"http://{HOST}:{given.port}", gateway), given.port)


def serve(app: ASGIApp, port: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    uvicorn.run(app, host=HOST, port=port, log_level="warning")
