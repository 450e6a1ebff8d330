"""What happens without a person: events, what they and the time start, and what could not be delivered or started."""

from typing import Any

from gateway.events.queue import RETRY_DEAD_LETTERS
from gateway.ingress.console.api import PagePart, api_path, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.schema_forms import parse_json
from policies.authority import WRITE_REGISTRY

EVENT_FILTERS = ("type", "cursor")
TRIGGERS = "/console/triggers"
TEST_ID, TEST_SOURCE = "console-test", "/console"


async def list_events(request: PageRequest) -> Page:
    """Lists the newest events that the person may receive. Raises ApiRefusal."""
    filters = {name: request.query[name] for name in EVENT_FILTERS if request.query.get(name)}
    document = await request.api.get("/api/events", **filters)
    sources = await request.api.part("/api/events/sources")
    members = {"events": document, "sources": sources, "filters": {name: filters.get(name, "") for name in EVENT_FILTERS}}
    command = ("interlock", "event", "tail", *(("--type", filters["type"]) if filters.get("type") else ()))
    return Page("events.html", "Events", with_query("/api/events", filters), command, members, is_live=not filters.get("cursor"))


async def list_triggers(request: PageRequest) -> Page:
    """Lists schedules with their next moments, and triggers. Raises ApiRefusal."""
    return await _triggers_page(request, PagePart())


async def test_triggers(request: PageRequest) -> Page:
    """Shows what an event would start; nothing is stored or started. Raises ApiRefusal, and FormRefused for data that are not JSON."""
    data = parse_json(request.form.get("data") or "null", "the data")
    event: dict[str, Any] = {"specversion": "1.0", "id": TEST_ID, "source": request.form.get("source") or TEST_SOURCE}
    event |= {"type": request.form.get("type", ""), "data": data, "datacontenttype": "application/json"}
    if subject := request.form.get("subject", ""):
        event["subject"] = subject
    return await _triggers_page(request, await request.api.part_of("POST", "/api/triggers/test", event))


async def act_on_trigger(request: PageRequest) -> Elsewhere:
    """Pauses or resumes the schedule of a workflow. Raises ApiRefusal and FormRefused."""
    acts = {"pause": "schedule-paused", "resume": "schedule-resumed"}
    act = request.form.get("act", "")
    if act not in acts:
        raise FormRefused("the form names no act")
    await request.api.request("POST", f"{api_path('triggers', request.name)}/{act}")
    return Elsewhere(TRIGGERS, acts[act])


async def list_dead_letters(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {"cursor": request.query["cursor"]} if request.query.get("cursor") else {}
    document = await request.api.get("/api/deadletters", **filters)
    members = {"letters": document, "may_act": request.may(RETRY_DEAD_LETTERS)}
    return Page("dead_letters.html", "Dead letters", with_query("/api/deadletters", filters), ("interlock", "deadletter", "list"), members)


async def act_on_dead_letter(request: PageRequest) -> Elsewhere:
    """Has a dead letter tried again, or drops it. Raises ApiRefusal and FormRefused."""
    path = api_path("deadletters", request.name)
    match request.form.get("act", ""):
        case "retry":
            await request.api.request("POST", f"{path}/retry")
            return Elsewhere("/console/deadletters", "letter-retried")
        case "drop":
            await request.api.request("DELETE", path)
            return Elsewhere("/console/deadletters", "letter-dropped")
    raise FormRefused("the form names no act")


async def _triggers_page(request: PageRequest, tested: PagePart) -> Page:
    document = await request.api.get("/api/triggers")
    timed = ("cron", "every_seconds", "after_seconds")
    members = {
        "schedules": [each for each in document["items"] if any(each[name] for name in timed)],
        "triggers": [each for each in document["items"] if each["event_types"]],
        "tested": tested,
        "asked": {name: request.form.get(name, "") for name in ("type", "source", "subject", "data")},
        "may_pause": request.may(WRITE_REGISTRY),
    }
    return Page("triggers.html", "Triggers and schedules", "/api/triggers", ("interlock", "trigger", "list"), members)
