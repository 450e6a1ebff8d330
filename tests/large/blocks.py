"""What holds the event loop of a large gateway, act by act: how long, and in which calls; also in build/large-blocks.json."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.processes import BenchFailure
from tests.large.lag import BLOCKS

OUT: Final = Path("build/large-blocks.json")
AFTERWARDS_SECONDS: Final = 0.3  # what an act has begun goes on
STACKS_SHOWN: Final = 3
CALLS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class ActBlocks:
    """How often the loop was held during an act, for how long altogether and at most, and where."""

    act: str
    seconds: float
    count: int
    total_ms: float
    worst_ms: float
    gc_ms: float
    stacks: Mapping[str, float]  # milliseconds of the most frequent ones


def measure_acts(folder: Path, acts: Mapping[str, Callable[[], Any]]) -> list[ActBlocks]:
    """Does each act twice. `folder`: the working directory of the gateway, where it writes what held its loop."""
    measured = []
    print(f"{'act':38}{'time ms':>9}{'blocks':>8}{'worst ms':>10}{'sum ms':>9}{'gc ms':>8}")
    for act, run in acts.items():
        for name in (act, f"{act}, again"):
            began = time.time()
            try:
                run()
            except BenchFailure as failure:
                print(f"{name:38} failed: {str(failure)[:200]}")
                continue
            ended = time.time()
            time.sleep(AFTERWARDS_SECONDS)
            found = _blocks_of(name, began, ended, folder / BLOCKS.name)
            measured.append(found)
            print(
                f"{name:38}{found.seconds * 1e3:9.1f}{found.count:8}{found.worst_ms:10.1f}{found.total_ms:9.1f}{found.gc_ms:8.1f}",
                flush=True,
            )
            for stack, ms in found.stacks.items():
                print(f"      {ms:7.1f} {stack}")
    return measured


def write_blocks(found: Sequence[ActBlocks]) -> None:
    """Writes what was measured, and prints what held the loop longest."""
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    print(f"\nwritten to {OUT}; the longest:")
    for each in sorted(found, key=lambda one: -one.worst_ms)[:10]:
        print(f"{each.worst_ms:8.1f} ms  {each.act}")


def _blocks_of(act: str, began: float, ended: float, log: Path) -> ActBlocks:
    blocks = [block for line in log.read_text().splitlines() if (block := json.loads(line))["at"] >= began] if log.exists() else []
    stacks = Counter[str]()
    for block in blocks:
        for stack, ms in block["stacks"].items():
            stacks[" < ".join(stack.split(" < ")[:CALLS_SHOWN])] += ms
    shown = {stack: round(ms, 1) for stack, ms in stacks.most_common(STACKS_SHOWN)}
    worst, total = max((block["ms"] for block in blocks), default=0.0), sum(block["ms"] for block in blocks)
    return ActBlocks(act, ended - began, len(blocks), total, worst, sum(block["gc_ms"] for block in blocks), shown)
