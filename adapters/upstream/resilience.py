"""Resilience of calls to agents: selection of endpoints, circuit breakers, and bounded retries."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from adapters.contract import ENDPOINT_KEY, Call, Event, NotSent, RefLearned, Unreachable, UpstreamFault, VendorRef
from adapters.upstream.breaker import Breaker
from registry.cards.card import Registration

OPEN_TEXT: Final = "The agent was unreachable several times; retry later"
RETRY_SHARE: Final = 0.2  # the share of requests that may be retried
RETRY_RESERVE: Final = 10.0  # the maximum and initial retry budget
ATTEMPTS_MAX: Final = 3
WAIT_MAX: Final = 5.0  # seconds of Retry-After that are waited for
RECONNECT_SECONDS: Final = 0.1
AGENTS_MAX: Final = 10_000
EndpointKey = tuple[str, str, str]  # tenant, name, URL


class _AgentState:
    __slots__ = ("in_flight", "last_fault", "last_fault_at", "retries", "retry_tokens", "weight_deficit")

    def __init__(self) -> None:
        self.retry_tokens = RETRY_RESERVE
        self.retries = 0
        self.in_flight = 0
        self.last_fault = ""
        self.last_fault_at = 0.0  # seconds since 1970
        self.weight_deficit: dict[str, float] = {}  # how far each endpoint is behind its weight

    def count_request(self) -> None:
        if self.retry_tokens < RETRY_RESERVE:
            self.retry_tokens = min(RETRY_RESERVE, self.retry_tokens + RETRY_SHARE)

    def take_retry(self) -> bool:
        """Takes one retry from the budget, if there is one."""
        if self.retry_tokens < 1:
            return False
        self.retry_tokens -= 1
        self.retries += 1
        return True


class Resilience:
    """The state of all agents in this process. `clock` counts seconds monotonically, `now` since 1970."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._now = now
        self.sleep = sleep
        self.breaker = Breaker(clock, OPEN_TEXT)
        self._agents: dict[tuple[str, str], _AgentState] = {}

    def attempts_for(self, ref: VendorRef | None, call: Call) -> "CallAttempts":
        """The attempts of one call."""
        agent = self.agent_state(call.target)
        agent.count_request()
        agent.in_flight += 1
        return CallAttempts(self, agent, call, ref)

    def call_at_task_endpoint(self, ref: VendorRef, call: Call) -> Call:
        """The call, sent to the endpoint that has the task."""
        return _with_url(call, _task_endpoint(ref, call.target)) if call.target.endpoints else call

    def may_retry(self, call: Call) -> bool:
        """Whether a read-only request may be retried."""
        return self.agent_state(call.target).take_retry()

    def agent_state(self, target: Registration) -> _AgentState:
        key = (target.tenant, target.name)
        found = self._agents.get(key)
        if found is None:
            if len(self._agents) >= AGENTS_MAX:
                self._agents.clear()
            found = self._agents[key] = _AgentState()
        return found

    def record_failure(self, agent: _AgentState, endpoint_key: EndpointKey, fault: UpstreamFault) -> None:
        self.breaker.record_failure(endpoint_key)
        agent.last_fault, agent.last_fault_at = fault.public, self._now()

    def choose_endpoint(self, agent: _AgentState, target: Registration, tried: Iterable[str]) -> str:
        """Selects an endpoint by weight among the reachable ones; endpoints of weight 0 come last."""
        weights = weights_of(target)
        left = [url for url in weights if url not in tried] or list(weights)
        shut = {url for url in left if self.breaker.is_blocking(_endpoint_key(target, url))} if self.breaker.states else set()
        open_to = [url for url in left if url not in shut] or left
        usual = [url for url in open_to if weights[url]]
        if not usual:
            return open_to[0]
        for url in usual:
            agent.weight_deficit[url] = agent.weight_deficit.get(url, 0.0) + weights[url]
        best = max(usual, key=lambda url: agent.weight_deficit[url])
        agent.weight_deficit[best] -= sum(weights[url] for url in usual)
        return best

    @property
    def retry_count(self) -> int:
        return sum(agent.retries for agent in self._agents.values())

    @property
    def ejected_count(self) -> int:
        """The number of endpoints with an open breaker."""
        return sum(trouble.is_open for trouble in self.breaker.states.values())

    def describe_agent(self, target: Registration) -> dict[str, Any]:
        """The state of an agent as seen by this process. Times are seconds since 1970."""
        agent = self.agent_state(target)
        fault = {"at": agent.last_fault_at, "problem": agent.last_fault} if agent.last_fault else None
        endpoints = [self._describe_endpoint(target, url, weight) for url, weight in weights_of(target).items()]
        budget = {"left": int(agent.retry_tokens), "used": agent.retries}
        return {"under_way": agent.in_flight, "retries": budget, "last_fault": fault, "endpoints": endpoints}

    def _describe_endpoint(self, target: Registration, url: str, weight: int) -> dict[str, Any]:
        trouble = self.breaker.states.get(_endpoint_key(target, url))
        if trouble is None or not trouble.is_open:
            return {"url": url, "weight": weight, "state": "up", "faults": trouble.failures if trouble else 0, "since": None}
        state = "ejected" if self._clock() < trouble.open_until else "tried"
        since = self._now() - (self._clock() - trouble.opened_at)
        return {"url": url, "weight": weight, "state": state, "faults": trouble.failures, "since": since}


