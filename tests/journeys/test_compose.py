"""compose.yaml: what it says, and what its services do, each by its own command, on loopback and a real PostgreSQL."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.server.settings import Settings
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.house import image
from tests.house.source import ROOT
from tests.house.test_settings import paths

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("gateway", "inventory", "support", "sales", "register")


def test_services_are_built_from_stages_that_there_are() -> None:
    stages = {stage.name for stage in image.stages((ROOT / "Dockerfile").read_text())}
    assert {SERVICES[name]["build"]["target"] for name in OURS} == {"gateway", "examples"} <= stages
    assert all(SERVICES[name]["build"]["context"] == "." for name in OURS)


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    assert SERVICES["database"]["networks"] == ["inside"] and COMPOSE["networks"]["inside"]["internal"]
    assert {name for name, service in SERVICES.items() if "inside" in service.get("networks", ())} == {
        *("gateway", "database", "traces"),
        *("prometheus", "grafana"),
    }


def test_our_containers_have_no_rights_that_they_do_not_need() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"]), name


def test_every_variable_of_the_gateway_is_a_setting() -> None:
    known = {f"INTERLOCK_{path.upper().replace('.', '__')}" for path in paths(Settings)}
    given = {name for name in SERVICES["gateway"]["environment"] if name.startswith("INTERLOCK_")}
    assert given and given <= known


def test_every_volume_and_mounted_file_is_there() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert {name for name in mounted if not name.startswith(".")} == COMPOSE["volumes"].keys()
    assert all((ROOT / name).is_file() for name in mounted if name.startswith("."))


class Compose:
    """The services as processes of this machine: containers' places become folders, ports free ones."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self._ports = {known: str(free_port()) for known in ("8080", "7001", "7002", "7003")}
        for place in ("data", "credentials", "etc"):
            (folder / place).mkdir()
        config = (ROOT / "examples" / "compose" / "interlock.yaml").read_text()
        (folder / "etc" / "interlock.yaml").write_text(self.here(config))
        given = {**SERVICES["gateway"]["environment"], "INTERLOCK_DATABASE__URL": database, "INTERLOCK_PORT": self._ports["8080"]}
        self.url = self.here(given["INTERLOCK_SERVER__PUBLIC_URL"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INTERLOCK_", "OTEL_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.agents = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "INTERLOCK_HOME": str(folder / "data"), "COLUMNS": "200"}
        self.gateway = {**self.agents, **{name: self.here(value) for name, value in given.items() if not name.startswith("OTEL")}}

    def here(self, text: str) -> str:
        """The text as where no variable is set (`${NAME:-default}`, `${NAME:+otherwise}`), with places of this machine."""
        text = re.sub(r"\$\{\w+:\+[^}]*\}", "", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
        for known, port in self._ports.items():
            text = re.sub(rf"\b{known}\b", port, text)
        return re.sub(r"(?<=[= ])/credentials|^/credentials", str(self.folder / "credentials"), text).replace(
            "/etc/interlock/", f"{self.folder}/etc/"
        )

    def command(self, name: str) -> list[str]:
        given = [self.here(part) for part in SERVICES[name]["command"]]
        return [sys.executable, "-m", "gateway", *given] if name == "gateway" else [sys.executable, *given[1:], *self._gateway(name)]

    def _gateway(self, name: str) -> list[str]:
        return [] if name == "inventory" else ["--gateway", self.url]

    @contextmanager
    def started(self, name: str) -> Iterator[None]:
        environment = self.gateway if name == "gateway" else self.agents
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(self.command(name), cwd=self.folder, env=environment, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.terminate()
                process.wait(timeout=60)

    def run(self, *command: str, **more: str) -> str:
        ran = subprocess.run(command, cwd=self.folder, env={**self.agents, **more}, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr + ran.stdout
        return ran.stdout.strip()

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False


def test_an_order_goes_through_both_agents(tmp_path: Path, postgres_url: str) -> None:
    compose = Compose(tmp_path, postgres_url)
    with ExitStack() as running:
        for name in ("gateway", "inventory", "support", "sales"):
            running.enter_context(compose.started(name))
        asyncio.run(until(compose.ready, seconds=300, every=0.1))
        compose.run(*compose.command("register"))
        compose.run(*compose.command("register"))  # once more, as after a restart
        here = {"INTERLOCK_URL": compose.url}
        token = compose.run("interlock", "token", "--user", "alice")
        sent = compose.run("interlock", "send", "support", "2 of SKU-7, please", "--json", INTERLOCK_TOKEN=token, **here)
        assert "TASK_STATE_COMPLETED" in sent and "R-1001" in sent
