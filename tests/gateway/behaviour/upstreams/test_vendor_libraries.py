"""Libraries of vendors are loaded where nobody waits for them: in a thread, whatever it is that needs them first."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.catalog import VENDORS
from tests.fakes.house import House
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
KIND = "heavy"
MODULE = """
import threading
from adapters.contract import Done, Replied
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, VendorOptions, agent_message

THREAD = threading.current_thread()

class Heavy:
    kind, features, options = "heavy", Features(cancels=True), VendorOptions

    async def describe(self, line):
        return AgentFacts("Heavy", "Brings a library that takes long to load.")

    async def run(self, turn, line):
        yield Done(agent_message("done"))

    async def cancel(self, ref, line):
        return CancelOutcome.UNSUPPORTED
"""


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "heavy_vendor.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VENDORS, KIND, "heavy_vendor:Heavy")  # type: ignore[arg-type]  # it is a dict
    yield "heavy_vendor"
    sys.modules.pop("heavy_vendor", None)


def forget(home: House, module: str) -> None:
    """As in a process that has met no agent of this kind yet."""
    loaded = sys.modules.pop(module)
    assert loaded.THREAD is not threading.main_thread()
    home.gateway.catalog._vendors.pop(KIND)
    home.gateway.catalog._adapters.pop(KIND, None)


async def test_whatever_needs_it_first_loads_it_in_a_thread(heavy: str, home: House) -> None:
    reception = Reception(home)
    made = await reception.post("/api/agents", url="http://127.0.0.1:8999/", kind=KIND, name="sales")
    assert made.status_code == 201, made.text
    forget(home, heavy)
    assert (await reception.ask("PATCH", "/api/agents/sales", body={"upstream": {"user": "subject"}})).status_code == 200
    forget(home, heavy)
    assert (await reception.ask("POST", "/api/agents/sales/refresh")).status_code == 200
    forget(home, heavy)
    task = (await home.send(home.token("alice"), "sales", "hi"))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    forget(home, heavy)
