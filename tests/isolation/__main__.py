"""`python -m tests.isolation`: 20,000 calls of two people over 64 connections; build/isolation.json, exit 1 on a crossing."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from gateway.storage.database import engine_for
from gateway.storage.migrations.run import upgrade
from tests.house.source import ROOT
from tests.isolation.crossing import Found, two_people


async def tried(calls: int, width: int) -> Found:
    with tempfile.TemporaryDirectory(prefix="interlock-isolation-") as folder:
        url = f"sqlite:///{folder}/interlock.db"
        engine = engine_for(url)
        upgrade(engine)
        engine.dispose()
        async with two_people(Path(folder) / "home", url) as crossing:
            return await crossing.go(calls, width)


def report(found: Found) -> int:
    print(f"{found.calls} calls in {found.seconds:.0f} s, {found.calls / found.seconds:.0f} a second")
    for kind, count in found.kinds.items():
        print(f"  {kind:<16}{count:>7}")
    print(f"  {found.upstream_sessions} sessions at the server, {found.hop_tokens} hop tokens at the agent")
    print(f"  {found.repeated} requests repeated")
    print(f"  crossings: {len(found.crossed)}")
    print(f"  without an answer: {len(found.unanswered)}")
    for line in (*found.crossed[:20], *found.unanswered[:5]):
        print(f"    {line}")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "isolation.json").write_text(
        json.dumps({**vars(found), "kinds": dict(found.kinds)}, indent=1) + "\n", encoding="utf-8"
    )
    print("written to build/isolation.json")
    return 1 if found.crossed or found.unanswered else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.isolation", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64, help="calls under way at once, each over a connection of its own")
    given = parser.parse_args(arguments)
    return report(asyncio.run(tried(given.calls, given.width)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
