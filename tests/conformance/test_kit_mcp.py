"""What is missing for the MCP kit is said with what to do, and a run of it is read to its end."""

from pathlib import Path

import pytest

from tests.conformance.kit import KitMissing
from tests.conformance.kit_mcp import FIXTURE, McpKit, conformities, find

NPX = """#!/bin/sh
# npx --yes -p node -p package -c "conformance server --url URL ... -o FOLDER"
set -- $7
for out in "$@"; do :; done
made() {
  folder="$out/$1-2026-11-21T07-52-58-607Z"
  mkdir -p "$folder" && echo "[{\\"id\\":\\"c\\",\\"status\\":\\"$2\\"}]" > "$folder/checks.json"
}
case "$2" in
  list) printf 'Server scenarios (x):\\n  - caching\\nClient scenarios (x):\\n  - auth/cimd\\n' ;;
  server) [ "$4" = http://127.0.0.1:1/mcp/x ] && made server-caching SUCCESS ;;
  client) made auth/cimd FAILURE; for one in 1 2 3 4 5 6 7 8 9 10; do echo "Results saved to x"; done; exit 1 ;;
esac
"""
URL, TASKS = "http://127.0.0.1:1/mcp/x", "http://127.0.0.1:1/mcp/tasks"
BROKEN = "#!/bin/sh\nexit 1\n"


def fake_npx(folder: Path, script: str) -> str:
    path = folder / "npx"
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def test_a_missing_npx_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KitMissing, match=r"install Node\.js with npx, or leave it out"):
        find({"PATH": str(tmp_path)}, tmp_path, print)


def test_a_missing_checkout_is_said_with_what_to_do(tmp_path: Path) -> None:
    fake_npx(tmp_path, NPX)
    with pytest.raises(KitMissing, match=r"check out modelcontextprotocol/python-sdk there, or set MCP_PYTHON_SDK"):
        find({"PATH": str(tmp_path), "MCP_PYTHON_SDK": str(tmp_path)}, tmp_path, print)


def test_the_checkout_is_found_where_the_environment_says(tmp_path: Path) -> None:
    npx = fake_npx(tmp_path, NPX)
    (tmp_path / FIXTURE).mkdir(parents=True)
    found = find({"PATH": str(tmp_path), "MCP_PYTHON_SDK": str(tmp_path)}, tmp_path, print)
    assert (found.npx, found.fixture) == (npx, tmp_path / FIXTURE)


async def test_both_sides_of_a_revision_are_run_and_read_whatever_the_exit_code(tmp_path: Path) -> None:
    said: list[str] = []
    kit = McpKit(fake_npx(tmp_path, NPX), tmp_path, tmp_path, said.append)
    found = await conformities(kit, URL, TASKS, "driver", ["2026-07-28"])
    assert [(one.leg, one.good, [each.status for each in one.required]) for one in found] == [
        ("server", True, ["PASS"]),
        ("client", False, ["FAIL"]),
    ]
    assert "  10 scenarios" in said


@pytest.mark.parametrize(("script", "complaint"), [(BROKEN, "lists no scenarios"), (NPX.replace("mkdir", ": mkdir"), "no results")])
async def test_a_kit_that_does_not_run_is_no_result(tmp_path: Path, script: str, complaint: str) -> None:
    kit = McpKit(fake_npx(tmp_path, script), tmp_path, tmp_path, lambda _: None)
    with pytest.raises(KitMissing, match=complaint):
        await conformities(kit, URL, TASKS, "driver", ["2026-07-28"])
