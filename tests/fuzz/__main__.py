"""`python -m tests.fuzz`: random requests to /api, MCP and A2A; build/fuzz.json, exit 1 on a server error or a missing answer."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.fuzz.api_cases import ApiFindings, fuzz_api
from tests.fuzz.judge import Findings, send_cases
from tests.fuzz.mutations import build_case
from tests.fuzz.requests import every_seed
from tests.fuzz.stage import Stage, open_stage
from tests.house.source import ROOT

_SHOWN = 10


def fuzz_rpc(stage: Stage, count: int, seed: int, width: int) -> Findings:
    """Sends `count` changed requests of MCP and A2A, `width` at a time."""
    seeds = every_seed(stage.known)
    cases = (build_case(number, seeds, seed) for number in range(count))
    return asyncio.run(send_cases(stage.running.url, stage.member, cases, width, lambda sent: _show_progress(sent, count)))


def _show_progress(sent: int, count: int) -> None:
    print(f"  {sent:,} of {count:,} requests to MCP and A2A", flush=True)


def report(found: Findings, api: dict[str, ApiFindings], folder: Path) -> int:
    """Prints what was found, and writes fuzz.json and the faulty requests into the folder. Returns the exit code."""
    folder.mkdir(exist_ok=True)
    errors_5xx = found.count("5xx") + sum(len(each.server_errors) for each in api.values())
    hangs = found.count("hang") + sum(each.hangs for each in api.values())
    for person, each in api.items():
        print(f"/api as {person}: {each.cases:,} cases of {each.operations} operations, {len(each.server_errors)} server errors")
        for line in (*each.errors, *each.server_errors[:_SHOWN]):
            print(f"    {line[:600]}")
    statuses = ", ".join(f"{count:,} times {status}" for status, count in sorted(found.statuses.items()))
    print(f"MCP and A2A: {found.cases:,} cases ({statuses}), {len(found.faults)} faulty answers")
    for case, fault, _ in found.faults[:_SHOWN]:
        print(f"    case {case.number}: {fault}: {case.method} {case.path[:80]} {case.body[:200]!r}")
    print(f"answers 5xx: {errors_5xx}, hangs: {hangs}")
    _write(found, folder)
    figures = {"api_cases": sum(each.cases for each in api.values()), "rpc_cases": found.cases, "answers_5xx": errors_5xx, "hangs": hangs}
    (folder / "fuzz.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"written to {folder.name}/fuzz.json, faulty requests to {folder.name}/fuzz-faults.jsonl")
    return 1 if errors_5xx or hangs or found.faults else 0


def _write(found: Findings, folder: Path) -> None:
    """One line for each faulty request: `--seed` and `case` make it again."""
    with (folder / "fuzz-faults.jsonl").open("w", encoding="utf-8") as file:
        for case, fault, answer in found.faults:
            body = case.body[:4_000].decode("latin-1")
            line = {"case": case.number, "fault": fault, "path": case.path, "headers": case.headers, "body": body, "answer": answer}
            file.write(json.dumps(line) + "\n")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000, help="of MCP and A2A")
    parser.add_argument("--examples", type=int, default=20, help="random cases of each operation of /api, beside those of its boundaries")
    parser.add_argument("--width", type=int, default=16, help="requests under way at once")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="interlock-fuzz-") as name:
        api = {}
        for person in ("operator", "member"):
            (Path(name) / person).mkdir()
            with open_stage(Path(name) / person) as stage:
                print(f"/api as {person}, about a minute", flush=True)
                api[person] = fuzz_api(stage, person, Path(name) / "schemathesis" / person, given.examples, given.seed)
        with open_stage(Path(name)) as stage:
            found = fuzz_rpc(stage, given.cases, given.seed, given.width)
    return report(found, api, ROOT / "build")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
