"""What the rounds amount to: build/chaos.json and the table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.figures import Figure, columns
from tests.bench.load import percentile
from tests.chaos.rounds import Round

TAKEOVER_SECONDS = 5.0
Played = Mapping[str, Sequence[Round]]  # by database


def takeovers_of(rounds: Sequence[Round]) -> list[float]:
    """Seconds from each kill until other processes had all of its work, in ascending order."""
    return sorted(each.takeover for each in rounds if each.takeover is not None)


def counted(played: Played, what: str) -> int:
    """How often runs were lost, repeated, stuck or wrong."""
    return sum(len(getattr(each.verdict, what)) for rounds in played.values() for each in rounds)


def figures(played: Played) -> list[Figure]:
    """The figures to reach. A restart of the only process on SQLite includes its start, so it has no bound."""
    found = [
        Figure(name, float(counted(played, what)), at_most=0.0)
        for what, name in (
            ("lost", "effects or runs lost"),
            ("repeated", "effects repeated"),
            ("stuck", "runs that did not end"),
            ("wrong", "runs that ended otherwise than they should"),
        )
    ]
    both = takeovers_of(played.get("postgres", ()))
    for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
        found.append(Figure(f"takeover by another process, {name}", _share(both, share), "s", at_most=TAKEOVER_SECONDS))
    alone = takeovers_of(played.get("sqlite", ()))
    return [*found, Figure("the same by a restart on SQLite, p50", _share(alone, 0.5), "s"), Figure("… max", _share(alone, 1.0), "s")]


def _share(ordered: Sequence[float], share: float) -> float | None:
    return percentile(ordered, share) if ordered else None


def document(played: Played, settings: Mapping[str, Any]) -> dict[str, Any]:
    """build/chaos.json."""
    both = takeovers_of(played.get("postgres", ()))
    return {
        "rounds": {database: len(rounds) for database, rounds in played.items()},
        **{what: counted(played, what) for what in ("lost", "repeated", "stuck", "wrong")},
        "takeover_s": {"p50": _share(both, 0.5), "p95": _share(both, 0.95), "max": _share(both, 1.0)},
        "figures": [{**asdict(figure), "missed": figure.missed} for figure in figures(played)],
        "played": {database: [asdict(each) for each in rounds] for database, rounds in played.items()},
        "settings": settings,
    }


def table(played: Played) -> str:
    """Rounds by database and kind, then the figures beside their targets."""
    head = ("database", "killed", "rounds", "runs", "interrupted", "outcome unknown", "problems")
    rows = []
    for database, rounds in played.items():
        for kind in dict.fromkeys(each.kind for each in rounds):
            mine = [each for each in rounds if each.kind == kind]
            counts = (
                len(mine),
                sum(each.runs for each in mine),
                sum(each.interrupted for each in mine),
                sum(each.verdict.unknown for each in mine),
                sum(len(each.verdict.problems) for each in mine),
            )
            rows.append((database, kind, *map(str, counts)))
    reached = [(figure.name, *figure.cells) for figure in figures(played)]
    return columns(head, rows, left=2) + "\n\n" + columns(("figure", "measured", "target", ""), reached, left=1)
