"""An agent that remembers what people ask it to, in the gateway's memory, and reports the tokens that a model would have used."""

import re
from collections.abc import Mapping

from starlette.types import ASGIApp

from examples.on_behalf import Gateway
from examples.serving import serve_agent
from examples.tours.answering import Answer, build_agent
from examples.tours.tools import call_tool

REMEMBER = re.compile(r"remember(?: that|:)? (.{1,1000})", re.IGNORECASE | re.DOTALL)
MODEL = "gpt-5-mini"  # no model is asked: the tokens are counted as if it had answered


class Concierge:
    """Puts a fact for `Remember that …`, and answers everything else with the facts that have words of it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def reply(self, text: str, headers: Mapping[str, str]) -> Answer:
        """Raises Refused where the person or the operator does not let this agent use memory."""
        wanted = REMEMBER.match(text.strip())
        said = await self._put(wanted[1], headers) if wanted else await self._find(text, headers)
        return Answer(said, {"model": MODEL, "input_tokens": 400 + 2 * len(text.split()), "output_tokens": 2 * len(said.split())})

    async def _put(self, fact: str, headers: Mapping[str, str]) -> str:
        await call_tool(self._gateway, headers, "memory.put", {"text": fact}, more_scope="memory:write:person")
        return f"I will remember: {fact}"

    async def _find(self, question: str, headers: Mapping[str, str]) -> str:
        found = await call_tool(self._gateway, headers, "memory.search", {"query": question}, more_scope="memory:read:person")
        facts = [str(each["text"]) for each in found["items"]]
        return f"I remember: {'; '.join(facts)}" if facts else "I remember nothing of that."


def build(url: str, gateway: Gateway) -> ASGIApp:
    return build_agent(url, "Concierge", "Remembers what you tell it, and answers from that.", Concierge(gateway).reply)


if __name__ == "__main__":
    serve_agent(__doc__ or "", build)
