"""The client of the OpenAI Agents SDK with a model that calls the tool and repeats what it answers."""

import asyncio
import json
from typing import Any

from agents import Model, ModelResponse, Usage, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from examples.clients.openai_agents.client import ask
from tests.vendors.clients.question import ARGUMENTS, QUESTION, pick


class Fake(Model):
    async def get_response(self, *, input: Any, tools: Any, **_: Any) -> ModelResponse:
        last = input[-1] if isinstance(input, list) else {}
        said: Any
        if last.get("type") == "function_call_output":
            text = ResponseOutputText(text=json.dumps(last["output"]), type="output_text", annotations=[])
            said = ResponseOutputMessage(id="m_1", role="assistant", status="completed", type="message", content=[text])
        else:
            name = pick(tool.name for tool in tools)
            said = ResponseFunctionToolCall(call_id="call_1", name=name, arguments=json.dumps(ARGUMENTS), type="function_call")
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("this model does not stream")


set_tracing_disabled(True)
print(asyncio.run(ask(QUESTION, Fake())))
