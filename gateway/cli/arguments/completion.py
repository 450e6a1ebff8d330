"""Names that the shell completes: agents, servers, workflows, runs and tasks that the person may see at the gateway in use."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.cli.http_client import DEFAULT_URL
from gateway.cli.output import format_state
from gateway.cli.tokens.sessions import read_session

SECONDS_MAX: Final = 1.0  # for the whole answer: the person waits for the shell
BYTES_MAX: Final = 1 << 20
ITEMS_MAX: Final = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")  # other texts could mean something to the shell
Item = Mapping[str, Any]
Completer = Callable[[str], list[tuple[str, str]]]


def complete_agent(incomplete: str) -> list[tuple[str, str]]:
    """The names of agents, with their status."""
    return _complete("/api/agents", "name", incomplete, lambda item: str(item["status"]))


def complete_server(incomplete: str) -> list[tuple[str, str]]:
    """The names of servers, with their status."""
    return _complete("/api/servers", "name", incomplete, lambda item: str(item["status"]))


def complete_workflow(incomplete: str) -> list[tuple[str, str]]:
    """The names of workflows, with their versions."""
    return _complete("/api/workflows", "name", incomplete, lambda item: str(item["version"]))


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """The ids of the newest runs, with their workflow and state."""
    return _complete("/api/runs", "id", incomplete, lambda item: f"{item['workflow']} {format_state(item['state'])}")


def complete_task(incomplete: str) -> list[tuple[str, str]]:
    """The ids of the newest tasks, with their agent and state."""
    return _complete("/api/tasks", "id", incomplete, lambda item: f"{item['agent']} {format_state(item['state'])}")


def _complete(path: str, member: str, incomplete: str, describe: Callable[[Item], str]) -> list[tuple[str, str]]:
    """Returns what begins as `incomplete`. Empty where the gateway does not answer properly within SECONDS_MAX; prints nothing."""
    found: list[tuple[str, str]] = []

    def work() -> None:
        try:
            found.extend(_matches(_read_items(path), member, incomplete, describe))
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return  # a shell has no place for an error

    asking = Thread(target=work, daemon=True)  # a host that answers byte by byte outlives the timeout of each read
    asking.start()
    asking.join(SECONDS_MAX)
    return [] if asking.is_alive() else found


def _matches(items: list[Item], member: str, incomplete: str, describe: Callable[[Item], str]) -> Iterator[tuple[str, str]]:
    for item in items:
        name = str(item[member])
        if name.startswith(incomplete) and NAME.fullmatch(name):
            yield name, re.sub(r"[^\w .-]", "", describe(item))[:60]


def _read_items(path: str) -> list[Item]:
    """The first items of a list. Raises OSError, HTTPException, ValueError, LookupError."""
    url = (os.environ.get("INTERLOCK_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    kind = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
    connection = kind(parts.netloc, timeout=SECONDS_MAX)
    try:
        connection.request("GET", f"{parts.path}{path}?limit={ITEMS_MAX}", headers={"Authorization": f"Bearer {_token(url)}"})
        answer = connection.getresponse()
        return list(json.loads(answer.read(BYTES_MAX))["items"]) if answer.status == 200 else []
    finally:
        connection.close()


def _token(url: str) -> str:
    """INTERLOCK_TOKEN, else the token of `interlock login` while it is valid. It is not refreshed, which would take longer."""
    token = os.environ.get("INTERLOCK_TOKEN", "").strip()
    if token:
        return token
    session = read_session(url)
    return session.access_token if session is not None and session.expires > time.time() else ""
