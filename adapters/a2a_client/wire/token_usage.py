"""Finds the tokens that an agent reports in A2A metadata. A2A defines no member for them, so the members that its servers use are read."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from adapters.contract import INVALID, USAGE_KEY, AnswerRefused, Event, RefLearned, RejectedArtifact, Replied, is_token_count
from adapters.task import Message

MODEL_MAX: Final = 200  # characters
USAGE_MEMBERS: Final = ("usage", "usage_metadata", "adk_usage_metadata", "kagent_usage_metadata")
MODEL_MEMBERS: Final = ("model", "model_name", "modelVersion", "gen_ai.response.model", "gen_ai.request.model")
FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens", "promptTokenCount", "gen_ai.usage.input_tokens"),
    "output_tokens": (
        *("output_tokens", "completion_tokens", "outputTokens", "completionTokens", "candidatesTokenCount"),
        "gen_ai.usage.output_tokens",
    ),
    "total_tokens": ("total_tokens", "totalTokens", "totalTokenCount"),
    "cache_read_tokens": ("cache_read_tokens", "cachedContentTokenCount", "gen_ai.usage.cache_read.input_tokens"),
}


def usage_in(metadata: Any) -> dict[str, Any] | None:
    """The usage in an agent's metadata under the names of USAGE_KEY: tokens by kind, and the model. None where it reports none.

    INVALID has the names of figures that were reported and can't be right.
    """
    if not isinstance(metadata, Mapping) or not metadata:
        return None
    for name in USAGE_MEMBERS:
        reported = metadata.get(name)
        if isinstance(reported, Mapping) and (found := _figures_in(reported)):
            return found | _model_in(reported, metadata)
    found = _figures_in({name: value for name, value in metadata.items() if name.startswith("gen_ai.")})
    return found | _model_in(metadata) if found else None


def with_usage(event: Event, usage: Mapping[str, Any]) -> Event:
    """The ending of a turn with the usage in its metadata; of an agent that only responds, in the metadata of its message."""
    if isinstance(event, Replied):
        return replace(event, message=_message_with_usage(event.message, usage))
    if isinstance(event, RefLearned | RejectedArtifact | AnswerRefused):
        return event
    return replace(event, metadata={**(event.metadata or {}), USAGE_KEY: dict(usage)})


def _message_with_usage(message: Message, usage: Mapping[str, Any]) -> Message:
    metadata = message.metadata if isinstance(message.metadata, dict) else {}
    return replace(message, metadata={**metadata, USAGE_KEY: dict(usage)})


def _figures_in(reported: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    invalid = []
    for name, names in FIGURES.items():
        value = next((_as_integer(reported[each]) for each in names if reported.get(each) is not None), None)
        if is_token_count(value):
            found[name] = value
        elif value is not None:
            invalid.append(name)
    return found | ({INVALID: invalid} if invalid else {})


def _as_integer(value: Any) -> Any:
    """Numbers of a protobuf Struct arrive as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _model_in(*places: Mapping[str, Any]) -> dict[str, str]:
    names = (place.get(name) for place in places for name in MODEL_MEMBERS)
    model = next((name for name in names if isinstance(name, str) and name), "")
    return {"model": model[:MODEL_MAX]} if model else {}
