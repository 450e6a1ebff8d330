"""Files that an agent gives reach clients of MCP, in the words of their revision."""

import base64
from typing import Any

import pytest
from mcp_types import CallToolResult

from adapters.task import Artifact, Part, TaskState
from gateway.ingress.mcp_server.tasks.wire import tool_result
from gateway.tasks.events.entries import artifact_event
from gateway.tasks.log import TaskRecord
from tests.fakes.house import CallbackAgent, House
from tests.fakes.mcp_wire import document, modern, post, session
from tests.gateway.tasks.test_log import row, status

BYTES = base64.b64encode(b"\x00\x01").decode()
FILES: list[dict[str, Any]] = [
    {"raw": BYTES, "mediaType": "image/png"},
    {"raw": BYTES, "mediaType": "audio/wav"},
    {"raw": BYTES, "filename": "report.pdf"},
    {"url": "https://files.example/a/table.csv"},
]
KINDS = ["image", "audio", "resource", "resource_link"]


async def nothing(_token: str, _text: str) -> str:
    return ""


async def painter(home: House) -> None:
    agent = CallbackAgent("painter", nothing)
    agent.more = FILES
    await home.agent(agent)


def shown(*parts: Part) -> dict[str, Any]:
    event = artifact_event(1, 1, Artifact("a 1", parts), append=False, last_chunk=True)
    return tool_result(TaskRecord(row(state=TaskState.COMPLETED), (event, status(9, TaskState.COMPLETED))))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_each_file_is_a_block_of_its_kind_in_the_newest_revision(open_home: House) -> None:
    await painter(open_home)
    body, headers = modern("tools/call", {"name": "painter", "arguments": {"message": "paint"}})
    result = (await post(open_home, "admin", body, headers, "/mcp")).json()["result"]
    image, audio, report, table = CallToolResult.model_validate(result).model_dump(mode="json", by_alias=True, exclude_none=True)["content"]
    assert [image["type"], audio["type"], report["type"], table["type"]] == KINDS
    assert (image["data"], image["mimeType"], audio["mimeType"]) == (BYTES, "image/png", "audio/wav")
    assert (report["resource"]["blob"], report["resource"]["mimeType"]) == (BYTES, "application/pdf")
    assert report["resource"]["uri"].startswith("urn:interlock:task:")
    assert (table["uri"], table["name"], table["mimeType"]) == ("https://files.example/a/table.csv", "table.csv", "text/csv")
    assert [file["name"] for file in result["structuredContent"]["files"]] == ["file", "file", "report.pdf", "table.csv"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("2025-11-25", KINDS),
        ("2025-06-18", KINDS),
        ("2025-03-26", ["image", "audio", "resource", "text"]),
        ("2024-11-05", ["image", "resource", "resource", "text"]),
    ],
)
async def test_older_revisions_get_the_blocks_that_they_know(open_home: House, version: str, kinds: list[str]) -> None:
    await painter(open_home)
    headers = {"mcp-session-id": await session(open_home, path="/mcp", version=version)}
    call = document("tools/call", {"name": "painter", "arguments": {"message": "paint"}})
    content = (await post(open_home, "admin", call, headers, "/mcp")).json()["result"]["content"]
    assert [block["type"] for block in content] == kinds


def test_text_is_left_out_only_where_something_else_is_said() -> None:
    assert shown(Part(text=""))["content"] == [{"type": "text", "text": ""}]
    assert [block["type"] for block in shown(Part(text="here"), Part(raw=BYTES, media_type="image/gif"))["content"]] == ["text", "image"]


def test_no_name_of_an_agents_artifact_leaves_its_step_of_the_uri() -> None:
    (block,) = shown(Part(raw=BYTES, filename="../x"))["content"]
    assert block["resource"]["uri"].endswith(":a%201:0") and block["resource"]["mimeType"] == "application/octet-stream"
