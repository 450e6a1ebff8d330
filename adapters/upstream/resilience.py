"""Resilience: which endpoint of an agent gets a call, who is left alone for a while, and what little is tried again."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from adapters.contract import ENDPOINT, Call, NotSent, Ref, Unreachable, UpstreamFault, VendorRef
from adapters.upstream.breaker import Breaker
from registry.cards.card import Registration

OPEN: Final = "The agent could not be reached several times; it is tried again soon"
SHARE: Final = 0.2  # of its requests that may be tried again
RESERVE: Final = 10.0  # tries that are saved up at most, and that there are at first
ATTEMPTS_MAX: Final = 3
WAIT_MAX: Final = 5.0  # seconds that an agent may ask to be left alone for, and is waited for
RECONNECT_SECONDS: Final = 0.1
AGENTS_KEPT: Final = 10_000
Place = tuple[str, str, str]  # tenant, name, URL


class _Agent:
    __slots__ = ("fault", "fault_at", "retries", "share", "tokens", "under_way")

    def __init__(self) -> None:
        self.tokens = RESERVE
        self.retries = 0
        self.under_way = 0
        self.fault = ""
        self.fault_at = 0.0  # seconds since 1970
        self.share: dict[str, float] = {}  # how far each endpoint is behind its weight

    def asked(self) -> None:
        if self.tokens < RESERVE:
            self.tokens = min(RESERVE, self.tokens + SHARE)

    def again(self) -> bool:
        """Takes one try of the budget."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        self.retries += 1
        return True


