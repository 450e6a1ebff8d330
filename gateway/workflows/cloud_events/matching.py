"""Which events a listening task waited for: filters, correlations, and when it has enough (DSL 1.0.3, "Event Consumption Strategy")."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.workflows.cloud_events.envelope import Event
from gateway.workflows.cloud_events.progress import NOT_TAKEN, ListenProgress, Taken
from gateway.workflows.expressions.evaluator import Evaluator, ExpressionFailed
from gateway.workflows.expressions.templates import bare_expression, expression_in
from gateway.workflows.interpreter.effects import Wanted, WantedEvent

NOT_EXPECTED: Final = object()


class EventMatcher:
    """Evaluates filters on events. An expression that fails on an event does not match it."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def for_owner(self, owner: str) -> "EventMatcher":
        """A matcher that evaluates in the turns of `owner`, which is tenant|…."""
        return EventMatcher(self._evaluator.for_owner(owner))

    async def result(self, wanted: Wanted, events: Sequence[Event]) -> list[Event] | None:
        """The events that end the waiting, in their order, or None as long as there are too few."""
        progress, consumed = ListenProgress(), list[Event]()
        for event in events:
            taken = await self.take(wanted, progress, event, consumed)
            if taken.is_consumed:
                consumed.append(event)
            if taken.is_last:
                return consumed
        return None

    async def take(self, wanted: Wanted, progress: ListenProgress, event: Event, consumed: Sequence[Event]) -> Taken:
        """What the next event is to a task that has `consumed` some already. Changes `progress`."""
        if wanted.mode == "all":
            return await self._take_for_all(wanted, progress, event)
        if isinstance(wanted.until, Wanted):
            progress.until = progress.until or ListenProgress()
            if (await self.take(wanted.until, progress.until, event, ())).is_last:
                return Taken(is_last=True)
        if not await self._matches_any(wanted, event, progress):
            return NOT_TAKEN
        is_last = wanted.until is None or (isinstance(wanted.until, str) and await self._holds(wanted.until, [*consumed, event]))
        return Taken(is_consumed=True, is_last=is_last)

    async def _take_for_all(self, wanted: Wanted, progress: ListenProgress, event: Event) -> Taken:
        for index, one in enumerate(wanted.filters):
            if index not in progress.found and await self._matches(one, event, progress.correlated.setdefault(str(index), {})):
                progress.found.append(index)
                return Taken(is_consumed=True, is_last=len(progress.found) == len(wanted.filters))
        return NOT_TAKEN

    async def _matches_any(self, wanted: Wanted, event: Event, progress: ListenProgress) -> bool:
        if not wanted.filters:
            return True
        for index, one in enumerate(wanted.filters):
            if await self._matches(one, event, progress.correlated.setdefault(str(index), {})):
                return True
        return False

    async def _matches(self, wanted: WantedEvent, event: Event, correlated: dict[str, Any]) -> bool:
        """`correlated` keeps the values of correlations without an expected one: the first event's value is expected of the others."""
        for name, value in wanted.attributes.items():
            if not await self._has_attribute(event, name, value):
                return False
        values: dict[str, Any] = {}
        for name, source in wanted.correlations.items():
            value = await self._value(bare_expression(source), event)
            expected = wanted.expected.get(name, correlated.get(name, NOT_EXPECTED))
            if value is None or (expected is not NOT_EXPECTED and value != expected):
                return False
            values[name] = value
        correlated.update(values)
        return True

    async def _has_attribute(self, event: Event, name: str, value: Any) -> bool:
        if not isinstance(value, str) or (condition := expression_in(value)) is None:
            return bool(event.get(name) == value)
        return await self._holds(condition, event.get("data") if name == "data" else event)

    async def _holds(self, condition: str, input: Any) -> bool:
        return (await self._value(bare_expression(condition), input)) not in (None, False)

    async def _value(self, expression: str, input: Any) -> Any:
        try:
            return (await self._evaluator.evaluate([expression], input))[0]
        except ExpressionFailed:
            return None
