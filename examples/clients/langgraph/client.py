"""A LangGraph agent with the tools of the gateway."""

import asyncio
import os
from typing import Any

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient

URL, TOKEN = os.environ.get("INTERLOCK_URL", "http://127.0.0.1:8080"), os.environ["INTERLOCK_TOKEN"]


async def ask(question: str, model: Any = "openai:gpt-5-mini") -> str:
    gateway = {"transport": "streamable_http", "url": f"{URL}/mcp", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    tools = await MultiServerMCPClient({"interlock": gateway}).get_tools()
    answer = await create_agent(model, tools).ainvoke({"messages": [("user", question)]})
    return str(answer["messages"][-1].text)


if __name__ == "__main__":
    print(asyncio.run(ask("How many of SKU-7 are in stock?")))
