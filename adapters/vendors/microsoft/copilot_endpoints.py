"""Where an agent of Copilot Studio holds conversations: at its URL, or where its environment says that they are held."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from adapters.contract import InvalidAnswer
from adapters.vendors.sdk.connection import Line, Request, quoted

ID: Final = "{conversationId}"
ENVIRONMENT: Final = ".environment."
ELSEWHERE: Final = "The agent's environment names an address outside of itself"
TURN: Final = "turn"  # in what a VendorRef keeps: the address of turns


class Endpoints(Struct, frozen=True):
    """`create` begins a conversation; `turn` says something in one, whose id it takes in place of `{conversationId}`.

    `domain`: below it they are, at whichever of its hosts.
    """

    create: str
    turn: str
    domain: str = ""

    def turn_in(self, conversation: str) -> str:
        return self.turn.replace(ID, quoted(conversation))


def endpoints_at(version: str) -> Endpoints:
    """Those of an agent whose URL ends before `/conversations`."""
    query = f"?api-version={quoted(version)}"
    return Endpoints(f"/conversations{query}", f"/conversations/{ID}{query}")


async def discovered(line: Line[Any], agent: str, kept: Mapping[str, Any]) -> Endpoints:
    """Those that the environment at the agent's URL tells, or those that the conversation was begun at. Raises UpstreamFault."""
    domain = domain_of(line.url)
    if isinstance(kept.get(TURN), str):
        return Endpoints("", kept[TURN], domain)
    told = await line.json(Request("GET", f"/copilotstudio/agents/{quoted(agent)}/conversation-endpoints"))
    create = _checked(told["createConversation"], line.url, has_id=False)
    return Endpoints(create, _checked(told["executeTurn"], line.url, has_id=True), domain)


def domain_of(url: str) -> str:
    """The domain of an environment's hosts, or the host itself where it is no environment's."""
    host = urlsplit(url).hostname or ""
    place = host.find(ENVIRONMENT)
    return host[place + 1 :] if place >= 0 else host


def _checked(address: str, own: str, *, has_id: bool) -> str:
    """An address as the environment may name one: at its own scheme and port, and in its own domain. Raises InvalidAnswer."""
    rest, domain = address.replace(ID, ""), domain_of(own)
    try:
        there, here = urlsplit(address.replace(ID, "id")), urlsplit(own)
        host = there.hostname or ""
        good = (
            (ID in address) is has_id
            and not any(sign in rest for sign in "{}\\")
            and not any(sign.isspace() or ord(sign) < 32 for sign in address)
            and (there.scheme, there.port) == (here.scheme, here.port)
            and (host == domain or host.endswith(f".{domain}"))
            and not (there.username or there.password or there.fragment)
        )
    except ValueError:
        good = False
    if not good:
        raise InvalidAnswer(ELSEWHERE, address[:300])
    return address
