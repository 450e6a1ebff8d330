"""tools and call: the official client of MCP 2026-07-28 at the gateway's door, for a person at a terminal or a script without one."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.gateway_api import Answer, GatewayApi, stream
from tests.gateway.cli.conftest import CommandLine
from tests.house.source import ROOT

LIST, CALL = "POST /mcp tools/list", "POST /mcp tools/call"
META = "io.modelcontextprotocol/"
CHECK = {"name": "inventory_check", "description": "Counts.\nMore.", "inputSchema": {"type": "object"}}
SIZE = {"type": "object", "properties": {"size": {"type": "string", "enum": ["S", "L"]}}, "required": ["size"]}


def answered(result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 0, "result": {"resultType": "complete", **result}}


def listing(*tools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return answered({"tools": list(tools), "ttlMs": 0, "cacheScope": "private", **more})


def text(said: str) -> dict[str, Any]:
    return answered({"content": [{"type": "text", "text": said}]})


def refused(code: int, message: str, data: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 0, "error": {"code": code, "message": message, "data": data}}


def asks(params: dict[str, Any]) -> dict[str, Any]:
    question = {"method": "elicitation/create", "params": params}
    return answered({"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "sealed"})


@pytest.fixture(autouse=True)
def nothing_listed(request: pytest.FixtureRequest) -> Iterator[None]:
    if "api" in request.fixturenames:
        request.getfixturevalue("api").on(LIST, listing())
    yield


def calls(api: GatewayApi) -> list[Any]:
    return [asked for asked in api.asked if asked.body and asked.body.get("method") == "tools/call"]


def test_a_request_says_all_about_itself_in_meta_and_headers(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(CALL, text("3 left"))
    ran = interlock("call", "inventory_check", '{"sku": "7"}')
    assert (ran.code, ran.out, ran.err) == (0, "3 left\n", "")
    (asked,) = calls(api)
    params = asked.body["params"]
    assert (params["name"], params["arguments"]) == ("inventory_check", {"sku": "7"})
    assert params["_meta"][f"{META}protocolVersion"] == asked.headers["mcp-protocol-version"] == "2026-07-28"
    assert params["_meta"][f"{META}clientInfo"]["name"] == "interlock"
    assert params["_meta"][f"{META}clientCapabilities"] == {}  # nobody sits at a terminal
    assert (asked.headers["mcp-method"], asked.headers["mcp-name"]) == ("tools/call", "inventory_check")
    assert asked.headers["authorization"] == "Bearer secret-token"


def test_a_list_that_is_empty_because_of_the_token_says_so(interlock: CommandLine, api: GatewayApi) -> None:
    reason = {"reason_id": "roles-missing", "detail": "Your token names no role."}
    api.on(LIST, listing(_meta={"dev.interlock/empty": reason}))
    ran = interlock("tools", "--json")
    assert (ran.json, ran.err) == ({"items": []}, "Your token names no role.\n")
    api.on("GET /api/servers", {"items": [], "next": None, "empty": reason})
    ran = interlock("server", "list", "--json")
    assert (ran.json, ran.err) == ({"items": []}, "Your token names no role.\n")


def test_what_a_schema_says_goes_into_headers_goes_there(interlock: CommandLine, api: GatewayApi) -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    api.on(LIST, listing({"name": "place", "inputSchema": schema}))
    api.on(CALL, text("ok"))
    assert interlock("call", "place", '{"region": "eu"}').code == 0
    assert calls(api)[0].headers["mcp-param-region"] == "eu"


def test_a_name_that_is_no_header_text_goes_in_base64(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(CALL, text("ok"))
    assert interlock("call", "größe").code == 0
    assert calls(api)[0].headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="


def test_one_server_has_its_own_path_and_arguments_may_come_from_stdin(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /mcp/inventory tools/list", listing())
    api.on("POST /mcp/inventory tools/call", answered({"content": [], "structuredContent": {"left": 3, "next": None}}))
    ran = interlock("call", "check", "-", "--server", "inventory", "--json", stdin='{"sku": "7"}')
    assert calls(api)[0].body["params"]["arguments"] == {"sku": "7"}
    assert ran.json == {"resultType": "complete", "content": [], "structuredContent": {"left": 3, "next": None}}
    assert '"left": 3' in interlock("call", "check", "--server", "inventory").out


def test_an_answer_may_be_a_stream_with_the_result_at_its_end(interlock: CommandLine, api: GatewayApi) -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    api.answers[CALL] = stream(progress, text("done"))
    ran = interlock("call", "slow")
    assert (ran.out, ran.err) == ("done\n", "")


def test_a_stream_without_a_result_is_a_failure(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers[CALL] = stream({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}})
    ran = interlock("call", "slow")
    assert ran.code == 1
    assert "interlock task list" in ran.err


def test_a_tools_own_error_ends_with_1(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(CALL, answered({"content": [{"type": "text", "text": "no such sku"}], "isError": True}))
    ran = interlock("call", "inventory_check")
    assert (ran.code, ran.out) == (1, "no such sku\n")
    assert "reports an error" in ran.err


def test_a_result_that_is_not_what_the_tool_promised_is_a_failure(interlock: CommandLine, api: GatewayApi) -> None:
    promised = {"type": "object", "properties": {"left": {"type": "integer"}}}
    api.on(LIST, listing({**CHECK, "outputSchema": promised}))
    api.on(CALL, answered({"content": [], "structuredContent": {"left": "many"}}))
    ran = interlock("call", "inventory_check")
    assert ran.code == 1
    assert "was called" in ran.err and "many" in ran.err


def test_the_list_is_read_to_its_last_page(interlock: CommandLine, api: GatewayApi) -> None:
    second = {"name": "b", "inputSchema": {"type": "object", "required": None}}
    api.answers[LIST] = [Answer(listing(CHECK, nextCursor="n")), Answer(listing(second))]
    assert interlock("tools", "--json").json == {"items": [CHECK, second]}
    assert api.asked[1].body["params"]["cursor"] == "n"
    assert "mcp-name" not in api.asked[1].headers


def test_people_see_names_and_first_lines(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(LIST, listing(CHECK))
    out = interlock("tools").out
    assert "inventory_check" in out and "Counts." in out and "More." not in out


class TestFailures:
    """As every other command ends; the SDK's groups of exceptions and lines of log never show."""

    @pytest.mark.parametrize("command", [("tools",), ("call", "inventory_check")])
    @pytest.mark.parametrize(
        ("answer", "code", "told"),
        [
            (Answer({"detail": "No token.", "reason_id": "unauthenticated"}, 401), 3, "interlock token --user"),
            (Answer({"detail": "Not yours.", "reason_id": "insufficient-scope", "missing": ["tool:x"]}, 403), 3, "missing: tool:x"),
            (Answer({"detail": "Wait.", "status": 429, "reason_id": "rate-limited"}, 429), 1, "try again in a moment"),
            (Answer({"detail": "Spent.", "status": 429, "reason_id": "budget-spent"}, 429), 1, "midnight UTC"),
            (Answer({"detail": "There is no such thing.", "reason_id": "unknown"}, 404), 1, "server list"),
            (Answer(refused(-32011, "There is no such server."), 404), 1, "server list"),
            (Answer(refused(-32602, "Unknown tool: x"), 400), 1, "Unknown tool: x"),
            (Answer("<html>oops", 502, "text/html"), 1, "not as an Interlock gateway: it answers HTTP 502"),
            (Answer("<html>hello", 200, "text/html"), 1, "INTERLOCK_URL"),
            (Answer("", 302, "text/html"), 1, "not as an Interlock gateway: it answers HTTP 302"),
            (Answer('{"jsonrpc": ', 200), 1, "INTERLOCK_URL"),
            (Answer([1]), 1, "INTERLOCK_URL"),
            (Answer(answered({"tools": 5, "content": 5})), 1, "INTERLOCK_URL"),
            (Answer('{"jsonrpc": ', cut=True), 4, "broke"),
        ],
    )
    def test_each_ends_with_its_code_and_what_to_do(
        self, interlock: CommandLine, api: GatewayApi, command: tuple[str, ...], answer: Answer, code: int, told: str
    ) -> None:
        del api.answers[LIST]
        api.answers["POST /mcp"] = answer
        ran = interlock(*command)
        assert (ran.code, ran.out) == (code, "")
        assert told in ran.err and "Traceback" not in ran.err
        assert len(ran.err.splitlines()) <= 4

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::zz]", "http://127.0.0.1:1/x y"])
    def test_nobody_there_and_no_address(self, interlock: CommandLine, url: str) -> None:
        interlock.environment["INTERLOCK_URL"] = url
        ran = interlock("tools")
        assert ran.code == (2 if "zz" in url else 4)

    def test_proxies_of_the_environment_are_not_used(self, interlock: CommandLine, api: GatewayApi) -> None:
        interlock.environment["HTTP_PROXY"] = interlock.environment["http_proxy"] = "http://127.0.0.1:1"
        assert interlock("tools", "--json").json == {"items": []}


