"""What was found: one row a scenario, as a table for people and as JSON for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PASS, FAIL = "pass", "fail"
WHY_MAX = 1000  # characters
SERVER: Literal["server"] = "server"
RECORDING: Literal["recording"] = "recording"
SDK: Literal["sdk"] = "sdk"
CLIENT: Literal["client"] = "client"


@dataclass(frozen=True, slots=True)
class Row:
    """`why`: what was seen instead; empty when it passed."""

    vendor: str
    scenario: str
    against: Literal["server", "recording", "sdk", "client"]
    why: str = ""

    @property
    def outcome(self) -> str:
        return FAIL if self.why else PASS

    def document(self) -> dict[str, str]:
        why = self.why[:WHY_MAX]
        return {"vendor": self.vendor, "scenario": self.scenario, "against": self.against, "outcome": self.outcome, "why": why}


def table(rows: Sequence[Row]) -> str:
    """One line for each vendor and what it was held against, then every scenario that failed."""
    counts = Counter((row.vendor, row.against, row.outcome) for row in rows)
    lines = [f"{'vendor':<16} {'against':<10} {'passed':>6} {'failed':>6}"]
    for vendor, against in dict.fromkeys((row.vendor, row.against) for row in rows):
        lines.append(f"{vendor:<16} {against:<10} {counts[vendor, against, PASS]:>6} {counts[vendor, against, FAIL]:>6}")
    failed = [f"FAILED {row.vendor} {row.scenario} ({row.against}): {row.why[:WHY_MAX]}" for row in rows if row.why]
    return "\n".join([*lines, *failed])
