"""The schedule of a document: what is wrong with it here, and the terms that its runs are started by."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from gateway.workflows.cloud_events.cron import find_zone, next_moment
from gateway.workflows.cloud_events.listens import consumed_types, literals_of
from gateway.workflows.cloud_events.schedules import ScheduleTerms
from gateway.workflows.dsl.constructs import Consumption, Duration, Units
from gateway.workflows.dsl.document import Document, Schedule
from gateway.workflows.dsl.durations import UNDO_GRACE, milliseconds_of
from gateway.workflows.dsl.extras import DocumentExtras, ScheduleExtras
from gateway.workflows.interpreter.effects import Wanted, WantedEvent

Found = Iterator[tuple[str, str]]
SHORTEST: Final = 1000  # milliseconds between two runs
RUN_AS: Final = "/document/metadata/gateway/runAs"
OVERLAP: Final = "/document/metadata/gateway/concurrency/overlap"
SCHEDULE: Final = "/document/metadata/gateway/schedule"
TIMEZONE: Final = f"{SCHEDULE}/timezone"
MISSED: Final = f"{SCHEDULE}/missed"


def schedule_problems(document: Document, is_service: Callable[[str], bool]) -> Found:
    """What is wrong. `is_service` says whether the tenant has a service principal of a name."""
    schedule, extras = document.schedule, document.document.metadata.gateway
    if schedule is None:
        yield from _without_schedule(extras)
        return
    if extras.run_as is None:
        yield "/schedule", "starts runs that nobody starts: `metadata.gateway.runAs` names the service principal that they act for"
    elif not is_service(extras.run_as):
        yield RUN_AS, f"names a service principal `{extras.run_as}` that the setting `service_principals` lacks"
    yield from _of_times(schedule)
    yield from _of_extras(schedule, extras.schedule)
    if schedule.on is not None:
        yield from _of_events(schedule.on)


def _without_schedule(extras: DocumentExtras) -> Found:
    if extras.run_as is not None:
        yield RUN_AS, "names whom runs act for that nobody starts, and the document has no `schedule`"
    for member in sorted(extras.schedule.model_fields_set):
        yield f"{SCHEDULE}/{member}", "is about the moments of a schedule, and the document has no `schedule`"
    if "overlap" in extras.concurrency.model_fields_set:
        yield OVERLAP, "says what becomes of a run that a schedule or an event starts, and the document has no `schedule`"


def _of_extras(schedule: Schedule, extras: ScheduleExtras) -> Found:
    if "timezone" in extras.model_fields_set and schedule.cron is None:
        yield TIMEZONE, "is the zone of a `cron`, and the schedule has none"
    if "missed" in extras.model_fields_set and schedule.cron is None and schedule.every is None:
        yield MISSED, "is about moments of `every` and `cron`, and the schedule has neither"
    try:
        find_zone(extras.timezone)
    except ValueError as error:
        yield TIMEZONE, str(error)


def _of_times(schedule: Schedule) -> Found:
    for member in ("every", "after"):
        given = getattr(schedule, member)
        milliseconds = SHORTEST if given is None else _milliseconds(given)
        if milliseconds is None:
            yield f"/schedule/{member}", "is an expression, and a schedule has nothing to evaluate it on"
        elif milliseconds < SHORTEST:
            yield f"/schedule/{member}", "is shorter than a second"
    if schedule.cron is not None:
        try:
            next_moment(schedule.cron, 0)  # in UTC: what is wrong with the zone is said of the zone
        except ValueError as error:
            yield "/schedule/cron", str(error)


def _of_events(wanted: Consumption) -> Found:
    if wanted.all is not None or wanted.until is not None:
        yield "/schedule/on", "waits for several events; have one event start the run, and listen for the others in it"
    for index, each in enumerate(wanted.any or ([wanted.one] if wanted.one is not None else [])):
        if each.correlate:
            path = f"/schedule/on/any/{index}" if wanted.any else "/schedule/on/one"
            yield f"{path}/correlate", "compares events of one run, and one event starts the run"


def terms_of(document: Document, version: str) -> ScheduleTerms | None:
    """When and as whom runs of a published document are started; None where people and agents alone start them."""
    schedule, extras = document.schedule, document.document.metadata.gateway
    if schedule is None or extras.run_as is None:
        return None
    return ScheduleTerms(
        version=version,
        run_as=extras.run_as,
        lifetime=(milliseconds_of(extras.deadline) + UNDO_GRACE) // 1000,
        every=_milliseconds(schedule.every) or 0 if schedule.every is not None else 0,
        cron=schedule.cron or "",
        after=_milliseconds(schedule.after) or 0 if schedule.after is not None else 0,
        types=tuple(sorted(consumed_types(schedule.on))) if schedule.on is not None else (),
        filters=() if schedule.on is None else _literal_filters(schedule.on),
        runs=extras.concurrency.runs,
        overlap=extras.concurrency.overlap,
        timezone=extras.schedule.timezone,
        missed=extras.schedule.missed,
    )


def _literal_filters(wanted: Consumption) -> tuple[dict[str, Any], ...]:
    return tuple(literals_of(each.attributes) for each in starting_events(wanted).filters) or ({},)


def starting_events(wanted: Consumption) -> Wanted:
    """The events that start a run, each by itself."""
    filters = wanted.any if wanted.any is not None else [wanted.one] if wanted.one is not None else []
    return Wanted("any", tuple(WantedEvent(each.with_.model_dump(exclude_unset=True)) for each in filters))


def _milliseconds(given: Duration) -> int | None:
    """The length of a duration, or None where it is an expression."""
    if isinstance(given, Units):
        return given.total
    try:
        return milliseconds_of(given)
    except ValueError:
        return None
