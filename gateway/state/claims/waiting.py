"""Requests of this process that wait for claims. A release hands the claim to the first of them in its own commit, or wakes it."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from gateway.state.claims.claim import Claim, ClaimRequest


class WaitingRequest:
    """One request that waits for a claim."""

    def __init__(self, wanted: ClaimRequest) -> None:
        self.wanted = wanted
        self.claim: Claim | None = None  # which the request has taken, or a release has handed over
        self.is_waiting = False  # and makes no attempt of its own now
        self.is_gone = False
        self._event = asyncio.Event()
        self._wakes = self._seen = 0

    @property
    def is_woken(self) -> bool:
        """Whether the request was woken, and has not looked since."""
        return self._wakes > self._seen

    def wake(self) -> None:
        self._wakes += 1
        self._event.set()

    def hand_over(self, claim: Claim) -> bool:
        """Gives the request its claim. Returns False where its caller has gone, and has not found the claim by itself before."""
        if self.is_gone:
            return self.claim is not None and self.claim.id == claim.id
        self.claim = claim
        self.wake()
        return True

    @contextmanager
    def looking(self) -> Iterator[None]:
        """An attempt to take the claim. A wake-up during it leads to another attempt; one that is cancelled does not count."""
        wakes = self._wakes
        self._event.clear()
        yield
        self._seen = wakes

    async def wait(self, pause: Awaitable[None]) -> bool:
        """Waits until the request is woken, or until `pause` is over. Returns whether it was woken."""
        tasks = (asyncio.ensure_future(self._event.wait()), asyncio.ensure_future(pause))
        self.is_waiting = True
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_waiting = False
            for task in tasks:
                task.cancel()
        return self.is_woken


class ClaimWaiters:
    """The waiting requests by tenant and subject, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[str, str], list[WaitingRequest]] = defaultdict(list)

    @contextmanager
    def join(self, wanted: ClaimRequest) -> Iterator[WaitingRequest]:
        """A place in the row, before the first attempt, so that no release is missed. One that was woken and goes wakes the next."""
        key, waiter = (wanted.tenant, wanted.subject), WaitingRequest(wanted)
        self._waiting[key].append(waiter)
        try:
            yield waiter
        finally:
            waiter.is_gone = True
            self._waiting[key].remove(waiter)
            if waiter.is_woken and waiter.claim is None:
                self.wake(wanted.tenant, wanted.subject, wanted.effect)
            if not self._waiting[key]:
                del self._waiting[key]

    def waiting_on(self, tenant: str, subject: str) -> tuple[WaitingRequest, ...]:
        """The requests for claims on a subject, the oldest first."""
        return tuple(self._waiting.get((tenant, subject), ()))

    def has_others(self, waiter: WaitingRequest) -> bool:
        """Whether other requests wait for claims on the same subject."""
        return len(self._waiting[waiter.wanted.tenant, waiter.wanted.subject]) > 1

    def first_for(self, claim: Claim, tenant: str) -> WaitingRequest | None:
        """The first request that the end of a claim may let through."""
        waiting = self.waiting_on(tenant, claim.subject)
        return next((each for each in waiting if each.is_waiting and claim.concerns(each.wanted.effect)), None)

    def wake(self, tenant: str, subject: str, effect: str) -> None:
        """Wakes the first request for each effect that a claim on `effect`, which has ended, stood in the way of."""
        seen = set[str]()
        for waiter in self.waiting_on(tenant, subject):
            wanted = waiter.wanted.effect
            if wanted not in seen and ("*" in (effect, wanted) or effect == wanted):
                waiter.wake()
                seen.add(wanted)
