"""The ADK client with a model that calls the tool and repeats what it answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from google.adk.models import BaseLlm, LlmResponse
from google.genai.types import Content, FunctionCall, Part

from examples.clients.adk.client import ask
from tests.vendors.clients.question import ARGUMENTS, QUESTION, pick


class Fake(BaseLlm):
    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncIterator[LlmResponse]:
        last = llm_request.contents[-1].parts[-1]
        if last.function_response:
            part = Part(text=json.dumps(last.function_response.response, default=str))
        else:
            part = Part(function_call=FunctionCall(name=pick(llm_request.tools_dict), args=ARGUMENTS))
        yield LlmResponse(content=Content(role="model", parts=[part]))


print(asyncio.run(ask(QUESTION, Fake(model="fake"))))
