"""An agent of Google's ADK with the tools of the gateway."""

import asyncio
import os
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams

URL, TOKEN = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), os.environ["INTERLOCK_TOKEN"]


async def ask(question: str, model: Any = "gemini-3.5-flash") -> str:
    connection = StreamableHTTPConnectionParams(url=f"{URL}/mcp", headers={"Authorization": f"Bearer {TOKEN}"})
    gateway = McpToolset(connection_params=connection)
    agent = LlmAgent(name="clerk", model=model, instruction="Answer with the tools.", tools=[gateway])
    try:
        events = await InMemoryRunner(agent=agent, app_name="clerk").run_debug(question, quiet=True)
    finally:
        await gateway.close()
    return "".join(part.text or "" for part in events[-1].content.parts)


if __name__ == "__main__":
    print(asyncio.run(ask("How many of SKU-7 are in stock?")))
