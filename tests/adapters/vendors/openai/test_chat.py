"""Chat completions: what the exchanges written from OpenAI's models and the recording of LiteLLM do not show."""

from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Done, Event, Failed, Prompt, RefLearned, UpstreamFault, VendorRef
from adapters.vendors.openai.chat import HISTORY_MAX, without_open_calls
from adapters.vendors.sdk.agent import BadOptions, CancelOutcome, parse_options
from tests.adapters.hand_written import SESSION, asked, canceled, described, exchange
from tests.adapters.replay import ReplayEgress, outcome, vendor_of

UPSTREAM: dict[str, Any] = {"model": "llama"}
CHAT = "/chat/completions"
CALL = {"id": "call_1", "type": "function", "function": {"name": "stock", "arguments": "{}"}}
Json = dict[str, Any]


def chunk(delta: Json | None = None, finish: str | None = None, **more: Any) -> Json:
    return {"id": "c", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def whole(finish: str | None = "stop", **message: Any) -> Json:
    return {"id": "c", "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}]}


async def answered(*chunks: Json, **upstream: Any) -> list[Event]:
    return await asked("openai-chat", {**UPSTREAM, **upstream}, [exchange("POST", CHAT, sse=chunks)])


async def sent(turn: Json, kept: list[Json] | None = None, **upstream: Any) -> tuple[Json, list[Event]]:
    """The request that a turn makes, and its events; the answer is "ok"."""

    class Noting(ReplayEgress):
        def _compare_body(self, request: Any, body: bytes | None) -> None:
            import json

            self.body = json.loads(body or b"{}")

    egress = Noting((exchange("POST", CHAT, json=whole(content="ok")),), {})
    ref = VendorRef(SESSION, kept={"messages": kept}) if kept is not None else None
    events = await asked("openai-chat", {**UPSTREAM, **upstream}, egress, ref=ref, stream=False, **turn)
    return egress.body, events


async def test_a_stream_may_end_without_its_mark_once_it_said_why_the_model_stopped() -> None:
    found = outcome(await answered(chunk({"content": "Hi"}), chunk(finish="stop")))
    assert (found["state"], found["artifacts"]) == ("COMPLETED", [{"text": "Hi"}])


async def test_a_stream_that_never_says_why_the_model_stopped_has_failed() -> None:
    ending = (await answered(chunk({"content": "Hi"})))[-1]
    assert isinstance(ending, Failed) and ending.kind == "INVALID_AGENT_RESPONSE"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        ({"error": {"message": "at /srv", "code": "server_error"}}, "", "The agent failed"),
        (
            {"error": {"message": "slow down", "type": "rate_limit_exceeded"}},
            "AGENT_BUSY",
            "The agent accepts no more requests at the moment",
        ),
        ({"error": "a text"}, "", "The agent failed"),
    ],
)
async def test_an_error_in_a_stream_or_in_a_whole_answer_is_one(error: Json, kind: str, reason: str) -> None:
    streamed = (await answered(chunk({"content": "Hi"}), error))[-1]
    at_once = (await asked("openai-chat", UPSTREAM, [exchange("POST", CHAT, json=error)], stream=False))[-1]
    for ending in (streamed, at_once):
        assert isinstance(ending, Failed) and (ending.kind, ending.reason) == (kind, reason)


@pytest.mark.parametrize("finish", ["length", "content_filter", "error", "something_new"])
async def test_a_model_that_stopped_for_another_reason_has_not_answered(finish: str) -> None:
    events = await asked("openai-chat", UPSTREAM, [exchange("POST", CHAT, json=whole(finish, content="Half"))], stream=False)
    assert isinstance(events[-1], Failed) and outcome(events)["artifacts"] == [{"text": "Half"}]
    assert events[-1].rejected == (finish == "content_filter")


async def test_a_call_that_comes_with_the_reason_stop_is_still_a_question() -> None:
    ending = (await answered(chunk({"content": "One moment", "tool_calls": [{"index": 0, **CALL}]}), chunk(finish="stop")))[-1]
    assert isinstance(ending, Ask) and [prompt.id for prompt in ending.prompts] == ["call_1"]


async def test_a_call_whose_result_could_not_be_given_back_is_a_failure() -> None:
    ending = (await answered(chunk({"function_call": {"name": "stock", "arguments": "{}"}}), chunk(finish="function_call")))[-1]
    assert isinstance(ending, Failed) and ending.detail == "function_call"


async def test_a_call_of_a_custom_tool_is_asked_with_its_text() -> None:
    call = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    ending = (await answered(chunk({"tool_calls": [call]}), chunk(finish="tool_calls")))[-1]
    assert isinstance(ending, Ask) and ending.prompts[0].data == {"name": "sql", "arguments": "SELECT 1"}


async def test_reasoning_is_no_answer_and_content_may_be_a_list() -> None:
    content = [{"type": "reasoning", "summary": []}, {"type": "text", "text": "Rain"}]
    found = outcome(await answered(chunk({"reasoning_content": "hm", "content": content}), chunk(finish="stop")))
    assert found["artifacts"] == [{"text": "Rain"}]


async def test_an_image_that_a_gateway_answers_is_a_file() -> None:
    images = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    events = await answered(chunk({"content": "Here", "images": images}), chunk(finish="stop"))
    (part,) = [event.artifact.parts[0] for event in events if isinstance(event, ArtifactPiece)][1:]
    assert (part.raw, part.media_type) == ("iVBORw0KGgo=", "image/png")


