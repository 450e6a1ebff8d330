"""A scenario of examples/workflows in a whole gateway: its scripted agents on loopback, its document added by the command line."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from examples.workflow_agents.__main__ import PORT, build
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.publishing.needs import Need, needs_of
from registry.cards.card import WORKFLOW_KIND, Family
from tests.examples.conftest import served
from tests.fakes.house import House, open_house
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows
from tests.gateway.cli.conftest import CommandLine, Ran
from tests.house.source import ROOT

FOLDER = ROOT / "examples" / "workflows"
CONFIGURATION = ROOT / "examples" / "workflow_agents" / "interlock.yaml"


class Scenario:
    """One workflow of the examples, ready to run. `user` starts runs, `admin` decides."""

    def __init__(self, home: House, interlock: CommandLine, user: str, name: str) -> None:
        self.home = home
        self.user = user
        self.name = name
        self.workflows = Workflows(home)
        self._interlock = interlock

    async def command(self, user: str, *arguments: str) -> Ran:
        """Runs the command line as this user."""
        self._interlock.environment.update({"INTERLOCK_URL": self.home.url, "INTERLOCK_TOKEN": self.home.token(user)})
        return await asyncio.to_thread(self._interlock, *arguments)

    async def start(self, user: str = "", **given: Any) -> str:
        """The id of a new run."""
        ran = await self.command(user or self.user, "workflow", "run", self.name, json.dumps(given), "--detach", "--json")
        assert ran.code == 0, ran.err
        return str(ran.json["id"])

    async def send_event(self, kind: str, data: Any, user: str = "shop") -> None:
        """Sends an event as a program outside does, with the command line."""
        arguments = ("event", "send", kind, "--source", "https://shop.example", "--data", json.dumps(data))
        ran = await self.command(user, *arguments)
        assert ran.code == 0, ran.err

    async def started(self, workflow: str = "", count: int = 1) -> str:
        """The id of the newest run of a workflow, as soon as events or schedules have started so many."""
        found: list[Any] = []

        async def are_there() -> bool:
            path = f"/api/runs?everybody=true&workflow={workflow or self.name}"
            found[:] = (await self.workflows.desk.ask("GET", path, "admin")).json()["items"]
            return len(found) >= count

        await until(are_there, every=0.05)
        return str(found[0]["id"])

    async def suspended_after(self, run: str, step: str, times: int) -> None:
        """Waits until a step whose pointer ends so has ended so many times, and the run waits without a process."""

        async def is_there() -> bool:
            shown = await self.workflows.show(run, "admin")
            ended = sum(each["step"].endswith(step) for each in shown["steps"])
            return ended >= times and shown["state"] == "TASK_STATE_WORKING" and bool(shown["note"])

        await until(is_there, every=0.05)

    async def output(self, run: str) -> Any:
        """What a run returned that completed."""
        return await self.workflows.output(run, self.user)

    async def problem(self, run: str, user: str = "") -> dict[str, Any]:
        """The problem details (RFC 7807) of a run that failed."""
        user = user or self.user
        shown = await self.workflows.ended(run, user)
        task = (await self.workflows.desk.ask("GET", f"/api/tasks/{run}", user)).json()
        assert shown["state"] == "TASK_STATE_FAILED", task
        return dict(task["status"]["message"]["parts"][1]["data"])

    async def answer(self, run: str, value: Any, user: str = "admin") -> str:
        """Answers the question of a run, as somebody who may decide does at the command line, and returns the question."""

        async def is_asked() -> bool:
            return any(each["run"] == run for each in await self.workflows.checkpoints(user))

        await until(is_asked)
        pending = (await self.command(user, "run", "checkpoints", "--json")).json["items"]
        (asked,) = [each for each in pending if each["run"] == run]
        ran = await self.command(user, "run", "answer", asked["id"], json.dumps(value))
        assert ran.code == 0, ran.err
        return str(asked["prompt"])

    async def call(self, server: str, tool: str, **arguments: Any) -> Any:
        """What a tool says of its state afterwards."""
        answer = await self.home.call(self.home.token("admin"), f"/mcp/{server}", tool, arguments)
        return answer.json()["result"]["structuredContent"]

    async def mails(self, member: str) -> list[str]:
        """One member of every e-mail that the mail system of the examples sent, the oldest first."""
        return [each[member] for each in (await self.call("mail", "list_sent"))["sent"]]


def configuration(url: str, names: set[str]) -> dict[str, Any]:
    """The settings of examples/workflow_agents/interlock.yaml with the programs of these names, at `url`."""
    given = yaml.safe_load(CONFIGURATION.read_text().replace(f"http://127.0.0.1:{PORT}", url))
    for family in ("agents", "servers"):
        given[family] = [each for each in given[family] if each["name"] in names]
    return {name: given[name] for name in ("roles", "users", "service_principals", "agents", "servers")}


@asynccontextmanager
async def scenario(
    folder: Path, database_url: str, interlock: CommandLine, *, name: str, user: str, others: Sequence[str] = ()
) -> AsyncIterator[Scenario]:
    """A gateway with the workflow `name`, those beside it, and what their documents name."""
    paths = [FOLDER / f"{each}.yaml" for each in (name, *others)]
    texts = [await asyncio.to_thread(path.read_text, "utf-8") for path in paths]
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    names = {need.name for text in texts for need in needs_of(read_document(read_source(text))) if isinstance(need, Need)}
    settings = await asyncio.to_thread(configuration, url, names)
    async with served(build(url, names), listener), open_house(folder, database_url, **settings) as home:
        made = Scenario(home, interlock, user, name)
        for path in paths:
            added = await made.command("admin", "workflow", "add", str(path))
            assert added.code == 0, added.err
        yield made


@asynccontextmanager
async def whole_example(folder: Path, database_url: str) -> AsyncIterator[Workflows]:
    """A gateway with exactly examples/workflow_agents/interlock.yaml, but for the port, once it has published the folder of documents."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    given = yaml.safe_load((await asyncio.to_thread(CONFIGURATION.read_text)).replace(f"http://127.0.0.1:{PORT}", url))
    given["workflows"] = str(ROOT / given["workflows"])
    async with served(build(url), listener), open_house(folder, database_url, **given) as home:
        await home.gateway.database.refresh_epochs()
        workflows = Workflows(home)
        documents = [path for path in FOLDER.glob("*.yaml") if ".test." not in path.name]
        texts = await asyncio.to_thread(lambda: [path.read_text("utf-8") for path in documents])

        async def are_published() -> bool:
            there = [entry for entry in home.gateway.registry.list("default", Family.AGENT) if entry.kind == WORKFLOW_KIND]
            triggers = (await workflows.desk.ask("GET", "/api/triggers")).json()["items"]
            return len(there) == len(texts) and len(triggers) == sum("\nschedule:" in text for text in texts)

        await until(are_published, every=0.05)
        yield workflows
