"""A CrewAI agent with the tools of the gateway."""

import os
from typing import Any

from crewai import Agent, Crew, Task
from crewai_tools import MCPServerAdapter

URL, TOKEN = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), os.environ["INTERLOCK_TOKEN"]


def ask(question: str, model: Any = "openai/gpt-5-mini") -> str:
    gateway = {"transport": "streamable-http", "url": f"{URL}/mcp", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    with MCPServerAdapter(gateway) as tools:
        clerk = Agent(role="Clerk", goal="Answer questions", backstory="You look things up.", llm=model, tools=tools)
        task = Task(description=question, expected_output="A sentence", agent=clerk)
        return str(Crew(agents=[clerk], tasks=[task]).kickoff())


if __name__ == "__main__":
    print(ask("How many of SKU-7 are in stock?"))
