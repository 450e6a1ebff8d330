"""A client behind a request, with answers ready, that keeps what it heard."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw

from adapters.mcp_client.wire.peer import ListenFilter, McpListener, PeerRefused
from tests.fakes.clock import leap

ABLE: Mapping[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}
ANSWERS: Mapping[str, Any] = {
    "elicitation/create": {"action": "accept", "content": {"name": "Ada"}},
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "deep"}, "model": "m-1"},
    "roots/list": {"roots": [{"uri": "file:///home"}]},
}


class ScriptedPeer:
    """`answers`: by method a result, or an exception to raise, or a function of the parameters."""

    def __init__(self, capabilities: Mapping[str, Any] = ABLE, answers: Mapping[str, Any] = ANSWERS) -> None:
        self.capabilities = capabilities
        self.answers = answers
        self.heard: list[tuple[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self.granted: list[ListenFilter] = []
        self.thinks = 0.0  # seconds before an answer, in which the clock leaps
        self.hanging = asyncio.Event()  # set while a question without an answer waits
        self.withdrawn = 0
        self._news = asyncio.Event()

    async def notify(self, method: str, params: Raw) -> None:
        self.heard.append((method, json.loads(bytes(params))))
        self._news.set()

    async def ask(self, method: str, params: Raw) -> Raw:
        self.asked.append((method, json.loads(bytes(params))))
        answer = self.answers.get(method)
        if isinstance(answer, PeerRefused):
            raise answer
        if answer is None:
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.withdrawn += 1
        if self.thinks:
            leap(self.thinks)
            await asyncio.sleep(0)  # what is due is done first
        return Raw(json.dumps(answer(self.asked[-1][1]) if isinstance(answer, Callable) else answer).encode())

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        self.granted.append(granted)
        self._news.set()

    def methods(self) -> list[str]:
        return [method for method, _ in self.heard]

    async def until(self, so: Callable[["ScriptedPeer"], bool], seconds: float = 60.0) -> None:
        """Waits for something to be heard."""
        async with asyncio.timeout(seconds):
            while not so(self):
                self._news.clear()
                await self._news.wait()


_: type[McpListener] = ScriptedPeer
