"""What the caller may not know of is refused as what is not there: with the same words, and after the same commit."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from adapters.mcp_client.wire.peer import Peer
from gateway.calls.authorizer import Refused
from gateway.calls.limits.limits import LimitReached, PayloadTooLarge
from gateway.calls.targets.unknown_names import UnknownNames, Unseen
from gateway.ingress.http.errors import UnknownPrompt, UnknownResource, UnknownTool
from gateway.ingress.mcp_server.catalogue.names import owner_of
from gateway.ingress.mcp_server.catalogue.prompts import Prompts
from gateway.ingress.mcp_server.catalogue.resources import Resources
from gateway.ingress.mcp_server.catalogue.search_mode import Searching
from gateway.ingress.mcp_server.catalogue.tools import AgentTool, Tools
from gateway.ingress.mcp_server.catalogue.uris import inward
from gateway.ingress.mcp_server.catalogue.visible import Offers, own_names
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from policies.delegation.rulings import Act, calling, getting, invoking, reading
from registry.store import UnknownName

UNKNOWN = (UnknownTool, UnknownPrompt, UnknownResource, UnknownName)
REFUSALS = (*UNKNOWN, Refused, BadEnvelope, LimitReached, PayloadTooLarge)
_raw = msgspec.json.Decoder(dict[str, Raw]).decode


class Catalogue(Protocol):
    """What there is for a caller (relay.py)."""

    @property
    def offers(self) -> Offers: ...

    @property
    def tools(self) -> Tools: ...

    @property
    def prompts(self) -> Prompts: ...

    @property
    def resources(self) -> Resources: ...

    @property
    def searching(self) -> Searching: ...


class Hiding:
    """Looks again at what a refused request named."""

    def __init__(self, catalogue: Catalogue, unknown: UnknownNames) -> None:
        self._catalogue = catalogue
        self._unknown = unknown

    async def check(self, asked: Asked, error: Exception) -> None:
        """Where the caller may not know of what was named, or where there is none: keeps the denial, and raises as of an unknown name.

        `error`: why the request failed. A ruling is kept already, and so is the denial of what is Unseen.
        """
        act, exists = calling(asked.server, ""), False
        try:
            act, exists = self._named(asked)
            unknown = _UNSEEN.get(act.action, UnknownTool)()
        except UNKNOWN as named:
            unknown = named
        except BadEnvelope:
            return  # it names nothing
        if exists and self._catalogue.offers.sees(asked.caller, act):
            return
        if isinstance(error, Refused | Unseen):
            raise unknown from None
        params = bytes(_raw(asked.raw).get("params", b""))
        if await self._unknown.deny(asked.caller, act, params, asked.trail.trace_id, exists=exists):
            raise unknown from None

    def _named(self, asked: Asked) -> "Named":
        """The act that the request asks for, and whether what it names is there. Raises UnknownName for the place."""
        find = {"prompts/get": self._prompt, "resources/read": self._resource, "completion/complete": self._completed}
        if asked.server:
            self._catalogue.tools.check(asked.caller, asked.server)
        return find.get(asked.method, self._tool)(asked)

    def _tool(self, asked: Asked) -> "Named":
        if self._catalogue.searching.applies(asked):
            asked = self._catalogue.searching.meant(asked)
        name = asked.text("name")
        try:
            target = self._catalogue.tools.resolve(asked.caller, asked.server, name)
        except UnknownTool:
            return calling(*self._parts(asked, name)), False
        return invoking(target.agent) if isinstance(target, AgentTool) else calling(target.server, target.tool), True

    def _prompt(self, asked: Asked) -> "Named":
        return self._prompt_named(asked, asked.text("name"))

    def _resource(self, asked: Asked) -> "Named":
        return self._resource_at(asked, asked.text("uri"))

    def _completed(self, asked: Asked) -> "Named":
        ref: Any = asked.object().get("ref")
        if not isinstance(ref, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.ref must be an object")
        if ref.get("type") == "ref/prompt":
            return self._prompt_named(asked, str(ref.get("name")))
        return self._resource_at(asked, str(ref.get("uri")))

    def _prompt_named(self, asked: Asked, name: str) -> "Named":
        try:
            found = self._catalogue.prompts.resolve(asked.caller, asked.server, name)
        except UnknownPrompt:
            return getting(*self._parts(asked, name)), False
        return getting(found.server, found.prompt), True

    def _resource_at(self, asked: Asked, uri: str) -> "Named":
        try:
            return reading(self._catalogue.resources.resolve(asked.caller, asked.server, uri).server), True
        except UnknownResource:
            return reading(asked.server if own_names(asked.server) else inward(uri)[0]), False

    def _parts(self, asked: Asked, name: str) -> tuple[str, str]:
        """The server and its own name of what is not there, as far as the name tells."""
        if own_names(asked.server):
            return asked.server, name
        owner = owner_of(name, self._catalogue.tools.separator)
        return owner, name.removeprefix(owner)[1:]


Named = tuple[Act, bool]
_UNSEEN: dict[str, Callable[[], Exception]] = {"getPrompt": UnknownPrompt, "readResource": UnknownResource}


class Hides(Protocol):
    """Whoever answers requests that name something."""

    hiding: Hiding


Answer = Callable[[Any, Asked, Peer | None], Awaitable[bytes]]


def hides(answer: Answer) -> Answer:
    """For a method of whoever `Hides`: what it refuses is looked at again."""

    @wraps(answer)
    async def answered(self: Hides, asked: Asked, peer: Peer | None) -> bytes:
        try:
            return await answer(self, asked, peer)
        except REFUSALS as error:
            await self.hiding.check(asked, error)
            raise

    return answered
