"""Documents of the configured folder are published before the gateway serves; operators see which are refused, with all reasons."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from gateway.server.banner import banner_lines, print_banner
from gateway.server.composition import workflows as composition
from gateway.workflows.publishing.folder import WorkflowFolder
from registry.cards.card import Registration
from registry.changes import RegistryChange
from registry.store import NameTaken
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.workflows import Workflows, document

SAY = "do:\n- say: {set: {a: 1}}\n"
CALL = "do:\n- sub: {run: {workflow: {namespace: tests, name: say, version: latest}}}\n"
ASK = """do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: hi}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
MISSPELT = "do:\n- say: {sett: {a: 1}}\n- two: {set: {a: 1}, thenn: end}\n"


@asynccontextmanager
async def gateway_with(
    tmp_path: Path, database_url: str, given: Mapping[str, Any] = MappingProxyType({}), **documents: str
) -> AsyncIterator[House]:
    """A gateway that has started with these files as its folder, each named after what it is called here. `given`: more settings."""
    folder = tmp_path / "documents"
    await asyncio.to_thread(folder.mkdir)
    for name, text in documents.items():
        (folder / f"{name}.yaml").write_text(text)
    async with house(tmp_path / "home", database_url, workflows=str(folder), **given) as home:
        yield home


async def asked(home: House, path: str, user: str) -> dict[str, Any]:
    answer = await Workflows(home).desk.ask("GET", path, user)
    return dict(answer.json()) | {"http_status": answer.status_code}


async def test_documents_are_published_before_the_gateway_serves(tmp_path: Path, database_url: str) -> None:
    documents = {"a-call": document("call", CALL), "say": document("say", SAY)}  # the first one runs the second
    async with gateway_with(tmp_path, database_url, **documents) as home:
        assert [each["name"] for each in (await asked(home, "/api/workflows", "alice"))["items"]] == ["call", "say"]
        assert home.gateway.workflows.folder.refused_documents("default") == []


async def test_operators_see_refused_documents_with_all_reasons(tmp_path: Path, database_url: str) -> None:
    async with gateway_with(tmp_path, database_url, say=document("say", SAY), bad=document("worse", MISSPELT), torn="a: [") as home:
        listed = await asked(home, "/api/workflows", "admin")
        refused = {each["file"]: each for each in listed["refused"]}
        assert [each["name"] for each in listed["items"]] == ["say"] and list(refused) == ["bad.yaml", "torn.yaml"]
        assert [(each["line"], each["path"]) for each in refused["bad.yaml"]["problems"]] == [(4, "/do/0/say"), (5, "/do/1/two/thenn")]
        assert (refused["bad.yaml"]["name"], refused["torn.yaml"]["name"]) == ("worse", "")
        for name in ("worse", "bad", "bad.yaml"):
            shown = await asked(home, f"/api/workflows/{name}", "admin")
            assert (shown["status"], shown["fits"], shown["problems"]) == ("refused", False, refused["bad.yaml"]["problems"])
        assert any("bad.yaml, torn.yaml: interlock workflow list" in line for line in banner_lines(home.gateway))


async def test_the_start_suggests_to_send_text_to_an_agent_and_not_to_a_workflow(tmp_path: Path, database_url: str) -> None:
    async with gateway_with(tmp_path, database_url, say=document("say", SAY)) as home:
        assert not any("interlock send" in line for line in banner_lines(home.gateway))
        await home.agent(CallbackAgent("support"))
        assert any('interlock send support "hello"' in line for line in banner_lines(home.gateway))


async def test_others_learn_nothing_of_refused_documents(tmp_path: Path, database_url: str) -> None:
    async with gateway_with(tmp_path, database_url, bad=document("worse", MISSPELT)) as home:
        assert (await asked(home, "/api/workflows", "alice"))["refused"] == []
        unknown = [await asked(home, f"/api/workflows/{name}", "alice") for name in ("worse", "nowhere")]
        assert unknown[0] == unknown[1] and unknown[0]["http_status"] == 404
        assert home.gateway.workflows.folder.refused_documents("elsewhere") == ()


