"""How often agents completed their steps lately, as this process has seen it."""

from typing import Final

AGENTS_MAX: Final = 10_000
WEIGHT: Final = 0.1  # of the latest step; what was twenty steps ago counts an eighth of it


class Outcomes:
    """The share of completed steps of each agent, between 0 and 1. An agent that was not asked yet counts as reliable."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], float] = {}

    def record(self, tenant: str, agent: str, *, completed: bool) -> None:
        key = (tenant, agent)
        if key not in self._shares and len(self._shares) >= AGENTS_MAX:
            self._shares.pop(next(iter(self._shares)))
        self._shares[key] = (1 - WEIGHT) * self._shares.get(key, 1.0) + WEIGHT * completed

    def share_of(self, tenant: str, agent: str) -> float:
        return self._shares.get((tenant, agent), 1.0)