class TestQuestions:
    def test_without_a_terminal_the_gateway_is_told_so_and_its_refusal_is_explained(self, interlock: CommandLine, api: GatewayApi) -> None:
        data = {"requiredCapabilities": {"elicitation": {"form": {}}}}
        api.answers[CALL] = Answer(refused(-32021, "the client lacks a capability that the server needs", data), 400)
        ran = interlock("call", "reserve")
        assert (ran.code, ran.out) == (1, "")
        assert "no terminal to ask at" in ran.err

    def test_what_no_command_line_has_is_named(self, interlock: CommandLine, api: GatewayApi) -> None:
        api.answers[CALL] = Answer(refused(-32021, "no", {"requiredCapabilities": {"sampling": {}}}), 400)
        assert "this command lacks: sampling" in interlock("call", "reserve").err

    def test_a_person_is_asked_at_the_terminal_and_the_answer_goes_back(self, api: GatewayApi, tmp_path: Path) -> None:
        question = {"mode": "form", "message": "Which size?\x1b[2J", "requestedSchema": SIZE}
        api.answers[CALL] = [Answer(asks(question)), Answer(text("reserved"))]
        shown, code, out = at_a_terminal(api, tmp_path, "XL\nL\n", "call", "reserve")
        assert (code, out) == (0, "reserved\n")
        assert "reserve asks: Which size?" in shown and "choose one of: S, L" in shown
        assert "\x1b[2J" not in shown
        first, second = (asked.body["params"] for asked in calls(api))
        assert first["_meta"][f"{META}clientCapabilities"]["elicitation"] == {"form": {}, "url": {}}
        assert second["inputResponses"] == {"q": {"action": "accept", "content": {"size": "L"}}}
        assert second["requestState"] == "sealed"

    @pytest.mark.parametrize(("key", "action"), [("\x04", "decline"), ("\x03", "cancel")], ids=["Ctrl-D", "Ctrl-C"])
    def test_a_person_may_say_no_or_break_off(self, api: GatewayApi, tmp_path: Path, key: str, action: str) -> None:
        api.answers[CALL] = [Answer(asks({"mode": "form", "message": "Which size?", "requestedSchema": SIZE})), Answer(text("left it"))]
        _, code, out = at_a_terminal(api, tmp_path, key, "call", "reserve")
        assert (code, out) == (0, "left it\n")
        assert calls(api)[1].body["params"]["inputResponses"]["q"]["action"] == action

    def test_an_address_is_shown_and_not_opened(self, api: GatewayApi, tmp_path: Path) -> None:
        url = "https://login.example/link?x=1"
        api.answers[CALL] = [Answer(asks({"mode": "url", "message": "Link your account.", "url": url})), Answer(text("linked"))]
        shown, code, _ = at_a_terminal(api, tmp_path, "\n", "call", "link")
        assert code == 0 and f"  {url}" in shown
        assert calls(api)[1].body["params"]["inputResponses"] == {"q": {"action": "accept"}}


def at_a_terminal(api: GatewayApi, folder: Path, typed: str, *arguments: str) -> tuple[str, int, str]:
    """The command beside a pseudo-terminal that is its standard input and error; what it showed there, its code and output.

    `typed` is given once the command has asked."""
    mine, its = os.openpty()
    environment = {**os.environ, "INTERLOCK_URL": api.url, "INTERLOCK_TOKEN": "secret-token", "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(
        [sys.executable, "-c", TTY, *arguments], stdin=its, stderr=its, stdout=subprocess.PIPE, cwd=folder, env=environment, text=True
    )
    os.close(its)
    shown = b""
    try:
        while chunk := _read(mine):
            shown += chunk
            if typed and shown.rstrip(b" ").endswith(b":"):
                os.write(mine, typed.encode())
                typed = ""
        out, _ = command.communicate(timeout=300)
    finally:
        command.kill()
        command.wait()
        os.close(mine)
    return shown.decode(), command.returncode, out


# A new session whose controlling terminal is standard input, so that Ctrl-C reaches the command.
TTY = "import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); from gateway.cli.main import main; main()"


def _read(terminal: int) -> bytes:
    if not select.select([terminal], [], [], 30)[0]:
        return b""
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""
