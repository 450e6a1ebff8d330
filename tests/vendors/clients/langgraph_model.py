"""The LangGraph client with a model that calls the tool and repeats what it answers."""

import asyncio
import json
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from examples.clients.langgraph.client import ask
from tests.vendors.clients.question import ARGUMENTS, QUESTION, pick


class Model(BaseChatModel):
    names: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, **_: Any) -> "Model":
        return Model(names=tuple(tool.name for tool in tools))

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        if isinstance(messages[-1], ToolMessage):
            said = AIMessage(json.dumps(messages[-1].content))
        else:
            said = AIMessage("", tool_calls=[{"name": pick(self.names), "args": ARGUMENTS, "id": "call_1"}])
        return ChatResult(generations=[ChatGeneration(message=said)])


print(asyncio.run(ask(QUESTION, Model())))