@pytest.mark.parametrize(("text", "found"), [('{"a": 1}', {"parts": [{"data": {"a": 1}}]}), ("no json", {"text": "no json"})])
async def test_an_answer_that_was_asked_for_as_json_is_data(text: str, found: Json) -> None:
    parameters = {"response_format": {"type": "json_object"}}
    events = await answered(chunk({"content": text[:3]}), chunk({"content": text[3:]}), chunk(finish="stop"), parameters=parameters)
    assert outcome(events)["artifacts"] == [found]


async def test_each_request_carries_the_operators_options_and_a_pseudonymous_user() -> None:
    body, _ = await sent({"send": {"text": "hi"}}, parameters={"temperature": 0, "user": "mallory"}, instructions="Be brief.")
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert body["temperature"] == 0 and body["user"].startswith("u-") and "stream_options" not in body


async def test_a_server_that_is_strict_gets_no_member_that_it_does_not_know() -> None:
    body, _ = await sent({"send": {"text": "hi"}}, person="", usage=False)
    assert set(body) == {"model", "messages", "stream"}


@pytest.mark.parametrize("taken", ["messages", "stream", "tools", "model"])
def test_parameters_do_not_replace_what_the_gateway_sets(taken: str) -> None:
    with pytest.raises(BadOptions, match=taken):
        parse_options(vendor_of("openai-chat"), {**UPSTREAM, "parameters": {taken: 1}})


async def test_files_sound_and_data_go_as_parts_of_the_content() -> None:
    parts = [
        {"data": {"a": 1}},
        {"raw": "AAAA", "mediaType": "audio/mpeg"},
        {"raw": "AAAA", "mediaType": "application/pdf", "filename": "a.pdf"},
        {"url": "https://a.example/x.png", "mediaType": "image/png"},
        {"url": "https://a.example/x.pdf", "mediaType": "application/pdf"},
    ]
    body, _ = await sent({"send": {"parts": parts}})
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": '{"a":1}'},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}},
        {"type": "text", "text": "https://a.example/x.pdf"},
    ]


async def test_a_conversation_that_grows_is_cut_from_its_beginning() -> None:
    kept = [{"role": role, "content": "x" * 9000} for role in ("user", "assistant") * 3]
    body, events = await sent({"send": {"text": "hi"}}, kept)
    assert len(body["messages"]) == 7
    (_, last) = [event.ref for event in events if isinstance(event, RefLearned)]
    told = dict(last.kept or {})["messages"]
    assert told[0]["role"] == "user" and told[-1] == {"role": "assistant", "content": "ok"}
    assert sum(len(each["content"]) for each in told) <= HISTORY_MAX


async def test_a_failed_turn_leaves_the_conversation_where_it_was() -> None:
    kept = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    talk = [exchange("POST", CHAT, json=whole("length", content="Half"))]
    events = await asked("openai-chat", UPSTREAM, talk, ref=VendorRef(SESSION, kept={"messages": kept}), stream=False)
    assert [event.ref.kept for event in events if isinstance(event, RefLearned)] == [{"messages": kept}]


async def test_a_new_message_is_not_sent_after_a_call_that_nobody_answered() -> None:
    kept = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    body, _ = await sent({"send": {"text": "hi"}}, kept)
    assert [each["content"] for each in body["messages"]] == ["a", "hi"]
    result = Answer(Prompt("call_1", token="function"), {"left": 3})
    body, _ = await sent({"answers": (result,)}, kept)
    assert body["messages"][1:] == [kept[1], {"role": "tool", "tool_call_id": "call_1", "content": '{"left":3}'}]


def test_a_call_that_was_answered_stays_in_the_conversation() -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    done = [{"role": "user", "content": "a"}, called, {"role": "tool", "tool_call_id": "call_1", "content": "3"}]
    assert without_open_calls(done) == done
    assert without_open_calls(done[:2]) == done[:1] and without_open_calls([]) == [] and without_open_calls(done[:1]) == done[:1]


async def test_a_server_that_keeps_the_conversation_gets_its_name_and_no_history() -> None:
    egress = ReplayEgress((exchange("POST", CHAT, {"messages": [{"role": "user", "content": "hi"}]}, json=whole(content="ok")),), {})
    upstream = {**UPSTREAM, "history": False, "session": "X-IBM-THREAD-ID"}
    ref = VendorRef(SESSION, kept={"messages": [{"role": "user", "content": "before"}]})
    events = await asked("openai-chat", upstream, egress, ref=ref, send={"text": "hi"}, stream=False)
    assert egress.problems == [] and egress.request_headers[0]["X-IBM-THREAD-ID"] == SESSION and isinstance(events[-1], Done)


async def test_an_agent_that_does_not_stream_is_asked_for_a_whole_answer() -> None:
    talk = [exchange("POST", CHAT, {"stream": False}, json=whole(content="ok"))]
    assert outcome(await asked("openai-chat", {**UPSTREAM, "streams": False}, talk))["artifacts"] == [{"text": "ok"}]


@pytest.mark.parametrize("status", [200, 404, 405])
async def test_a_server_without_a_list_of_models_is_registered_too(status: int) -> None:
    facts = await described("openai-chat", {"model": "m", "title": "Sales"}, [exchange("GET", "/models", status=status, json={})])
    assert (facts.name, facts.description) == ("Sales", "The model m.")


async def test_a_credential_that_is_refused_is_told_at_the_registration() -> None:
    with pytest.raises(UpstreamFault, match="credential"):
        await described("openai-chat", UPSTREAM, [exchange("GET", "/models", status=401, json={})])


async def test_there_is_nothing_to_cancel() -> None:
    assert await canceled("openai-chat", UPSTREAM, [], VendorRef(SESSION)) is CancelOutcome.UNSUPPORTED