async def test_a_refused_document_is_published_once_it_is_mended(tmp_path: Path, database_url: str) -> None:
    async with gateway_with(tmp_path, database_url, ask=document("ask", ASK), gone="a: [") as home:
        (reason, _) = (await asked(home, "/api/workflows", "admin"))["refused"]
        assert "`sales`, which is not registered" in reason["problems"][0]["reason"]
        await home.agent(CallbackAgent("sales"))
        (tmp_path / "documents" / "gone.yaml").unlink()
        await home.gateway.workflows.folder.publish_waiting()
        listed = await asked(home, "/api/workflows", "admin")
        assert [each["name"] for each in listed["items"]] == ["ask"] and listed["refused"] == []


async def test_an_earlier_version_is_shown_with_the_document_that_is_refused(tmp_path: Path, database_url: str) -> None:
    async with gateway_with(tmp_path, database_url, say=document("say", MISSPELT)) as home:
        await Workflows(home).add("say", SAY)
        shown = await asked(home, "/api/workflows/say", "admin")
        assert shown["status"] == "active" and shown["refused"]["file"] == "say.yaml"
        assert (await asked(home, "/api/workflows/say", "alice"))["refused"] is None


async def test_a_start_that_takes_a_while_says_how_far_it_is(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(composition, "PROGRESS_SECONDS", 0.0)
    async with gateway_with(tmp_path, database_url, say=document("say", SAY), bad=document("bad", MISSPELT)) as home:
        print_banner(home.gateway)
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    told = [each for each in logged if each["event"] == "workflows_publishing"]
    assert told and told[0]["documents"] == 2
    assert [each["refused"] for each in logged if each["event"] == "serving"] == [["bad.yaml"]]
    assert [each["file"] for each in logged if each["event"] == "workflow_refused"] == ["bad.yaml"]


SCHEDULED = """document: {dsl: 1.0.3, namespace: tests, name: nightly, version: 1.0.0, metadata: {gateway: {runAs: clerk}}}
schedule: {on: {one: {with: {type: shop.paid}}}}
do:
- say: {set: {a: 1}}
"""


async def test_schedules_of_documents_exist_before_the_gateway_serves(tmp_path: Path, database_url: str) -> None:
    given = {"service_principals": {"clerk": {"roles": ["member"]}}}
    async with gateway_with(tmp_path, database_url, given, nightly=SCHEDULED) as home:
        (trigger,) = (await asked(home, "/api/triggers", "admin"))["items"]
        assert (trigger["workflow"], trigger["event_types"]) == ("nightly", ["shop.paid"])


class RacingRegistrar:
    """Another process registers each document before this one, which learns of it by `reload`."""

    def __init__(self) -> None:
        self.has_reloaded = False

    async def add(self, _tenant: str, _owner: str, text: str, _change: RegistryChange) -> Registration:
        if not self.has_reloaded:
            raise NameTaken(text)
        return cast(Registration, SimpleNamespace(name="say"))

    async def reload(self) -> None:
        self.has_reloaded = True


async def test_a_document_that_another_process_registers_meanwhile_is_not_refused(tmp_path: Path) -> None:
    begun = list[str]()

    async def begin_schedules() -> None:
        begun.append("schedules")

    path = tmp_path / "say.yaml"
    path.write_text(document("say", SAY))
    folder = WorkflowFolder([path], RacingRegistrar(), begin_schedules)
    await asyncio.gather(folder.run_once(), folder.run_once())
    assert (folder.waiting_count, folder.refused, begun) == (0, [], ["schedules"])


async def test_a_folder_without_documents_loads_nothing_of_the_engine(tmp_path: Path, database_url: str) -> None:
    loaded = "import asyncio, sys; from gateway.server.composition.workflows import LazyFolder; "
    loaded += "made = LazyFolder(sys.argv[1], lambda: None); "
    loaded += "asyncio.run(made.publish_before_serving()); print('gateway.workflows.dsl.document' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", loaded, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"False\n"
