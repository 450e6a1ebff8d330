"""One address, two versions of A2A (1.0 s3.6): a request means what its version says, and its patch number means nothing."""

from typing import Any

import pytest

from registry.cards.reader import read_card
from tests.fakes.a2a_doors import DOORS, ask, message_of, result, state_of, version_of
from tests.fakes.house import CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PATCHED = {"1.0": "1.0.7", "0.3": "0.3.1"}


async def called(home: House, method: str, version: str | None, params: dict[str, Any]) -> Any:
    headers = {} if version is None else {"A2A-Version": version}
    return (await home.rpc("/agents/sales", home.token("alice"), method, params, **headers)).json()


async def test_each_version_has_methods_and_words_of_its_own(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    new, old = ({"message": message_of(door, "hello")} for door in ("jsonrpc-1.0", "jsonrpc-0.3"))
    assert (await called(home, "SendMessage", "1.0", new))["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    for version in ("0.3", "", None):
        answer = (await called(home, "message/send", version, old))["result"]
        assert (answer["kind"], answer["status"]["state"]) == ("task", "completed")
    assert (await called(home, "message/send", "1.0", old))["error"]["code"] == -32601
    assert (await called(home, "SendMessage", "0.3", new))["error"]["code"] == -32601
    assert (await called(home, "SendMessage", "1.0", old))["error"]["code"] == -32602


@pytest.mark.parametrize("door", DOORS)
async def test_a_patch_number_is_passed_over(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    params = {"message": message_of(door, "hello")}
    answer = await ask(home, door, "send", params, headers={"A2A-Version": PATCHED[version_of(door)]})
    assert state_of(result(door, answer)) == "COMPLETED"
    for other in ("1.1", "0.4", "1", "01.0", "1.0.x", "1.0.0.0"):
        assert (await ask(home, door, "send", params, headers={"A2A-Version": other})).json()["error"], other


async def test_no_card_of_ours_has_a_patch_number_and_one_of_anothers_is_read_without(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    card = (await home.http.get("/agents/sales/.well-known/agent-card.json")).json()
    assert {each["protocolVersion"] for each in card["supportedInterfaces"]} == {"1.0", "0.3"}
    interface = {"url": "https://a.example/", "protocolBinding": "JSONRPC"}
    given = {"name": "A", "description": "A.", "version": "1", "supportedInterfaces": [{**interface, "protocolVersion": "1.0.1"}]}
    assert [each.version for each in read_card(given).interfaces] == ["1.0"]