class CallAttempts:
    """The attempts of one call, at several endpoints where that is safe. A continued task stays at its endpoint."""

    __slots__ = ("_agent", "_attempts", "_call", "_holds_breaker", "_is_bound", "_resilience", "_tried", "call", "url")

    def __init__(self, resilience: Resilience, agent: _AgentState, call: Call, ref: VendorRef | None) -> None:
        self._resilience = resilience
        self._agent = agent
        self._call = self.call = call
        self._is_bound = ref is not None and bool(ref.task_id or ref.context_id)
        self._attempts = 0
        self._tried: list[str] = []
        self._holds_breaker = False
        self.url = _url(call.target)
        if self._is_bound and ref is not None:
            self.url = _task_endpoint(ref, call.target)

    def begin(self) -> None:
        """Begins an attempt. Raises CircuitOpen."""
        resilience, target = self._resilience, self._call.target
        self._attempts += 1
        if target.endpoints:
            if not self._is_bound:
                self.url = resilience.choose_endpoint(self._agent, target, self._tried)
                self._tried.append(self.url)
            self.call = _with_url(self._call, self.url)
        if resilience.breaker.states:
            resilience.breaker.acquire(_endpoint_key(target, self.url))
        self._holds_breaker = True

    def record_answer(self) -> None:
        """Notes that the agent responded."""
        self._holds_breaker = False
        if self._resilience.breaker.states:
            self._resilience.breaker.record_success(_endpoint_key(self._call.target, self.url))

    def record_broken_answer(self, fault: UpstreamFault) -> None:
        """Notes that a response was cut off or violates the contract."""
        if isinstance(fault, Unreachable) and not self._call.ran_out_of_callers_time:
            self._resilience.record_failure(self._agent, _endpoint_key(self._call.target, self.url), fault)

    def retry_delay_after(self, fault: UpstreamFault, seconds_left: float) -> float | None:
        """Seconds after which another attempt is safe and useful after a fault without any response; None: do not retry.

        `seconds_left` are those until the deadline.
        """
        breaker, place = self._resilience.breaker, _endpoint_key(self._call.target, self.url)
        if isinstance(fault, NotSent) or (isinstance(fault, Unreachable) and self._call.ran_out_of_callers_time):
            breaker.release(place)
        elif isinstance(fault, Unreachable):
            self._resilience.record_failure(self._agent, place, fault)
        elif breaker.states:
            breaker.record_success(place)
        self._holds_breaker = False
        delay = self._retry_delay(fault)
        return delay if delay is not None and delay < seconds_left and self._agent.take_retry() else None

    def _retry_delay(self, fault: UpstreamFault) -> float | None:
        target = self._call.target
        if self._attempts >= ATTEMPTS_MAX:
            return None
        if fault.is_unsent and target.endpoints and not self._is_bound and any(url not in self._tried for url in weights_of(target)):
            return 0.0
        if fault.is_unsent and isinstance(fault, Unreachable) and self._attempts == 1:
            return RECONNECT_SECONDS
        return fault.retry_after if fault.retryable and fault.retry_after is not None and fault.retry_after <= WAIT_MAX else None

    def with_endpoint(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events, of which each RefLearned names the endpoint, if that is not the registered one."""
        if not self._call.target.endpoints or self.url == _url(self._call.target):
            return events
        return [_with_endpoint(event, self.url) if isinstance(event, RefLearned) else event for event in events]

    def end(self) -> None:
        """Ends the call, whatever its outcome."""
        self._agent.in_flight -= 1
        if self._holds_breaker:
            self._resilience.breaker.release(_endpoint_key(self._call.target, self.url))


def _with_endpoint(event: RefLearned, url: str) -> RefLearned:
    return replace(event, ref=replace(event.ref, extra={**event.ref.extra, ENDPOINT_KEY: url}))


def weights_of(target: Registration) -> Mapping[str, int]:
    """The weights of all URLs of an agent, the registered one first."""
    return {_url(target): 1, **{each.url: each.weight for each in target.endpoints}}


def _url(target: Registration) -> str:
    return str(target.facts.get("interface") or target.url)


def _task_endpoint(ref: VendorRef, target: Registration) -> str:
    """The URL of a task's endpoint. An endpoint that the operator removed from the entry is not used."""
    url = ref.extra.get(ENDPOINT_KEY)
    return str(url) if url is not None and any(each.url == url for each in target.endpoints) else _url(target)


def _endpoint_key(target: Registration, url: str) -> EndpointKey:
    return target.tenant, target.name, url


def _with_url(call: Call, url: str) -> Call:
    target = call.target
    if url == _url(target):
        return call
    return replace(call, target=dataclasses.replace(target, url=url, facts={**target.facts, "interface": url}))
