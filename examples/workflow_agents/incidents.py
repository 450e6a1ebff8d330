"""What a data center needs when a server fails: incident.yaml."""

from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server, refuse

CAUSES = (
    ("release", {"cause": "the last release", "action": "rollback", "confidence": 0.93}),
    ("no answer", {"cause": "its network card", "action": "reroute", "confidence": 0.88}),
    ("slow", {"cause": "a nightly job", "action": "watch", "confidence": 0.8}),
)


def coordinate(given: Given) -> dict[str, Any]:
    """The cause of an alarm, and what is to be done."""
    fallback = {"cause": "unclear", "action": "rollback", "confidence": 0.2}
    return next((found for sign, found in CAUSES if sign in given["alarm"]), fallback)


def network() -> list[Callable[..., Any]]:
    """Nothing helps the host `web-9`."""
    routes: dict[str, str] = {}
    numbers = count(1)

    def reroute(host: str) -> dict[str, str]:
        """Leads the traffic of a host to the others."""
        if host.startswith("db"):
            raise refuse(f"{host} is the only host of its kind")
        route = f"N-{next(numbers)}"
        routes[route] = host
        return {"route": route}

    def restore_route(route: str) -> dict[str, str]:
        """Leads the traffic back."""
        return {"host": routes.pop(route, "")}

    def list_routes() -> dict[str, list[str]]:
        """The hosts around which traffic is led."""
        return {"hosts": sorted(routes.values())}

    def probe(host: str) -> dict[str, bool]:
        """Whether what a host does is served again."""
        return {"healthy": host != "web-9"}

    return [reroute, restore_route, list_routes, probe]


def releases() -> list[Callable[..., Any]]:
    current: dict[str, int] = {}

    def roll_back(host: str) -> dict[str, int]:
        """Puts the release before the current one on a host."""
        current[host] = current.get(host, 42) - 1
        return {"release": current[host]}

    return [roll_back]


def pager() -> list[Callable[..., Any]]:
    alerts: list[str] = []
    entries: list[dict[str, str]] = []

    def alert(text: str) -> dict[str, int]:
        """Tells the team."""
        alerts.append(text)
        return {"alert": len(alerts)}

    def log(host: str, cause: str, action: str) -> dict[str, int]:
        """Writes an entry into the log of incidents."""
        entries.append({"host": host, "cause": cause, "action": action})
        return {"entry": len(entries)}

    def list_alerts() -> dict[str, list[str]]:
        """What the team was told."""
        return {"alerts": alerts}

    return [alert, log, list_alerts]


AGENTS = (Agent("site-reliability", "Finds the cause of alarms and says what to do.", coordinate),)
SERVERS = (Server("network", network), Server("releases", releases), Server("pager", pager))