class Resilience:
    """Of all agents, in this process. `clock` counts seconds of the process, `now` since 1970."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._now = now
        self.pause = pause
        self.breaker = Breaker(clock, OPEN)
        self._agents: dict[tuple[str, str], _Agent] = {}

    def visit(self, ref: VendorRef | None, call: Call) -> "Visit":
        """For one call, which may take several attempts."""
        agent = self.agent(call.target)
        agent.asked()
        agent.under_way += 1
        return Visit(self, agent, call, ref)

    def at(self, ref: VendorRef, call: Call) -> Call:
        """The same call to the endpoint that has the task."""
        return _sent_to(call, _kept(ref, call.target)) if call.target.endpoints else call

    def may_ask_again(self, call: Call) -> bool:
        """Whether a question that changes nothing may be put once more."""
        return self.agent(call.target).again()

    def agent(self, target: Registration) -> _Agent:
        key = (target.tenant, target.name)
        found = self._agents.get(key)
        if found is None:
            if len(self._agents) >= AGENTS_KEPT:
                self._agents.clear()
            found = self._agents[key] = _Agent()
        return found

    def failed(self, agent: _Agent, place: Place, fault: UpstreamFault) -> None:
        self.breaker.fault(place)
        agent.fault, agent.fault_at = fault.public, self._now()

    def chosen(self, agent: _Agent, target: Registration, tried: Iterable[str]) -> str:
        """By weight among those that can be reached as far as anybody knows, the spare ones last."""
        weights = weights_of(target)
        left = [url for url in weights if url not in tried] or list(weights)
        shut = {url for url in left if self.breaker.shuts_out(_place(target, url))} if self.breaker.troubled else set()
        open_to = [url for url in left if url not in shut] or left
        usual = [url for url in open_to if weights[url]]
        if not usual:
            return open_to[0]
        for url in usual:
            agent.share[url] = agent.share.get(url, 0.0) + weights[url]
        best = max(usual, key=lambda url: agent.share[url])
        agent.share[best] -= sum(weights[url] for url in usual)
        return best

    @property
    def retries(self) -> int:
        return sum(agent.retries for agent in self._agents.values())

    @property
    def ejected(self) -> int:
        """Endpoints that are left alone."""
        return sum(trouble.open for trouble in self.breaker.troubled.values())

    def state(self, target: Registration) -> dict[str, Any]:
        """How it stands with an agent, as this process has seen it. Times are seconds since 1970."""
        agent = self.agent(target)
        fault = {"at": agent.fault_at, "problem": agent.fault} if agent.fault else None
        endpoints = [self._endpoint(target, url, weight) for url, weight in weights_of(target).items()]
        budget = {"left": int(agent.tokens), "used": agent.retries}
        return {"under_way": agent.under_way, "retries": budget, "last_fault": fault, "endpoints": endpoints}

    def _endpoint(self, target: Registration, url: str, weight: int) -> dict[str, Any]:
        trouble = self.breaker.troubled.get(_place(target, url))
        if trouble is None or not trouble.open:
            return {"url": url, "weight": weight, "state": "up", "faults": trouble.faults if trouble else 0, "since": None}
        state = "ejected" if self._clock() < trouble.until else "tried"
        since = self._now() - (self._clock() - trouble.since)
        return {"url": url, "weight": weight, "state": state, "faults": trouble.faults, "since": since}


class Visit:
    """One call, at one endpoint after the other where that is safe. A task that goes on stays where it is."""

    __slots__ = ("_agent", "_attempts", "_call", "_entered", "_resilience", "_stays", "_tried", "call", "url")

    def __init__(self, resilience: Resilience, agent: _Agent, call: Call, ref: VendorRef | None) -> None:
        self._resilience = resilience
        self._agent = agent
        self._call = self.call = call
        self._stays = ref is not None and bool(ref.task_id or ref.context_id)
        self._attempts = 0
        self._tried: list[str] = []
        self._entered = False
        self.url = _url(call.target)
        if self._stays and ref is not None:
            self.url = _kept(ref, call.target)

    def enter(self) -> None:
        """Before an attempt. Raises LeftAlone."""
        resilience, target = self._resilience, self._call.target
        self._attempts += 1
        if target.endpoints:
            if not self._stays:
                self.url = resilience.chosen(self._agent, target, self._tried)
                self._tried.append(self.url)
            self.call = _sent_to(self._call, self.url)
        if resilience.breaker.troubled:
            resilience.breaker.enter(_place(target, self.url))
        self._entered = True

    def heard(self) -> None:
        """The agent answers."""
        self._entered = False
        if self._resilience.breaker.troubled:
            self._resilience.breaker.well(_place(self._call.target, self.url))

    def broke(self, fault: UpstreamFault) -> None:
        """What the agent had begun to say broke off, or it said what it must not."""
        if isinstance(fault, Unreachable) and not self._call.cut_short:
            self._resilience.failed(self._agent, _place(self._call.target, self.url), fault)

    def failed(self, fault: UpstreamFault, left: float) -> float | None:
        """The agent said nothing. Seconds after which another attempt is safe and worth it; None: it is not. `left` are seconds, too."""
        breaker, place = self._resilience.breaker, _place(self._call.target, self.url)
        if isinstance(fault, NotSent) or (isinstance(fault, Unreachable) and self._call.cut_short):
            breaker.undecided(place)
        elif isinstance(fault, Unreachable):
            self._resilience.failed(self._agent, place, fault)
        elif breaker.troubled:
            breaker.well(place)
        self._entered = False
        delay = self._delay(fault)
        return delay if delay is not None and delay < left and self._agent.again() else None

    def _delay(self, fault: UpstreamFault) -> float | None:
        target = self._call.target
        if self._attempts >= ATTEMPTS_MAX:
            return None
        if fault.unsent and target.endpoints and not self._stays and any(url not in self._tried for url in weights_of(target)):
            return 0.0
        if fault.unsent and isinstance(fault, Unreachable) and self._attempts == 1:
            return RECONNECT_SECONDS
        return fault.retry_after if fault.retryable and fault.retry_after is not None and fault.retry_after <= WAIT_MAX else None

    def marked(self, event: Ref) -> Ref:
        """With the endpoint, where it is not the one the agent is registered at."""
        if not self._call.target.endpoints or self.url == _url(self._call.target):
            return event
        return Ref(replace(event.ref, extra={**event.ref.extra, ENDPOINT: self.url}))

    def leave(self) -> None:
        """The call is over, whatever became of it."""
        self._agent.under_way -= 1
        if self._entered:
            self._resilience.breaker.undecided(_place(self._call.target, self.url))


def weights_of(target: Registration) -> Mapping[str, int]:
    """All addresses of an agent, the one it is registered at first."""
    return {_url(target): 1, **{each.url: each.weight for each in target.endpoints}}


def _url(target: Registration) -> str:
    return str(target.facts.get("interface") or target.url)


def _kept(ref: VendorRef, target: Registration) -> str:
    """Where a task is; no address that the operator has taken from the entry is ever called again."""
    url = ref.extra.get(ENDPOINT)
    return str(url) if url is not None and any(each.url == url for each in target.endpoints) else _url(target)


def _place(target: Registration, url: str) -> Place:
    return target.tenant, target.name, url


def _sent_to(call: Call, url: str) -> Call:
    target = call.target
    if url == _url(target):
        return call
    return replace(call, target=dataclasses.replace(target, url=url, facts={**target.facts, "interface": url}))
