"""ADK's own types, held against what the adapter sends and what it reads."""

from collections.abc import Iterator

from google.adk.cli.adk_web_server import RunAgentRequest
from google.adk.events import Event
from pydantic import ValidationError

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, json_in, main


def problems(exchange: Json) -> Iterator[str]:
    path, response = exchange["path"], exchange["response"]
    if path not in ("/run", "/run_sse"):
        return
    try:
        RunAgentRequest.model_validate(exchange["json"])
        unknown = set(exchange["json"]) - {field.alias or name for name, field in RunAgentRequest.model_fields.items()}
        if unknown:
            yield f"the request has members that the SDK does not know: {sorted(unknown)}"
    except ValidationError as error:
        yield f"the request: {error}"
    if response["status"] != 200:
        return
    for event in events_in(response) if is_stream(response) else json_in(response):
        if set(event) == {"error"}:  # how the server tells a stream that it failed; it has no type for that
            continue
        try:
            Event.model_validate(event)
        except ValidationError as error:
            yield f"an event: {str(error)[:300]}"


if __name__ == "__main__":
    main(Oracle(None, problems))
