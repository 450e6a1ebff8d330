"""fastmcp's client at one server: signs the person in, and prints its tools and what a call of one answers as a line of JSON."""

import asyncio
import json
import sys

from fastmcp import Client


async def show(url: str, tool: str) -> None:
    async with Client(url, auth="oauth") as client:
        tools = [each.name for each in await client.list_tools()]
        answer = await client.call_tool(tool, {})
    print(json.dumps({"tools": tools, "answer": answer.content[0].text}))


asyncio.run(show(*sys.argv[1:]))
