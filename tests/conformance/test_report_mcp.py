"""What the MCP kit prints and leaves behind is read as it is meant, and what was not tried never counts as passed."""

import json
from pathlib import Path

import pytest

from tests.conformance.report_mcp import Leg, Wanted, checks, conformity, wanted

LISTING = """npm warn Unknown user config "nodedir".
Required for 2026-07-28 (3 scenarios, frozen; run at the 2026-07-28 wire):

Server scenarios (test against a server):
  - server-stateless
  - caching

Client scenarios (test against a client):
  - auth/basic-cimd

Run and reported, but never scored:
  extension (2):
    - auth/dpop [client]
    - tasks-lifecycle [server]
  pending (1):
    - json-schema-2020-12 [server]
"""
STAMP = "2026-11-21T07-52-58-607Z"


def ran(folder: Path, *statuses: str) -> None:
    path = folder.with_name(f"{folder.name}-{STAMP}")
    path.mkdir(parents=True)
    found = [{"id": f"c{number}", "status": status, "errorMessage": f"why\n  {number}"} for number, status in enumerate(statuses)]
    (path / "checks.json").write_text(json.dumps(found))


def test_the_listing_tells_what_is_required_of_whom() -> None:
    assert wanted(LISTING) == (
        Wanted("server-stateless", "server"),
        Wanted("caching", "server"),
        Wanted("auth/basic-cimd", "client"),
        Wanted("auth/dpop", "client", "extension"),
        Wanted("tasks-lifecycle", "server", "extension"),
        Wanted("json-schema-2020-12", "server", "pending"),
    )


def test_a_server_scenarios_own_name_may_begin_like_the_folder_of_any(tmp_path: Path) -> None:
    ran(tmp_path / "server-server-stateless", "SUCCESS")
    ran(tmp_path / "server-caching", "SUCCESS")
    assert set(checks(tmp_path, "server")) == {"server-stateless", "caching"}


def test_a_client_scenario_may_be_in_a_folder_of_its_kind(tmp_path: Path) -> None:
    ran(tmp_path / "auth" / "basic-cimd", "FAILURE")
    ran(tmp_path / "tools_call", "SUCCESS")
    found = checks(tmp_path, "client")
    assert set(found) == {"auth/basic-cimd", "tools_call"}
    assert [(check.id, check.status, check.why) for check in found["auth/basic-cimd"]] == [("c0", "FAILURE", "why 0")]


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (("SUCCESS", "INFO", "SKIPPED", "WARNING"), "PASS"),
        (("SUCCESS", "FAILURE"), "FAIL"),
        (("SKIPPED", "SKIPPED"), "SKIPPED"),
        (("INFO",), "SKIPPED"),
        ((), "FAIL"),
        (None, "FAIL"),
    ],
    ids=["passed", "one check failed", "skipped", "told only", "no checks", "not run"],
)
def test_a_scenario_passes_when_something_was_tried_and_nothing_failed(
    tmp_path: Path, statuses: tuple[str, ...] | None, status: str
) -> None:
    if statuses is not None:
        ran(tmp_path / "server-caching", *statuses)
    found = conformity("2026-07-28", "server", [Wanted("caching", "server")], checks(tmp_path, "server"))
    assert [one.status for one in found.scenarios] == [status]
    assert found.good == (status == "PASS")


@pytest.mark.parametrize(("leg", "required", "others"), [("server", 2, 2), ("client", 1, 1)])
def test_each_side_has_its_own_scenarios_and_only_required_ones_decide(tmp_path: Path, leg: Leg, required: int, others: int) -> None:
    for name in ("server-server-stateless", "server-caching", "auth/basic-cimd"):
        ran(tmp_path / name, "SUCCESS")
    found = conformity("2026-07-28", leg, wanted(LISTING), checks(tmp_path, leg))
    assert (len(found.required), len(found.others), found.good) == (required, others, True)
    assert all(one.status == "FAIL" for one in found.others)


def test_a_revision_of_which_nothing_is_required_proves_nothing() -> None:
    assert not conformity("2026-07-28", "server", [], {}).good
