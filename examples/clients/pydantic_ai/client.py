"""A Pydantic AI agent with the tools of the gateway."""

import asyncio
import os
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

URL, TOKEN = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), os.environ["INTERLOCK_TOKEN"]


async def ask(question: str, model: Any = "openai:gpt-5-mini") -> str:
    gateway = MCPToolset(f"{URL}/mcp", headers={"Authorization": f"Bearer {TOKEN}"})
    return str((await Agent(model, toolsets=[gateway]).run(question)).output)


if __name__ == "__main__":
    print(asyncio.run(ask("How many of SKU-7 are in stock?")))
