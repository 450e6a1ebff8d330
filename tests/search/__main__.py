"""make search: how often each ranking has the right tool first, and among the first five; also in build/search.json."""

import json
import sys
from pathlib import Path
from time import perf_counter

from tests.search.operations import tools
from tests.search.rankings import RANKINGS, Score, score
from tests.search.test_bounds import AMONG_FIVE, FIRST

OUT = Path("build/search.json")


def main() -> int:
    operations = tools()
    print(f"{len(operations)} operations\n\n{'ranking':24}{'first':>8}{'among 5':>9}{'index ms':>10}{'query ms':>10}")
    rows = []
    for name, make in RANKINGS.items():
        began = perf_counter()
        find = make(operations)
        made = perf_counter()
        found = score(find)
        index_ms, query_ms = 1000 * (made - began), 1000 * (perf_counter() - made) / found.questions
        print(f"{name:24}{found.first / found.questions:8.1%}{found.among_five / found.questions:9.1%}{index_ms:10.0f}{query_ms:10.1f}")
        rows.append({"ranking": name, **found._asdict(), "index_ms": round(index_ms), "query_ms": round(query_ms, 1)})
    figures = _figures(Score(*(rows[0][field] for field in Score._fields)))  # type: ignore[arg-type]  # they are numbers
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"operations": len(operations), "rankings": rows, "figures": figures}, indent=2) + "\n")
    return int(any(figure["missed"] for figure in figures))


def _figures(ours: Score) -> list[dict[str, object]]:
    shares = {"search.first": (ours.first, FIRST), "search.among_five": (ours.among_five, AMONG_FIVE)}
    return [
        {"name": name, "value": count / ours.questions, "unit": "share", "at_least": bound, "missed": count / ours.questions < bound}
        for name, (count, bound) in shares.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
