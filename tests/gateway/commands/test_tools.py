"""tools and call: MCP 2026-07-28 as a client has to speak it."""

import pytest

from gateway.commands.tools import META, header_value
from tests.fakes.gateway_api import Answer, GatewayApi, stream
from tests.gateway.commands.conftest import CommandLine


def answered(result: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "result": result}


def test_a_request_says_all_about_itself_in_meta_and_headers(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /mcp", answered({"content": [{"type": "text", "text": "3 left"}]}))
    ran = interlock("call", "inventory_check", '{"sku": "7"}')
    asked = api.asked[0]
    assert asked.body["params"] == {"name": "inventory_check", "arguments": {"sku": "7"}, "_meta": META}
    assert asked.headers["mcp-protocol-version"] == META["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert (asked.headers["mcp-method"], asked.headers["mcp-name"]) == ("tools/call", "inventory_check")
    assert "text/event-stream" in asked.headers["accept"]
    assert (ran.code, ran.out) == (0, "3 left\n")


def test_one_server_has_its_own_path_and_arguments_may_come_from_stdin(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /mcp/inventory", answered({"content": [], "structuredContent": {"left": 3}}))
    ran = interlock("call", "check", "-", "--server", "inventory", "--json", stdin='{"sku": "7"}')
    assert api.asked[0].body["params"]["arguments"] == {"sku": "7"}
    assert ran.json == {"content": [], "structuredContent": {"left": 3}}
    assert '"left": 3' in interlock("call", "check", "--server", "inventory").out


def test_an_answer_may_be_a_stream_with_the_result_at_its_end(interlock: CommandLine, api: GatewayApi) -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    api.answers["POST /mcp"] = stream(progress, answered({"content": [{"type": "text", "text": "done"}]}))
    assert interlock("call", "slow").out == "done\n"


def test_a_stream_without_a_result_is_a_failure(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["POST /mcp"] = stream({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
    assert interlock("call", "slow").code == 1


@pytest.mark.parametrize("extra", [{"isError": True}, {"resultType": "input_required"}])
def test_a_tools_own_error_and_a_question_end_with_1(interlock: CommandLine, api: GatewayApi, extra: dict[str, object]) -> None:
    api.on("POST /mcp", answered({"content": [{"type": "text", "text": "no such sku"}], **extra}))
    ran = interlock("call", "inventory_check")
    assert ran.code == 1
    assert "no such sku" in ran.out


def test_the_list_is_read_to_its_last_page(interlock: CommandLine, api: GatewayApi) -> None:
    first = {"tools": [{"name": "a", "description": "First.\nMore."}], "nextCursor": "n"}
    api.answers["POST /mcp"] = [Answer(answered(first)), Answer(answered({"tools": [{"name": "b"}]}))]
    assert [tool["name"] for tool in interlock("tools", "--json").json["items"]] == ["a", "b"]
    assert api.asked[1].body["params"]["cursor"] == "n"
    assert "mcp-name" not in api.asked[1].headers


def test_a_name_that_is_no_header_text_goes_in_base64() -> None:
    assert header_value("crm_read") == "crm_read"
    assert header_value("größe") == "=?base64?Z3LDtsOfZQ==?="
    assert header_value("=?x") == "=?base64?PT94?="
    assert header_value(" x") == "=?base64?IHg=?="
