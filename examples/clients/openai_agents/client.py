"""An agent of the OpenAI Agents SDK with the tools of the gateway."""

import asyncio
import os
from typing import Any

from agents import Agent, Runner
from agents.mcp import MCPServerStreamableHttp

URL, TOKEN = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), os.environ["INTERLOCK_TOKEN"]


async def ask(question: str, model: Any = "gpt-5-mini") -> str:
    gateway = {"url": f"{URL}/mcp", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    async with MCPServerStreamableHttp(params=gateway, name="interlock", client_session_timeout_seconds=60) as server:
        agent = Agent(name="Clerk", instructions="Answer with the tools.", model=model, mcp_servers=[server])
        return str((await Runner.run(agent, question)).final_output)


if __name__ == "__main__":
    print(asyncio.run(ask("How many of SKU-7 are in stock?")))
