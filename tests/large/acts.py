"""What people, operators, clients and time do to a large gateway, each with what it may take of the event loop."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from tests.bench.console_fixture import agent_name
from tests.bench.console_pages import PAGES
from tests.bench.processes import BenchFailure
from tests.large.questions import NEXT_CURSOR, QUESTIONS, Side

FORBIDS: Final = '@id("large")\nforbid(principal in Role::"nobody-{}", action, resource);\n'
IDLE_SECONDS: Final = 6  # the longest round of what is done periodically on a large gateway begins every 5 seconds
PRUNED_DAYS: Final = 20  # the age of the tasks that an act deletes


class Operator:
    """An operator with a token, with a session of the console, and with the files of the gateway's folder."""

    def __init__(self, side: Side, admin: str) -> None:
        self._side = side
        self._admin = admin
        self._cookie = ""
        self._count = 0

    def get(self, path: str) -> bytes:
        return self._side.ask(path, token=self._admin)

    def post(self, path: str, document: Any) -> bytes:
        return self._side.ask(path, document, token=self._admin)

    def show(self, path: str) -> None:
        """Loads a page of the console. Raises BenchFailure."""
        if not self._cookie:
            link = str(json.loads(self.post("/api/console/links", {}))["url"]).partition("link=")[2]
            self._cookie = self._exchange("POST", "/console/sign-in", urlencode({"link": link}))[1].partition(";")[0]
        status, _ = self._exchange("GET", path, "")
        if status not in (200, 404):  # a smaller gateway lacks some of the pages
            raise BenchFailure(f"{path}: {status}")

    def change(self, name: str) -> None:
        """Changes an entry."""
        self._count += 1
        self._send("PATCH", f"/api/agents/{name}", {"rank": self._count})

    def stop_agent(self, name: str) -> None:
        """Stops an agent, and lifts that."""
        kill = json.loads(self.post("/api/kill", {"kind": "agent", "name": name, "reason": "measured"}))
        self._send("DELETE", f"/api/kill/{kill['id']}", None)

    def change_policies(self) -> None:
        """Writes a policy, and waits until it is in force."""
        self._count += 1
        folder = self._side.home.folder / "policies"
        (folder / "large.cedar").write_text(FORBIDS.format(self._count))
        time.sleep(3)

    def _send(self, method: str, path: str, document: Any) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._side.running.port, timeout=60)
        sent = {"Authorization": f"Bearer {self._admin}", "Content-Type": "application/json"}
        connection.request(method, path, None if document is None else json.dumps(document), sent)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status >= 300:
            raise BenchFailure(f"{method} {path}: {response.status} {body[:500]!r}")

    def _exchange(self, method: str, path: str, body: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._side.running.port, timeout=60)
        sent = {"Cookie": self._cookie} if self._cookie else {}
        sent |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self._side.home.url} if body else {}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, response.getheader("set-cookie") or ""


def list_all(side: Side, token: str) -> list[float]:
    """Reads all pages of tools/list. Returns the milliseconds of each."""
    pages, more = [], dict[str, str]()
    while True:
        began = time.perf_counter()
        page = side.mcp("tools/list", token=token, **more)
        pages.append((time.perf_counter() - began) * 1e3)
        found = NEXT_CURSOR.search(page[-400:]) or NEXT_CURSOR.search(page)
        if found is None:
            return pages
        more = {"cursor": found[1].decode()}


def acts_of(side: Side, operator: Operator) -> dict[str, Callable[[], Any]]:
    """What is done, in an order in which what comes first finds nothing prepared."""
    told = {"messageId": f"route-{time.time_ns()}", "role": "ROLE_USER", "parts": [{"text": "I would like to see a quote"}]}
    new = side.home.tokens("unlike", 3)
    acts: dict[str, Callable[[], Any]] = {
        "no request": lambda: time.sleep(IDLE_SECONDS),
        "first list of tools": lambda: list_all(side, new[0]),
        "list of other rights": lambda: list_all(side, new[1]),
        "first search of tools": lambda: QUESTIONS["search_tools"](side),
        "message to the front door": lambda: side.a2a("SendMessage", "interlock", message=told | {"messageId": f"m{time.time_ns()}"}),
        **{f"question {name}": lambda ask=ask: ask(side) for name, ask in QUESTIONS.items()},  # type: ignore[misc]  # bound now
        "search in A2A form": lambda: side.ask("/ard/search", {"query": {"text": "agent benchmark"}}),
        "explore": lambda: side.ask("/ard/explore", {"query": {"text": "agent"}, "resultType": {"facets": [{"field": "tags"}]}}),
        "metrics": lambda: operator.get("/metrics"),
        "agents as declarations": lambda: operator.get("/api/declarations?limit=200"),
        "servers": lambda: operator.get("/api/servers?limit=200"),
        "failing agents": lambda: operator.get("/api/agents?limit=50&failing=true"),
        "audit": lambda: operator.get("/api/audit?limit=200"),
        "audit export": lambda: operator.get("/api/audit/export"),
        "audit verification": lambda: operator.get("/api/audit/verification"),
        "what-if": lambda: operator.post("/api/policies/what-if", {}),
        "costs": lambda: operator.get("/api/cost"),
        **{f"page {name}": lambda path=path: operator.show(path) for name, path in PAGES.items()},  # type: ignore[misc]  # bound now
        "change of an agent": lambda: operator.change(agent_name(17)),
        "list after that": lambda: list_all(side, new[0]),
        "message after that": lambda: side.a2a("SendMessage", "interlock", message=told | {"messageId": f"m{time.time_ns()}"}),
        "search after that": lambda: QUESTIONS["search_tools"](side),
        "agent stopped": lambda: operator.stop_agent(agent_name(18)),
        "policies changed": operator.change_policies,
        "list after both": lambda: list_all(side, new[0]),
        "search after both": lambda: QUESTIONS["search_tools"](side),
        "deletion of old tasks": lambda: operator.post("/api/retention/prune", {"days": PRUNED_DAYS}),
        "no request any more": lambda: time.sleep(IDLE_SECONDS),
    }
    return acts
