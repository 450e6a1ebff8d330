"""The Pydantic AI client with a model that calls the tool and repeats what it answers."""

import asyncio
import json
from typing import Any

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from examples.clients.pydantic_ai.client import ask
from tests.vendors.clients.question import ARGUMENTS, QUESTION, pick


def answer(messages: Any, info: Any) -> ModelResponse:
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse([TextPart(json.dumps(last.content, default=str))])
    return ModelResponse([ToolCallPart(pick(tool.name for tool in info.function_tools), ARGUMENTS)])


print(asyncio.run(ask(QUESTION, FunctionModel(answer))))
