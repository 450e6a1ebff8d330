"""Microsoft's own model of activities, held against what goes to agents of the Microsoft 365 Agents SDK and behind Direct Line."""

from collections.abc import Iterator
from typing import Any

from microsoft_agents.activity import Activity
from pydantic import BaseModel, ValidationError

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, json_in, main


def problems(exchange: Json) -> Iterator[str]:
    body, response = exchange["json"] or {}, exchange["response"]
    if "type" in body:
        yield from problems_of(body, "the activity that is sent")
    if response["status"] >= 300:
        return
    told = events_in(response, "activity") if is_stream(response) else (json_in(response) or {}).get("activities", ())
    for activity in told:
        yield from problems_of(activity, "an activity that is told")


def problems_of(activity: Json, what: str) -> Iterator[str]:
    """What is wrong with an activity by the model, which allows members that it does not know: these are problems too."""
    try:
        parsed = Activity.model_validate({name: value for name, value in activity.items() if value is not None})  # agents write nulls
    except ValidationError as invalid:
        yield f"{what} is none: {invalid.errors()[:3]}"
        return
    yield from (f"{what} has {place}, which the model does not know" for place in _unknown(parsed, ""))


def _unknown(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{place}.{name}" for name in value.model_extra or ())
        for name in value.model_fields_set & set(type(value).model_fields):
            yield from _unknown(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _unknown(each, f"{place}[]")


if __name__ == "__main__":
    main(Oracle(None, problems))
