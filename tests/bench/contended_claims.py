"""Claims on one subject that many people want at once: how many are held, one after the other, and that there is never a second holder."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp

from tests.bench.figures import ContendedClaims
from tests.bench.processes import BenchFailure
from tests.bench.rounds import Target

_ORDER = {"subject": "bench:contended", "purpose": "to count", "seconds": 60, "wait_seconds": 30}
_WAITED_IN_VAIN = 409


@dataclass(frozen=True, slots=True)
class Hold:
    """A time in which a claimant had the claim: from the answer that gave it until the request that released it, in seconds."""

    token: int
    since: float
    until: float


@dataclass(slots=True)
class _Scene:
    """What all claimants share. `counter` is only safe while one of them has the claim."""

    end: float
    counter: int = 0
    holds: list[Hold] = field(default_factory=list)


def faults_of(holds: Sequence[Hold], counter: int) -> list[str]:
    """What is wrong with a history: two holders at a time, a fencing token that does not grow, or a lost update of the counter."""
    ordered = sorted(holds, key=lambda hold: hold.since)
    found = [f"{second} began before {first} ended" for first, second in pairwise(ordered) if second.since < first.until]
    found += [f"the token of {second} is not above that of {first}" for first, second in pairwise(ordered) if second.token <= first.token]
    if counter != len(holds):
        found.append(f"the holders counted {counter} in place of {len(holds)}")
    return found


def measure_claims(target: Target, claimants: int, seconds: float) -> ContendedClaims:
    """As many people as `claimants` take and release one claim for `seconds`. Raises BenchFailure for a history with a fault."""
    scene, taken = asyncio.run(_contend(target, claimants, seconds))
    if faults := faults_of(scene.holds, scene.counter):
        raise BenchFailure(f"{len(faults)} faults in the history of a claim: {faults[0]}")
    return ContendedClaims(claimants, len(scene.holds) / taken)


async def _contend(target: Target, claimants: int, seconds: float) -> tuple[_Scene, float]:
    began = time.perf_counter()
    scene = _Scene(began + seconds)
    async with aiohttp.ClientSession(target.running.url, connector=aiohttp.TCPConnector(limit=0)) as http:
        headers = [{"authorization": f"Bearer {token}"} for token in target.tokens[:claimants]]  # one person has one claim
        await asyncio.gather(*(_take_and_release(http, each, scene) for each in headers))
    return scene, time.perf_counter() - began


async def _take_and_release(http: aiohttp.ClientSession, headers: dict[str, str], scene: _Scene) -> None:
    while time.perf_counter() < scene.end:
        claim = await _take(http, headers)
        if claim is None:
            continue
        since, seen = time.perf_counter(), scene.counter
        await asyncio.sleep(0)  # another holder would count now
        scene.counter = seen + 1
        scene.holds.append(Hold(claim["token"], since, time.perf_counter()))
        async with http.delete(f"/api/claims/{claim['id']}?token={claim['token']}", headers=headers) as answer:
            await _check(answer, 200)


async def _take(http: aiohttp.ClientSession, headers: dict[str, str]) -> dict[str, Any] | None:
    """The claim, or None where others had it for all the time that the request waited."""
    async with http.post("/api/claims", json=_ORDER, headers=headers) as answer:
        if answer.status == _WAITED_IN_VAIN:
            return None
        await _check(answer, 201)
        found: dict[str, Any] = await answer.json()
        return found


async def _check(answer: aiohttp.ClientResponse, status: int) -> None:
    if answer.status != status:
        raise BenchFailure(f"{answer.method} {answer.url.path}: HTTP {answer.status} {(await answer.text())[:500]}")
