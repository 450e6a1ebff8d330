"""The gateway as the benchmark meets it: a fresh home, shipped defaults, the upstream registered, tokens of many people."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token
from tests.bench.echo import OLDER
from tests.bench.echo_agents import AGENTS
from tests.bench.processes import GATEWAY_CORE, BenchFailure, Running, environment, run_process, tail_of
from tests.fakes.ports import free_port

SERVER, OLDER_SERVER, AGENT = "echo", "older-echo", AGENTS["/a2a"]
PATHS = {
    "mcp": f"/mcp/{SERVER}",
    "mcp_session": f"/mcp/{OLDER_SERVER}",
    "mcp_many": "/mcp",
    "mcp_list": "/mcp",
    "a2a": f"/agents/{AGENT}",
    "a2a_stream": "/agents/streaming-agent",
    "a2a_burst": "/agents/burst-agent",
    "a2a_get": f"/agents/{AGENT}",
    "a2a_list": f"/agents/{AGENT}",
    "a2a_from_0_3": f"/agents/{AGENT}",
    "a2a_to_0_3": "/agents/older-agent",
}
FORBIDDEN = "forbidden"
READS_INPUT = f"""@id("bench-reads-input")
forbid(principal, action, resource) when {{ context has input && context.input has text && context.input.text == "{FORBIDDEN}" }};
"""
_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Home:
    """A folder for one gateway: its data, its keys, its configuration, its log, and the port it will listen on."""

    folder: Path
    port: int

    @classmethod
    def fresh(cls, folder: Path, settings: dict[str, Any] | None = None, rules: str = "") -> "Home":
        """`settings` become interlock.yaml (JSON is YAML), `rules` the operator's policy folder."""
        folder.mkdir(parents=True)
        document = dict(settings or {})
        if rules:
            document["policies"] = str(folder / "policies")
            (folder / "policies").mkdir()
            (folder / "policies" / "bench.cedar").write_text(rules)
        if document:
            (folder / "interlock.yaml").write_text(json.dumps(document))
        return cls(folder, free_port())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def admin_token(self) -> str:
        """An operator's token from the command line."""
        command = [sys.executable, "-m", "gateway", "token", "--create-keys", "--user", "admin"]
        done = subprocess.run(command, cwd=self.folder, env=self._environment(), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise BenchFailure(f"interlock token failed with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout.strip()

    def tokens(self, prefix: str, count: int) -> list[str]:
        """Tokens of `count` different people, as `interlock token` makes them."""
        return self.tokens_of([f"{prefix}-{number}" for number in range(count)])

    def tokens_of(self, people: Sequence[str]) -> list[str]:
        """Tokens of these people."""
        keys = SigningKeys.open(self._data)
        return [mint_development_token(keys, Principal(_TENANT, DEVELOPMENT_ISSUER, person), self.url) for person in people]

    @contextmanager
    def serving(self, module: tuple[str, ...] = ("gateway",)) -> Iterator[Running]:
        """The gateway's process from its first moment: it may not listen yet. `module`: what Python runs, with its first arguments."""
        command = [sys.executable, "-m", *module, "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        log = self.folder / "gateway.log"
        with run_process(command, port=self.port, cwd=self.folder, log=log, env=self._environment(), cores=GATEWAY_CORE) as running:
            yield running

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _environment(self) -> dict[str, str]:
        return environment(INTERLOCK_HOME=str(self._data), INTERLOCK_PORT=str(self.port))


def send_request(
    running: Running,
    path: str,
    token: str = "",
    document: dict[str, Any] | None = None,
    extra: Mapping[str, str] = MappingProxyType({}),
    *,
    method: str = "POST",
) -> tuple[int, bytes]:
    """One request outside the clock: `method` of a document, else GET. Raises OSError while nothing listens."""
    return exchange(running, path, token, document, extra, method=method)[:2]


def exchange(
    running: Running,
    path: str,
    token: str = "",
    document: dict[str, Any] | None = None,
    extra: Mapping[str, str] = MappingProxyType({}),
    *,
    method: str = "POST",
) -> tuple[int, bytes, Mapping[str, str]]:
    """Like `send_request`, with the headers of the answer by their names in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}) | dict(extra)
        connection.request("GET" if document is None else method, path, json.dumps(document) if document is not None else None, headers)
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


def await_ready(running: Running, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if send_request(running, "/readyz")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        if running.ended or time.monotonic() > end:
            raise BenchFailure(f"the gateway is not ready:\n{tail_of(running.log)}")
        time.sleep(0.05)


def register(running: Running, token: str, upstream: Running) -> None:
    """The echo servers of both eras and the echo agents, over HTTP. Raises BenchFailure."""
    servers = [("/api/servers", {"url": upstream.url + path, "name": name}) for name, path in ((SERVER, "/mcp"), (OLDER_SERVER, OLDER))]
    agents = [("/api/agents", {"url": upstream.url + path.replace("/a2a", ""), "name": name}) for path, name in AGENTS.items()]
    for path, document in (*servers, *agents):
        status, body = send_request(running, path, token, document)
        if status != 201 or json.loads(body).get("status") != "active":
            raise BenchFailure(f"POST {path} {document}: {status} {body[:1000]!r}\n{tail_of(running.log)}")


def commit() -> str:
    """Which state of the project was measured."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


def disk_fsync_ms(folder: Path, times: int = 200) -> float:
    """Median milliseconds of appending 512 bytes and making them durable, where the gateways keep their data."""
    taken = []
    with (folder / "fsync").open("ab", buffering=0) as file:
        for _ in range(times):
            since = time.perf_counter()
            file.write(b"x" * 512)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - since)
    return sorted(taken)[times // 2] * 1e3
