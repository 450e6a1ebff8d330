"""make large: start, memory and latencies of a large gateway beside those of an empty one, also in build/large.json."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from gateway.storage.database import engine_for
from gateway.storage.migrations.run import upgrade
from tests.bench.interlock import Home, await_ready, register
from tests.bench.processes import LOAD_CORE, asgi_server, cpu_seconds, resident_mb
from tests.large.acts import FORBIDS, PRUNED_DAYS, Operator, acts_of, list_all
from tests.large.blocks import measure_acts, write_blocks
from tests.large.contents import LargeSize, fill_large
from tests.large.questions import QUESTIONS, Side, neighbour, seconds_of

OUT: Final = Path("build/large.json")
RATIO_MAX: Final = 1.3  # of the p50 of the large gateway to that of the empty one
BOUNDS_MS: Final = {  # of what the empty gateway has none of, or a few
    "front_door_card": 10.0,
    "catalog": 10.0,
    "search_agents": 20.0,
    "search_tools": 20.0,
    "tools_page": 15.0,
    "list_tasks_failed_busiest": 15.0,
}
NEW_PEOPLE: Final = tuple(f"new-{number}" for number in range(12))  # whose lists no process has made before
PERSON: Final = "large-0"
UNLIKE: Final = tuple(f"unlike-{number}" for number in range(3))
NO_RULE: Final = FORBIDS.format("at-all")
WATCHED: Final = ("tests.large.lag",)
USUAL: Final = "person7"  # one of the 500 others of the fixture
LISTED: Final = 25  # tasks that the empty gateway has too, so that a page of a list is full


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.large")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size, such as 0.01")
    parser.add_argument("--rounds", type=int, default=60, help="times that each question is asked")
    parser.add_argument("--tasks", type=int, help="tasks, whatever the scale says")
    parser.add_argument("--blocks", action="store_true", help="what holds the event loop of the large gateway, act by act, instead")
    chosen = parser.parse_args()
    size = LargeSize.scaled(chosen.scale) if chosen.scale != 1 else LargeSize()
    size = replace(size, tasks=chosen.tasks or size.tasks)
    os.sched_setaffinity(0, LOAD_CORE)  # a gateway has the other core for itself
    return _find_blocks(size) if chosen.blocks else _compare(size, chosen.rounds)


def _compare(size: LargeSize, rounds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="interlock-large-") as folder, ExitStack() as stack:
        upstream = stack.enter_context(asgi_server("tests.bench.echo:app", Path(folder)))
        sides = []
        for name in ("empty", "large"):
            sides.append(_open_side(stack, name, Path(folder), size))
            register(sides[-1].running, sides[-1].home.admin_token(), upstream)
        report = _measure(sides, rounds)
    report |= {"size": {"agents": size.agents, "servers": size.servers, "tools": size.tools, "tasks": size.tasks}}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {OUT}")
    return int(any(figure["missed"] for figure in report["figures"]))


def _find_blocks(size: LargeSize) -> int:
    """Does each act of acts.py at a large gateway that watches its event loop."""
    with tempfile.TemporaryDirectory(prefix="interlock-large-") as folder, ExitStack() as stack:
        upstream = stack.enter_context(asgi_server("tests.bench.echo:app", Path(folder)))
        home = _fill_home("large", Path(folder), size)
        running = stack.enter_context(home.serving(WATCHED))
        await_ready(running, seconds=120)
        admin, side = home.admin_token(), Side("large", home, running, home.tokens("large", 1)[0])
        register(running, admin, upstream)
        side.task_id, side.usual = json.loads(side.send())["result"]["task"]["id"], home.tokens_of([USUAL])[0]
        found = measure_acts(home.folder, acts_of(side, Operator(side, admin)))
    write_blocks(found)
    return 0


def _fill_home(name: str, folder: Path, size: LargeSize) -> Home:
    """Makes a home with keys and a database, which is empty unless `name` is large."""
    people = {person: {"roles": ["operator", f"team-{person}"]} for person in (*NEW_PEOPLE, *UNLIKE)}  # no two share a list
    settings = {"sandbox": "off", "retention": {"min_days": PRUNED_DAYS}, "users": {PERSON: {"roles": ["operator"]}, **people}}
    home = Home.fresh(folder / name, settings, NO_RULE)
    home.admin_token()  # creates the keys
    engine = engine_for(f"sqlite:///{folder / name / 'data' / 'interlock.db'}")
    upgrade(engine)
    if name == "large":
        began = time.perf_counter()
        fill_large(engine, PERSON, size, lambda line: print(f"{time.perf_counter() - began:5.0f} s: {line}", file=sys.stderr, flush=True))
    engine.dispose()
    return home


def _open_side(stack: ExitStack, name: str, folder: Path, size: LargeSize) -> Side:
    """Fills a home, starts its gateway twice, and measures the second start, when files are known to the system."""
    home = _fill_home(name, folder, size)
    with home.serving() as once:
        await_ready(once, seconds=120)
    began = time.perf_counter()
    running = stack.enter_context(home.serving())
    await_ready(running, seconds=120)
    side = Side(name, home, running, home.tokens("large", 1)[0], usual=home.tokens_of([USUAL])[0])
    side.started_s = round(time.perf_counter() - began, 2)
    return side


def _measure(sides: Sequence[Side], rounds: int) -> dict[str, Any]:
    rows, figures = [], []
    for side in sides:
        side.task_id = [json.loads(side.send())["result"]["task"]["id"] for _ in range(LISTED)][-1]
        for _ in range(LISTED):
            side.send(token=side.usual)
    print(f"{'question':30}{'empty ms':>10}{'large ms':>10}{'ratio':>8}{'p99':>9}{'cpu ms':>9}")
    for question, ask in QUESTIONS.items():
        taken: dict[str, list[float]] = {side.name: [] for side in sides}
        used = dict.fromkeys(taken, 0.0)
        for number in range(rounds + 3):
            for side in sides:
                before = cpu_seconds(side.running.pid)
                seconds = seconds_of(lambda side=side, ask=ask: ask(side))  # type: ignore[misc]  # bound now
                if number >= 3:
                    taken[side.name].append(seconds * 1e3)
                    used[side.name] += (cpu_seconds(side.running.pid) - before) * 1e3 / rounds
        p50 = {name: median(values) for name, values in taken.items()}
        p99, ratio = quantiles(taken["large"], n=100)[98], p50["large"] / p50["empty"]
        rows.append({"question": question, "empty_ms": p50["empty"], "large_ms": p50["large"], "p99_ms": p99, "cpu_ms": used["large"]})
        print(f"{question:30}{p50['empty']:10.2f}{p50['large']:10.2f}{ratio:8.2f}{p99:9.1f}{used['large']:9.2f}", flush=True)
        if question in BOUNDS_MS:
            figures.append(_figure(f"{question}_ms", p50["large"], BOUNDS_MS[question], "ms"))
        else:
            figures.append(_figure(f"{question}_ratio", ratio, RATIO_MAX, "times"))
    large = sides[1]
    figures += _measure_new_lists(large)
    figures.append(_figure("start_s", large.started_s, 5.0, "s"))
    figures.append(_figure("memory_mb", resident_mb(large.running.pid), 600.0, "MB"))
    database = large.home.folder / "data" / "interlock.db"
    print(f"start {large.started_s} s (empty {sides[0].started_s} s), memory {resident_mb(large.running.pid):.0f} MB", end=" ")
    print(f"(empty {resident_mb(sides[0].running.pid):.0f} MB), database {database.stat().st_size / 1e6:.0f} MB")
    for figure in figures:
        print(
            f"{'MISSED' if figure['missed'] else 'ok    '} {figure['name']} {figure['value']} {figure['unit']}, at most {figure['at_most']}"
        )
    return {"rows": rows, "figures": figures, "database_bytes": database.stat().st_size}


def _measure_new_lists(side: Side) -> list[dict[str, Any]]:
    """The pages of tools/list that people get whose list was never made, and what a neighbour feels of it."""
    tokens = side.home.tokens("new", len(NEW_PEOPLE) + 1)
    with neighbour(side, tokens[-1]) as alone:
        time.sleep(5)
    with neighbour(side, tokens[-1]) as beside:
        pages = [page for token in tokens[:-1] for page in list_all(side, token)]
    p99 = [quantiles(each, n=100)[98] * 1e3 for each in (alone, beside)]
    print(f"tools/list of new people: page p50 {median(pages):.1f} ms, worst {max(pages):.1f} ms of {len(pages)} pages", end="; ")
    print(f"neighbour p50 {median(alone) * 1e3:.1f}, p99 {p99[0]:.1f} ms alone, {median(beside) * 1e3:.1f} and {p99[1]:.1f} ms beside")
    return [
        _figure("tools_page_new_p50_ms", median(pages), 15.0, "ms"),
        _figure("tools_page_new_worst_ms", max(pages), 50.0, "ms"),
        _figure("neighbour_p99_ratio", p99[1] / p99[0], 1.5, "times"),
    ]


def _figure(name: str, value: float, at_most: float, unit: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "at_most": at_most, "missed": value > at_most}


if __name__ == "__main__":
    sys.exit(main())
