"""send: A2A 1.0 as a client has to speak it."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.gateway_api import GatewayApi, stream
from tests.gateway.cli.conftest import CommandLine

IDS = {"taskId": "t_1", "contextId": "c_1"}


def task(state: str, text: str = "", artifact: str = "") -> dict[str, object]:
    status: dict[str, object] = {"state": f"TASK_STATE_{state}"}
    if text:
        status["message"] = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}
    artifacts = [{"artifactId": "a", "parts": [{"text": artifact}, {"data": {"n": 1}}]}] if artifact else []
    return {"id": "t_1", "contextId": "c_1", "status": status, "artifacts": artifacts}


def answered(result: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "result": result}


def test_a_message_is_sent_and_the_artifacts_shown(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /agents/sales", answered({"task": task("COMPLETED", artifact="Your order is R-1")}))
    ran = interlock("send", "sales", "Two of SKU-7", "--context", "c_1")
    asked = api.asked[0]
    message = asked.body["params"]["message"]
    assert (asked.body["method"], asked.headers["a2a-version"]) == ("SendMessage", "1.0")
    assert (message["role"], message["parts"], message["contextId"]) == ("ROLE_USER", [{"text": "Two of SKU-7"}], "c_1")
    assert message["messageId"]
    assert "taskId" not in message
    assert (ran.code, ran.out) == (0, 'Your order is R-1\n{\n  "n": 1\n}\n')
    assert "interlock trace t_1" in ran.err


def test_json_is_the_result_as_it_came(interlock: CommandLine, api: GatewayApi) -> None:
    result = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "Hi"}]}}
    api.on("POST /agents/sales", answered(result))
    assert interlock("send", "sales", "Hello", "--json").json == result
    assert interlock("send", "sales", "Hello").out == "Hi\n"


def test_what_is_no_text_is_shown_as_what_it_is_and_a_message_alone_says_so(interlock: CommandLine, api: GatewayApi) -> None:
    parts = [
        {"text": "Here you are"},
        {"data": {"sku": "SKU-7"}},
        {"url": "https://files.example/a.pdf", "mediaType": "application/pdf", "filename": "a.pdf"},
        {"raw": "AAAAAAAA", "mediaType": "image/png"},
    ]
    api.on("POST /agents/sales", answered({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": parts, "contextId": "c_1"}}))
    ran = interlock("send", "sales", "Hello")
    assert ran.out.splitlines() == [
        "Here you are",
        "{",
        '  "sku": "SKU-7"',
        "}",
        "[a.pdf application/pdf: https://files.example/a.pdf]",
        "[image/png, 6 bytes; --json shows them]",
    ]
    assert "answered with a message, without a task; context c_1" in ran.err


def test_a_message_of_a_task_names_its_state_in_words(interlock: CommandLine, api: GatewayApi) -> None:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "Hi"}], **IDS}
    api.on("POST /agents/sales", answered({"message": message}))
    assert "answered with a message; task t_1, context c_1" in interlock("send", "sales", "Hello").err


def test_a_task_that_failed_ends_with_1_and_its_reason(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /agents/sales", answered({"task": task("FAILED", "The agent did not answer in time.")}))
    ran = interlock("send", "sales", "Hello")
    assert ran.code == 1
    assert "did not answer in time" in ran.err
    assert "interlock trace t_1" in ran.err


def test_a_task_that_waits_says_how_to_answer_it(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /agents/sales", answered({"task": task("INPUT_REQUIRED", "Which colour?")}))
    ran = interlock("send", "sales", "A car")
    assert (ran.code, ran.out) == (0, "Which colour?\n")
    assert "interlock send sales --task t_1" in ran.err
    interlock("send", "sales", "Red", "--task", "t_1")
    assert api.asked[1].body["params"]["message"]["taskId"] == "t_1"


def events(*last: Mapping[str, object]) -> list[Mapping[str, object]]:
    piece = {"artifact": {"artifactId": "a", "parts": [{"text": "one "}]}, "lastChunk": False, **IDS}
    rest = {"artifact": {"artifactId": "a", "parts": [{"text": "two"}]}, "append": True, "lastChunk": True, **IDS}
    return [{"task": task("SUBMITTED")}, {"artifactUpdate": piece}, {"artifactUpdate": rest}, *last]


def test_a_stream_is_shown_piece_by_piece(interlock: CommandLine, api: GatewayApi) -> None:
    done = {"statusUpdate": {"status": {"state": "TASK_STATE_COMPLETED"}, **IDS}}
    api.answers["POST /agents/sales"] = stream(*map(answered, events(done)))
    ran = interlock("send", "sales", "Count", "--stream")
    assert api.asked[0].body["method"] == "SendStreamingMessage"
    assert (ran.code, ran.out) == (0, "one two\n")
    assert "completed; task t_1" in ran.err


def test_a_stream_as_json_is_one_event_a_line(interlock: CommandLine, api: GatewayApi) -> None:
    failed = {"statusUpdate": {"status": {"state": "TASK_STATE_FAILED"}, **IDS}}
    api.answers["POST /agents/sales"] = stream(*map(answered, events(failed)))
    ran = interlock("send", "sales", "Count", "--stream", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == events(failed)
    assert ran.code == 1


def test_a_stream_that_breaks_is_not_taken_for_an_answer(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["POST /agents/sales"] = stream(*map(answered, events()), cut=True)
    ran = interlock("send", "sales", "Count", "--stream")
    assert ran.code == 4
    assert "broke" in ran.err


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_stream_that_ends_before_its_task_says_how_to_go_on(interlock: CommandLine, api: GatewayApi, *, is_cut: bool) -> None:
    api.answers["POST /agents/sales"] = stream(*map(answered, events()), cut=is_cut)
    ran = interlock("send", "sales", "Count", "--stream")
    assert ran.code == 4
    assert "the gateway has stopped" in ran.err and "interlock task watch t_1" in ran.err


def test_data_goes_beside_the_text_or_alone(interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    api.on("POST /agents/sales", answered({"task": task("COMPLETED")}))
    (tmp_path / "order.json").write_text('[{"sku": "Ünique"}]', "utf-8")
    assert interlock("send", "sales", "Two", "--data", '{"id": 7}', "--data", "@order.json", "--json").json == {"task": task("COMPLETED")}
    assert interlock("send", "sales", "--data", "false").code == 0
    sent = [asked.body["params"]["message"]["parts"] for asked in api.asked]
    assert sent == [[{"text": "Two"}, {"data": {"id": 7}}, {"data": [{"sku": "Ünique"}]}], [{"data": False}]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--data", "{"], "is not JSON"),
        (["--data", "[NaN]"], "is not JSON"),
        (["--data", "1e999"], "not finite"),
        (["--data", '"\\ud800"'], "is not JSON"),
        (["--data", '{"id": 7, "id": 8}'], "the same key twice"),
        (["--data", "@binary"], "can't be read"),
        (["--data", "@nowhere.json"], "nowhere.json can't be read"),
        ([], "nothing to send"),
    ],
)
def test_what_is_no_data_is_wrong_usage(interlock: CommandLine, api: GatewayApi, tmp_path: Path, given: list[str], says: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    ran = interlock("send", "sales", *given)
    assert (ran.code, says in ran.err, api.asked) == (2, True, [])


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_the_reason_of_a_task_that_failed_is_told_once(interlock: CommandLine, api: GatewayApi, options: tuple[str, ...]) -> None:
    reason = "The agent did not answer in time."
    status = {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": reason}]}}
    api.on("POST /agents/sales", answered({"task": task("FAILED", reason)}))
    if options:
        api.answers["POST /agents/sales"] = stream(*map(answered, events({"statusUpdate": {"status": status, **IDS}})))
    ran = interlock("send", "sales", "hi", *options)
    assert (ran.code, (ran.out + ran.err).count(reason)) == (1, 1)


def test_a_reason_that_is_the_artifact_too_is_told_once(interlock: CommandLine, api: GatewayApi) -> None:
    reason = "There is no SKU-9."
    failed = {**task("FAILED", reason), "artifacts": [{"artifactId": "a", "parts": [{"text": reason}]}]}
    api.on("POST /agents/sales", answered({"task": failed}))
    ran = interlock("send", "sales", "hi")
    assert (ran.code, ran.out, ran.err.count(reason)) == (1, "", 1)


def test_a_stream_that_begins_with_its_failed_task_tells_the_reason(interlock: CommandLine, api: GatewayApi) -> None:
    reason = "There is no SKU-9."
    api.answers["POST /agents/sales"] = stream(answered({"task": task("FAILED", reason)}))
    ran = interlock("send", "sales", "hi", "--stream")
    assert (ran.code, (ran.out + ran.err).count(reason)) == (1, 1)
