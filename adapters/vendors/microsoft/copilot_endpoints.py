"""The conversation endpoints of an agent in Copilot Studio: at its URL, or where its environment locates them."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from adapters.contract import InvalidAnswer
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment

ID_PLACEHOLDER: Final = "{conversationId}"
ENVIRONMENT_LABEL: Final = ".environment."
FOREIGN_ADDRESS_TEXT: Final = "The agent's environment refers to an address outside of its domain"
TURN_KEY: Final = "turn"  # the key in a VendorRef's `kept`: the URL of turns


class CopilotEndpoints(Struct, frozen=True):
    """The endpoints of an agent: `create` begins a conversation; `turn` is a turn's URL with the placeholder `{conversationId}`.

    `domain`: the domain of all hosts that may get the credential.
    """

    create: str
    turn: str
    domain: str = ""

    def turn_path(self, conversation: str) -> str:
        return self.turn.replace(ID_PLACEHOLDER, quote_segment(conversation))


def default_endpoints(version: str) -> CopilotEndpoints:
    """The endpoints of an agent whose URL ends before `/conversations`."""
    query = f"?api-version={quote_segment(version)}"
    return CopilotEndpoints(f"/conversations{query}", f"/conversations/{ID_PLACEHOLDER}{query}")


async def discover_endpoints(connection: VendorConnection[Any], agent: str, kept_values: Mapping[str, Any]) -> CopilotEndpoints:
    """The endpoints from the environment at the agent's URL, or those of a conversation that has begun. Raises UpstreamFault."""
    domain = environment_domain(connection.url)
    if isinstance(kept_values.get(TURN_KEY), str):
        return CopilotEndpoints("", kept_values[TURN_KEY], domain)
    endpoints = await connection.request_json(Request("GET", f"/copilotstudio/agents/{quote_segment(agent)}/conversation-endpoints"))
    create = _check_address(endpoints["createConversation"], connection.url, has_id=False)
    return CopilotEndpoints(create, _check_address(endpoints["executeTurn"], connection.url, has_id=True), domain)


def environment_domain(url: str) -> str:
    """The domain of an environment's hosts; for any other URL its host."""
    host = urlsplit(url).hostname or ""
    place = host.find(ENVIRONMENT_LABEL)
    return host[place + 1 :] if place >= 0 else host


def _check_address(address: str, environment_url: str, *, has_id: bool) -> str:
    """The address if it has the environment's scheme and port and is in its domain. Raises InvalidAnswer otherwise."""
    rest, domain = address.replace(ID_PLACEHOLDER, ""), environment_domain(environment_url)
    try:
        endpoint, environment = urlsplit(address.replace(ID_PLACEHOLDER, "id")), urlsplit(environment_url)
        host = endpoint.hostname or ""
        good = (
            (ID_PLACEHOLDER in address) is has_id
            and not any(sign in rest for sign in "{}\\")
            and not any(sign.isspace() or ord(sign) < 32 for sign in address)
            and (endpoint.scheme, endpoint.port) == (environment.scheme, environment.port)
            and (host == domain or host.endswith(f".{domain}"))
            and not (endpoint.username or endpoint.password or endpoint.fragment)
        )
    except ValueError:
        good = False
    if not good:
        raise InvalidAnswer(FOREIGN_ADDRESS_TEXT, address[:300])
    return address
