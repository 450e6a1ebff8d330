"""An SDK that asks otherwise than the adapter, or can't read what the fake answers, is a row that failed and says why."""

import base64
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Required

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.bench.processes import BenchFailure
from tests.house.source import ROOT
from tests.vendors import servers
from tests.vendors.sdk import checks
from tests.vendors.sdk.checks import SDKS, Sdk, rows_of
from tests.vendors.sdk.oracle import Json, Oracle, events_in, json_in, main
from tests.vendors.sdk.sdk_types import model_problems, param_problems
from tests.vendors.sdk.talks import talks_of


def exchange(status: int = 200, body: Any = None, path: str = "/runs?wait=true", kind: str = "application/json") -> Json:
    raw = body if isinstance(body, str) else json.dumps(body)
    response = {"status": status, "headers": {"content-type": kind}, "body": base64.b64encode(raw.encode()).decode()}
    return {
        "method": "POST",
        "path": path,
        "headers": {"beta": "agents=v1"},
        "json": {"input": "hello", "stream": False},
        "response": response,
    }


def client(path: str = "/runs?wait=true", body: Any = None, beta: str = "agents=v1", times: int = 1) -> Callable[[str, Json], bool]:
    """Asks as told, and raises HTTPError for an answer that is an error."""

    def repeat(url: str, _: Json) -> bool:
        for _time in range(times):
            data = json.dumps({"input": "hello", "stream": False} if body is None else body).encode()
            request = urllib.request.Request(url + path, data, {"beta": beta, "content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
        return True

    return repeat


def why(oracle: Oracle, asked: Json, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([{"scenario": "s", "exchanges": [asked]}])))
    main(oracle)
    (line,) = capsys.readouterr().out.splitlines()
    told: Json = json.loads(line)
    assert told["scenario"] == "s"
    return str(told["why"])


@pytest.mark.parametrize(
    ("repeat", "found"),
    [
        (client(), ""),
        (client("/run?wait=true"), "the SDK's path is /run"),
        (client("/runs?wait=false"), "the SDK's query is 'wait=false'"),
        (client("/runs"), "the SDK's query is ''"),
        (client(body={"input": "hello"}), "the SDK's body is"),
        (client(body={"input": "hello", "stream": False, "n": 1}), "the SDK's body is"),
        (client(beta="agents=v2"), "the SDK's header beta is 'agents=v2'"),
        (client(times=2), "the SDK asks 2 times"),
        (lambda *_: False, "the SDK has no such call"),
        (lambda *_: True, "the SDK asks 0 times"),
        (lambda *_: {}["x"], "KeyError"),
    ],
)
def test_a_request_of_another_kind_is_told(
    repeat: Callable[[str, Json], bool], found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = Oracle(repeat, headers=("beta",), faults=(urllib.error.HTTPError,))
    told = why(oracle, exchange(body={}), monkeypatch, capsys)
    assert found in told and bool(found) == bool(told)


def test_members_that_a_client_always_sends_are_named_and_no_others_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repeat = client("/runs?wait=true&purge=false", {"input": "hello", "stream": False, "limit": 10})
    assert why(Oracle(repeat, unlisted=("limit", "purge")), exchange(body={}), monkeypatch, capsys) == ""
    assert "body" in why(Oracle(repeat, unlisted=("purge",)), exchange(body={}), monkeypatch, capsys)
    other = client(body={"input": "other", "stream": False})
    assert "body" in why(Oracle(other, unlisted=("input",)), exchange(body={}), monkeypatch, capsys)


@pytest.mark.parametrize(("status", "found"), [(200, ""), (500, "")])
def test_an_answer_that_is_an_error_may_raise(
    status: int, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why(Oracle(client(), faults=(urllib.error.HTTPError,)), exchange(status, {}), monkeypatch, capsys) == found


def test_a_client_that_can_t_read_a_good_answer_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def repeat(url: str, asked: Json) -> bool:
        client()(url, asked)
        raise ValueError("no such event")

    assert "raises ValueError: no such event" in why(Oracle(repeat, faults=(ValueError,)), exchange(body={}), monkeypatch, capsys)


def test_what_the_types_say_is_told_and_a_talk_without_a_request_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why(Oracle(None, lambda _: ["output: missing"]), exchange(body={}), monkeypatch, capsys).endswith("output: missing")
    monkeypatch.setattr(sys, "stdin", io.StringIO('[{"scenario": "s", "exchanges": []}]'))
    main(Oracle(None))
    assert "asked nothing" in capsys.readouterr().out


def test_what_a_client_asks_besides_is_answered_and_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def repeat(url: str, asked: Json) -> bool:
        client()(url, asked)
        with urllib.request.urlopen(f"{url}/status", timeout=10) as answer:
            assert json.load(answer) == {"status": "done"}
        return True

    def aside(method: str, path: str) -> Json | None:
        return {"status": "done"} if (method, path) == ("GET", "/status") else None

    assert why(Oracle(repeat, aside=aside), exchange(body={}), monkeypatch, capsys) == ""
    assert "HTTP Error 599" in why(Oracle(repeat, faults=(urllib.error.HTTPError,)), exchange(body={}), monkeypatch, capsys)


def test_events_and_bodies_are_read() -> None:
    assert events_in(exchange(body='data: {"a":1}\n\nevent: x\ndata: {"b":2}\n\ndata: [DONE]\n\n')["response"]) == [{"a": 1}, {"b": 2}]
    assert json_in(exchange(body={"a": 1})["response"]) == {"a": 1}


class Text(TypedDict, total=False):
    type: Required[Literal["text"]]
    text: Required[str]


class Image(TypedDict, total=False):
    type: Required[Literal["image"]]
    url: Required[str]
    size: int


class Params(TypedDict, total=False):
    input: Required[str | list[Text | Image]]
    stream: bool | None
    metadata: dict[str, str]
    key: Annotated[str, type("Info", (), {"alias": "Idempotency-Key"})]


GOOD: Json = {"input": [{"type": "text", "text": "a"}, {"type": "image", "url": "u", "size": 3}], "stream": None, "metadata": {"a": "b"}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, ""),
        ({"input": "text"}, ""),
        ({"Idempotency-Key": "k"}, ""),
        ({"key": "k"}, "body.key is unknown to Params"),
        ({"input": 3}, "body.input"),
        ({"input": [{"type": "text"}]}, "body.input[0].text is missing"),
        ({"input": [{"type": "image", "url": "u", "size": "3"}]}, "body.input[0].size is '3'"),
        ({"input": [{"type": "text", "text": "a", "url": "u"}]}, "body.input[0].url is unknown to Text"),
        ({"stream": "yes"}, "body.stream is 'yes'"),
        ({"metadata": []}, "body.metadata is no object"),
    ],
)
def test_a_request_is_held_against_the_types_of_the_sdk(change: Json, found: str) -> None:
    problems = list(param_problems(Params, {**GOOD, **change}))
    assert bool(problems) == bool(found) and all(found in each for each in problems[:1]), problems


def test_a_request_without_what_is_required_is_told() -> None:
    assert list(param_problems(Params, {})) == ["body.input is missing"]


class Added(BaseModel):
    type: Literal["added"]
    item: int


class Done(BaseModel):
    type: Literal["done", "ended"]


def test_an_answer_is_held_against_the_model_of_its_type() -> None:
    union = Annotated[Added | Done, "discriminator"]
    assert model_problems(union, {"type": "added", "item": 1}) == []
    assert model_problems(union, {"type": "ended", "more": 1}) == []
    assert model_problems(union, {"type": "added"}) == ["item: Field required"]
    assert model_problems(union, {"type": "other"}) == ["the SDK knows no other"]
    assert model_problems(Added, {"type": "added", "item": "x"})[0].startswith("item: ")


async def test_talks_have_what_the_adapter_really_asks() -> None:
    talks = {talk["scenario"]: talk for talk in await talks_of(("openai-agents",), covers="POST")}
    sent = [each["json"] for each in talks["openai_agents-required_actions"]["exchanges"]]
    assert sent[-1]["events"][0]["response"] == {"type": "mcp_tool_call", "decision": "deny"}
    assert {each["method"] for talk in talks.values() for each in talk["exchanges"]} == {"POST"}
    with pytest.raises(LookupError):
        await talks_of(("openai-agents",), scenarios="nothing")


def test_every_sdk_has_a_lock_and_an_oracle() -> None:
    folder = ROOT / "tests" / "vendors" / "sdk"
    assert {sdk.name for sdk in SDKS} == {path.parent.name for path in folder.glob("*/oracle.py")}
    locks = {path.parent.name for path in folder.glob("*/requirements.lock")}
    assert {sdk.name for sdk in SDKS if not sdk.home} == locks


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checks, "BUILD", tmp_path / "vendors")
    monkeypatch.setattr(servers, "BUILD", tmp_path / "vendors")
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    return tmp_path / "vendors"


async def test_an_sdk_that_is_not_installed_says_what_installs_it(build: Path) -> None:
    with pytest.raises(BenchFailure, match="make test-vendors"):
        await rows_of(Sdk("openai", ("openai-agents",)))


@pytest.mark.parametrize(("script", "found"), [("echo broken >&2; exit 3", "ended with 3"), ("cat >/dev/null", "said nothing of it")])
async def test_an_sdk_that_says_nothing_passes_nothing(build: Path, script: str, found: str) -> None:
    program = build / "sdk-openai" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    (build / "sdk-openai" / "installed").touch()
    try:
        rows = await rows_of(Sdk("openai", ("openai-agents",)))
        assert rows and all(found in row.why and row.against == "sdk" for row in rows)
    except BenchFailure as failure:
        assert found in str(failure) and "broken" in str(failure)
