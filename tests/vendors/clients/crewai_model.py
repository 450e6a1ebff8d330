"""The CrewAI client with a model that calls the tool and repeats what it answers."""

import json
from typing import Any

from crewai import BaseLLM

from examples.clients.crewai.client import ask
from tests.vendors.clients.question import ARGUMENTS, QUESTION, pick


class Fake(BaseLLM):
    """Speaks CrewAI's text protocol: an action, then the final answer with what was observed."""

    def call(self, messages: Any, tools: Any = None, callbacks: Any = None, available_functions: Any = None, **_: Any) -> str:
        said = messages if isinstance(messages, str) else "\n".join(str(each["content"]) for each in messages)
        observed = said.rpartition("Observation:")[2].partition("\n\n")[0].strip()
        if "available" in observed:
            return f"Thought: I know\nFinal Answer: {observed}"
        names = [word.strip("`'\",.:()") for word in said.split() if "inventory_check_stock" in word]
        return f"Thought: I look it up\nAction: {pick(names)}\nAction Input: {json.dumps(ARGUMENTS)}\n"

    def supports_function_calling(self) -> bool:
        return False


print(ask(QUESTION, Fake(model="fake")))
