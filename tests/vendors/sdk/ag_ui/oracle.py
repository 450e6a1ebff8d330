"""AG-UI's own types, held against what the adapter sends and what it reads."""

from collections.abc import Iterator

from ag_ui.core import Event, RunAgentInput
from pydantic import TypeAdapter, ValidationError

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, main

EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def problems(exchange: Json) -> Iterator[str]:
    if exchange["method"] != "POST":
        return
    try:
        taken = RunAgentInput.model_validate(exchange["json"])
        sent = taken.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if sent != exchange["json"]:
            yield f"of the run's input the SDK keeps {sent}"
    except ValidationError as error:
        yield f"the run's input: {error}"
    for event in events_in(exchange["response"]) if is_stream(exchange["response"]) else ():
        try:
            EVENT.validate_python(event)
        except ValidationError as error:
            yield f"{event.get('type')}: {str(error)[:300]}"


if __name__ == "__main__":
    main(Oracle(None, problems))
