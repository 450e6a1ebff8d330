"""`python -m tests.vendors`: live servers, every recording, official SDKs, clients of frameworks; a table and build/vendors.json."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.bench.processes import ROOT, BenchFailure, environment, tail_of
from tests.vendors.clients.runs import CLIENTS, asked
from tests.vendors.recordings import replayed
from tests.vendors.rows import SERVER, Row, table
from tests.vendors.scenarios import planned, row_of
from tests.vendors.sdk.checks import SDKS, checked
from tests.vendors.servers import ADK, LANGGRAPH
from tests.vendors.stage import staged

RESULT = ROOT / "build" / "vendors.json"
DEMO_SECONDS = 240
FOLDER = ROOT / "build" / "vendors" / "run"  # data and logs of the last run


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run() -> list[Row]:
    """Raises BenchFailure."""
    say(f"starting {LANGGRAPH.vendor}, {ADK.vendor} and the gateway; their logs: {FOLDER.relative_to(ROOT)}")
    rows = []
    with staged(FOLDER) as stage:
        for scene, name, scenario in planned(stage):
            rows.append(await row_of(scene, scenario, name))
            say(f"  {rows[-1].outcome} {rows[-1].vendor} {name}")
    say("playing the demo with the graph")
    rows.append(await asyncio.to_thread(demo))
    say("playing the recordings back")
    rows += await replayed()
    say(f"asking the official SDKs: {', '.join(sdk.name for sdk in SDKS)}")
    rows += await checked()
    say(f"running the clients of docs/clients.md: {', '.join(client.name for client in CLIENTS)}")
    return rows + await asked()


def demo() -> Row:
    """The story of the demo, with a graph as its sales agent."""
    environ = environment(SALES=LANGGRAPH.vendor, DEMO_EXIT="1", NO_COLOR="1", PYTHONIOENCODING="utf-8")
    log = FOLDER / "demo.log"
    with log.open("wb") as sink:
        told = subprocess.Popen([sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environ, stdin=-3, stdout=sink, stderr=sink)
        try:
            code = told.wait(DEMO_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            told.terminate()  # it ends what it started
            told.wait()
    return Row(LANGGRAPH.vendor, "demo", SERVER, "" if code == 0 else f"ended with {code}:\n{tail_of(log)}")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 all passed, 1 something did not."""
    if arguments:
        say("usage: python -m tests.vendors")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends this ends what it started
    began = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        rows = asyncio.run(run())
    except BenchFailure as failure:
        say(f"test-vendors: {failure}")
        return 1
    RESULT.write_text(json.dumps([row.document() for row in rows], indent=2) + "\n")
    print(f"{table(rows)}\n\n{time.monotonic() - began:.0f} s, also in {RESULT.relative_to(ROOT)}")
    return 1 if any(row.why for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
