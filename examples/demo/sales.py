"""The sales agents that the demo can be played with: one of A2A 0.3, and a graph on a LangGraph server."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from examples.demo.programs import HOST, ROOT, Program, Programs, free_port
from examples.demo.screen import Screen, StepFailed

LANGGRAPH: Final = ROOT / "build" / "vendors" / "langgraph"
GRAPH: Final = ROOT / "examples" / "langgraph_sales"


class Sales(Protocol):
    """`ready`: a path that answers once it is up; `registration`: what an operator says of it beside name, URL and ceiling."""

    @property
    def about(self) -> str: ...
    @property
    def ready(self) -> str: ...
    @property
    def speaks(self) -> str: ...
    @property
    def registration(self) -> dict[str, Any]: ...

    def start(self, programs: Programs, gateway: str, credentials: Path) -> Program:
        """Raises StepFailed."""
        ...

    def prove(self, screen: Screen, url: str) -> None:
        """Shows that it does not speak what support does. Raises StepFailed."""
        ...


@dataclass(frozen=True)
class OldSales:
    about: str = "sales, a sales agent (only A2A 0.3)"
    ready: str = "/.well-known/agent-card.json"
    speaks: str = "A2A 0.3"
    registration: dict[str, Any] = field(default_factory=dict)

    def start(self, programs: Programs, gateway: str, credentials: Path) -> Program:
        return programs.start("examples.sales_agent", free_port(), "--gateway", gateway, "--credentials", str(credentials))

    def prove(self, screen: Screen, url: str) -> None:
        answer = httpx.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage"}, trust_env=False).json()
        code = answer.get("error", {}).get("code")
        screen.check(code == -32601, "sales itself refuses the methods of A2A 1.0: what reaches it was translated", answer)


def _of_graph() -> dict[str, Any]:
    return {"kind": "langgraph", "upstream": {"assistant": "sales"}, "delegation": "header"}


@dataclass(frozen=True)
class GraphSales:
    """Its server is installed by `make demo SALES=langgraph`, and runs over a copy of the graph, as it writes into the folder."""

    about: str = "sales, a graph on a LangGraph server"
    ready: str = "/ok"
    speaks: str = "LangGraph"
    registration: dict[str, Any] = field(default_factory=_of_graph)

    def start(self, programs: Programs, gateway: str, credentials: Path) -> Program:
        if not (LANGGRAPH / "installed").exists():
            raise StepFailed("there is no LangGraph server in build/vendors/langgraph: make demo SALES=langgraph installs it")
        folder, port = programs.home / "langgraph_sales", free_port()
        shutil.copytree(GRAPH, folder, ignore=shutil.ignore_patterns("requirements.*", "__pycache__"))
        command = [LANGGRAPH / "bin" / "langgraph", "dev", "--no-browser", "--no-reload", "--host", HOST, "--port", str(port)]
        environment = {"SALES_GATEWAY": gateway, "SALES_CREDENTIALS": str(credentials)}
        quiet = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_LEVEL": "WARNING", "LOG_COLOR": "false"}
        return programs.run("langgraph_sales", command, port, folder, **environment, **quiet)

    def prove(self, screen: Screen, url: str) -> None:
        about = httpx.get(f"{url}/info", trust_env=False).json()
        answer = httpx.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage"}, trust_env=False)
        claim = f"sales is a LangGraph server ({about.get('version')}), with threads and runs: what reaches it was translated"
        screen.check("langgraph_py_version" in about and answer.is_client_error, claim, (about, answer.text))


SALES: Final[dict[str, Sales]] = {"": OldSales(), "langgraph": GraphSales()}
