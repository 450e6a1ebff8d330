"""The MCP figures on paper are those that were found."""

from tests.conformance.papers_mcp import document, page, table
from tests.conformance.report_mcp import Check, Conformity, Scenario

GOOD, BAD = Check("wire", "SUCCESS", ""), Check("caching-ttl", "FAILURE", "ttlMs is missing")
FOUND = Conformity(
    "2026-07-28",
    "server",
    (
        Scenario("caching", "", (GOOD, BAD)),
        Scenario("tools-list", "", (GOOD, GOOD)),
        Scenario("tasks-lifecycle", "extension", ()),
        Scenario("tasks-status-notifications", "extension", (Check("x", "SKIPPED", ""),)),
    ),
)
CLIENT = Conformity("2025-11-25", "client", (Scenario("tools_call", "", (GOOD,)),))


def test_the_document_counts_required_scenarios_by_side_and_revision() -> None:
    assert document([FOUND, CLIENT]) == {
        "mcp": {
            "2026-07-28": {
                "required": 2,
                "passed": 1,
                "failed": ["caching"],
                "skipped": [],
                "not_scored": {"scenarios": 2, "passed": 0, "failed": ["tasks-lifecycle"], "skipped": ["tasks-status-notifications"]},
            }
        },
        "mcp_client": {
            "2025-11-25": {
                "required": 1,
                "passed": 1,
                "failed": [],
                "skipped": [],
                "not_scored": {"scenarios": 0, "passed": 0, "failed": [], "skipped": []},
            }
        },
    }


def test_the_screen_names_each_failure_and_why() -> None:
    lines = table([FOUND]).splitlines()
    assert lines[0] == "MCP 2026-07-28 server 1/2 required, 0/2 others, 1 skipped"
    assert "FAILED caching: ttlMs is missing" in lines
    assert "FAILED (extension) tasks-lifecycle: not run" in lines
    assert "SKIPPED (extension) tasks-status-notifications: nothing was tried" in lines
    assert not any("tools-list" in line for line in lines)


def test_the_page_has_a_row_for_each_scenario() -> None:
    text = page([FOUND])
    assert "### 2026-07-28, the gateway as a server\n\n1/2 required, 0/2 others, 1 skipped." in text
    assert "| caching | required | 1/2 | **no** |" in text
    assert "| tools-list | required | 2/2 | yes |" in text
    assert "| tasks-lifecycle | extension | 0/0 | **no** |" in text
    assert "Warnings" not in text


def test_the_page_has_the_warnings_in_the_kits_words() -> None:
    found = Conformity("2026-07-28", "server", (Scenario("stateless", "", (GOOD, Check("c", "WARNING", "nothing arrived"))),))
    assert "| scenario | the kit's words |\n|---|---|\n| stateless | nothing arrived |" in page([found])
