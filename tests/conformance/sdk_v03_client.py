"""The official SDK of A2A 0.3 as a client of one agent, run in an environment of its own: `python sdk_v03_client.py URL`.

It says no version, as that SDK does. Standard output gets `{"check": "", …}`, with the problem of each check that failed.
"""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from uuid import uuid4

import httpx
import jwt
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import AgentCard, Message, Part, Role, Task, TextPart
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier


class Sdk:
    """A client that knows nothing but the address of an agent."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def card(self) -> AgentCard:
        return await A2ACardResolver(self._http, self._url).get_agent_card()

    async def finds_the_agent(self) -> None:
        card = await self.card()
        assert card.url == self._url, card.url
        assert card.protocol_version.startswith("0.3") and card.skills and card.security, card

    async def verifies_the_card(self) -> None:
        card = await self.card()
        verify = await self._verifier(card)
        verify(card)
        card.description = "Something else"
        try:
            verify(card)
        except InvalidSignaturesError:
            return
        raise AssertionError("a changed card is verified too")

    async def verifies_the_extended_card(self) -> None:
        card = await self.card()
        card.supports_authenticated_extended_card = True
        client = ClientFactory(ClientConfig(httpx_client=self._http)).create(card)
        extended = await client.get_card(signature_verifier=await self._verifier(card))
        assert extended.skills and extended.url == self._url, extended

    async def sends(self) -> None:
        assert await self._answered(streaming=False)

    async def streams(self) -> None:
        assert await self._answered(streaming=True)

    async def _answered(self, streaming: bool) -> bool:
        client = ClientFactory(ClientConfig(streaming=streaming, httpx_client=self._http)).create(await self.card())
        said = Message(message_id=str(uuid4()), role=Role.user, parts=[Part(root=TextPart(text="hello"))])
        answers = [each[0] if isinstance(each, tuple) else each async for each in client.send_message(said)]
        return bool(answers) and isinstance(answers[-1], Task | Message)

    async def _verifier(self, card: AgentCard) -> Callable[[AgentCard], None]:
        """Believes the keys that the card itself names: what is checked here is that signatures are of these members."""
        assert card.signatures
        jku = jwt.get_unverified_header(f"{card.signatures[0].protected}..")["jku"]
        keys = {each["kid"]: jwt.PyJWK(each) for each in (await self._http.get(jku)).json()["keys"]}
        return create_signature_verifier(lambda kid, _: keys[kid], ["ES256"])


async def problem_of(check: Callable[[], Awaitable[None]]) -> str:
    try:
        await check()
    except Exception:  # noqa: BLE001 (whatever the SDK stumbles over is what is asked)
        return traceback.format_exc(limit=-3)[-1000:]
    return ""


async def main(url: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        sdk = Sdk(url, http)
        checks = (sdk.finds_the_agent, sdk.verifies_the_card, sdk.verifies_the_extended_card, sdk.sends, sdk.streams)
        print(json.dumps({check.__name__: await problem_of(check) for check in checks}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
