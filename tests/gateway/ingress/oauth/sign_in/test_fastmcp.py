"""fastmcp's client signs a person in: it opens the page in a browser, and waits for the answer on a port of loopback."""

import json
from pathlib import Path

import pytest

from tests.fakes.house import House
from tests.fakes.real_clients import fastmcp_python, run_client
from tests.fakes.sign_in import parameters_of
from tests.house.source import ROOT

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLIENT = ROOT / "tests" / "gateway" / "oauth" / "fastmcp_client" / "client.py"


async def test_fastmcp_signs_a_person_in_with_the_url_alone(open_home: House, tmp_path: Path) -> None:
    await open_home.server("inventory", "check")
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >&2\n')
    browser.chmod(0o700)
    environment = {"BROWSER": str(browser), "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore", "FASTMCP_LOG_ENABLED": "false"}
    command = (str(fastmcp_python()), str(CLIENT), f"{open_home.url}/mcp", "inventory_check")
    run = await run_client(open_home, tmp_path, *command, environment=environment)
    assert run.code == 0, run.said
    assert json.loads(run.result) == {"tools": ["inventory_check"], "answer": "{}"}
    (page,) = run.pages
    assert parameters_of(page)["resource"] == f"{open_home.url}/mcp"
