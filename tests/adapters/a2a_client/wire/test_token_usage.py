"""Usage in A2A metadata: what servers of several makers report becomes the same figures, and what can't be usage is left out."""

from typing import Any

import pytest

from adapters.a2a_client.wire.reading import A2ATurnReader
from adapters.a2a_client.wire.token_usage import usage_in, with_usage
from adapters.contract import INVALID, USAGE_KEY, Done, Replied
from adapters.task import Message, Part, Role, TaskState, TaskStatus, TaskStatusUpdateEvent

ADK = {"promptTokenCount": 60, "candidatesTokenCount": 42, "totalTokenCount": 102, "promptTokensDetails": [{"modality": "TEXT"}]}


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"adk_usage_metadata": ADK, "adk_app_name": "a"}, {"input_tokens": 60, "output_tokens": 42, "total_tokens": 102}),
        ({"kagent_usage_metadata": {"promptTokenCount": 1.0}}, {"input_tokens": 1}),
        (
            {"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "model": "gpt-4o"},
            {"input_tokens": 3, "output_tokens": 4, "model": "gpt-4o"},
        ),
        ({"usage": {"inputTokens": 3, "outputTokens": 4, "model": "m"}}, {"input_tokens": 3, "output_tokens": 4, "model": "m"}),
        (
            {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6, "gen_ai.response.model": "m"},
            {"input_tokens": 5, "output_tokens": 6, "model": "m"},
        ),
        ({"usage": {"input_tokens": 0, "output_tokens": 0}}, {"input_tokens": 0, "output_tokens": 0}),
    ],
)
def test_usage_of_several_makers_has_the_same_names(metadata: Any, found: Any) -> None:
    assert usage_in(metadata) == found


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"usage": "much"},
        {"usage": {}},
        {"model": "gpt-4o"},
        {USAGE_KEY: {"input_tokens": 5}},
    ],
)
def test_metadata_without_figures_is_no_usage(metadata: Any) -> None:
    assert usage_in(metadata) is None


@pytest.mark.parametrize("figure", [-1, True, 10**12, 1.5, "5", float("nan"), float("inf"), [5]])
def test_a_figure_that_cannot_be_right_is_named_and_left_out(figure: Any) -> None:  # attack CST-01
    assert usage_in({"usage": {"input_tokens": figure, "output_tokens": 5}}) == {"output_tokens": 5, INVALID: ["input_tokens"]}
    assert usage_in({"usage": {"input_tokens": figure}}) == {INVALID: ["input_tokens"]}


def test_the_ending_of_a_turn_carries_the_usage() -> None:
    ended = with_usage(Done(metadata={"own": 1}), {"input_tokens": 5})
    assert isinstance(ended, Done) and ended.metadata == {"own": 1, USAGE_KEY: {"input_tokens": 5}}
    replied = with_usage(Replied(Message("m", Role.AGENT, (Part(text="hi"),))), {"input_tokens": 5})
    assert isinstance(replied, Replied) and replied.message.metadata == {USAGE_KEY: {"input_tokens": 5}}


def test_the_last_report_of_a_stream_is_that_of_the_turn() -> None:
    reader = A2ATurnReader(None)
    message = Message("m", Role.AGENT, (Part(text="hi"),), metadata={"usage": {"input_tokens": 9}})
    working = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.WORKING), metadata={"usage": {"input_tokens": 1}})
    done = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.COMPLETED, message))
    ended = [event for answer in (working, done) for event in reader.events(answer)][-1]
    assert isinstance(ended, Done) and ended.metadata == {USAGE_KEY: {"input_tokens": 9}}
