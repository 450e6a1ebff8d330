"""Answers requests for hidden things exactly like requests for unknown ones: with the same error, after the same database commit."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from gateway.calls.authorizer import CallRefused
from gateway.calls.limits.meters import LimitReached, PayloadTooLarge
from gateway.calls.targets.unknown_names import UnknownNameDenials, UnknownNameDenied
from gateway.ingress.http.errors import UnknownPrompt, UnknownResource, UnknownTool
from gateway.ingress.mcp_server.catalogue.names import entry_name_of
from gateway.ingress.mcp_server.catalogue.prompts import PromptCatalogue
from gateway.ingress.mcp_server.catalogue.resources import ResourceCatalogue
from gateway.ingress.mcp_server.catalogue.search_mode import SearchMode
from gateway.ingress.mcp_server.catalogue.tools import AgentTool, ServerTool, ToolCatalogue
from gateway.ingress.mcp_server.catalogue.uris import split_public_uri
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries, uses_own_names
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from registry.store import UnknownName

UNKNOWN_NAME_ERRORS = (UnknownTool, UnknownPrompt, UnknownResource, UnknownName)
REFUSALS = (*UNKNOWN_NAME_ERRORS, CallRefused, BadEnvelope, LimitReached, PayloadTooLarge)
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Catalogue(Struct, frozen=True):
    """The catalogues of what callers can use."""

    visible_entries: VisibleEntries
    tools: ToolCatalogue
    prompts: PromptCatalogue
    resources: ResourceCatalogue
    search_mode: SearchMode

    def check_still_allowed(self, message: ClientMessage) -> None:
        """Checks that a request which continues an earlier one is still allowed. Raises UnknownTool, UnknownPrompt or UnknownResource."""
        caller = message.caller
        if message.method == "tools/call" and self.search_mode.is_on(message):
            message = self.search_mode.resolve_call_tool(message)
        params = message.params_object()
        if message.method == "tools/call":
            target = self.tools.resolve(caller, message.server_path, str(params.get("name")))
            if isinstance(target, ServerTool) and not self._could_allow(message, target.act):
                raise UnknownTool
        elif message.method == "prompts/get":
            prompt = self.prompts.resolve(caller, message.server_path, str(params.get("name")))
            if not self._could_allow(message, act_of_getting_prompt(prompt.server, prompt.prompt)):
                raise UnknownPrompt
        else:
            resource = self.resources.resolve(caller, message.server_path, str(params.get("uri")))
            if not self._could_allow(message, act_of_reading_resource(resource.server)):
                raise UnknownResource

    def _could_allow(self, message: ClientMessage, act: Act) -> bool:
        server = self.visible_entries.find_server(message.caller, act.parent)
        return self.visible_entries.could_allow(message.caller, server, act)


class VisibilityCheck:
    """Checks after a refusal whether the caller may know of what the request named."""

    def __init__(self, catalogue: Catalogue, unknown_names: UnknownNameDenials) -> None:
        self._catalogue = catalogue
        self._unknown_names = unknown_names

    async def raise_if_hidden(self, message: ClientMessage, error: Exception) -> None:
        """Records a denial and raises the error of an unknown name, when the named thing is hidden or does not exist.

        `error` is why the request failed. A CallRefused or UnknownNameDenied is already recorded.
        """
        act, exists = act_of_calling_tool(message.server_path, ""), False
        try:
            act, exists = self._find_named(message)
            unknown = _UNKNOWN_NAME_ERROR_OF.get(act.action, UnknownTool)()
        except UNKNOWN_NAME_ERRORS as named:
            unknown = named
        except BadEnvelope:
            return  # the request names nothing
        if exists and self._catalogue.visible_entries.can_see(message.caller, act):
            return
        if isinstance(error, CallRefused | UnknownNameDenied):
            raise unknown from None
        params = bytes(_decode_members(message.raw).get("params", b""))
        if await self._unknown_names.deny(message.caller, act, params, message.trace_context.trace_id, is_registered=exists):
            raise unknown from None

    def _find_named(self, message: ClientMessage) -> "ActAndExistence":
        """Returns the requested act, and whether its target exists. Raises UnknownName for an unknown endpoint."""
        find = {"prompts/get": self._find_prompt, "resources/read": self._find_resource, "completion/complete": self._find_completed}
        if message.server_path:
            self._catalogue.tools.check_visible(message.caller, message.server_path)
        return find.get(message.method, self._find_tool)(message)

    def _find_tool(self, message: ClientMessage) -> "ActAndExistence":
        if self._catalogue.search_mode.is_on(message):
            message = self._catalogue.search_mode.resolve_call_tool(message)
        name = message.string_param("name")
        try:
            target = self._catalogue.tools.resolve(message.caller, message.server_path, name)
        except UnknownTool:
            return act_of_calling_tool(*self._server_and_name(message, name)), False
        return act_of_invoking_agent(target.agent) if isinstance(target, AgentTool) else target.act, True

    def _find_prompt(self, message: ClientMessage) -> "ActAndExistence":
        return self._find_prompt_by_name(message, message.string_param("name"))

    def _find_resource(self, message: ClientMessage) -> "ActAndExistence":
        return self._find_resource_by_uri(message, message.string_param("uri"))

    def _find_completed(self, message: ClientMessage) -> "ActAndExistence":
        ref: Any = message.params_object().get("ref")
        if not isinstance(ref, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.ref must be an object")
        if ref.get("type") == "ref/prompt":
            return self._find_prompt_by_name(message, str(ref.get("name")))
        return self._find_resource_by_uri(message, str(ref.get("uri")))

    def _find_prompt_by_name(self, message: ClientMessage, name: str) -> "ActAndExistence":
        try:
            found = self._catalogue.prompts.resolve(message.caller, message.server_path, name)
        except UnknownPrompt:
            return act_of_getting_prompt(*self._server_and_name(message, name)), False
        return act_of_getting_prompt(found.server, found.prompt), True

    def _find_resource_by_uri(self, message: ClientMessage, uri: str) -> "ActAndExistence":
        try:
            return act_of_reading_resource(self._catalogue.resources.resolve(message.caller, message.server_path, uri).server), True
        except UnknownResource:
            return act_of_reading_resource(message.server_path if uses_own_names(message.server_path) else split_public_uri(uri)[0]), False

    def _server_and_name(self, message: ClientMessage, name: str) -> tuple[str, str]:
        """Returns the server and own name that an unknown name would belong to."""
        if uses_own_names(message.server_path):
            return message.server_path, name
        owner = entry_name_of(name, self._catalogue.tools.separator)
        return owner, name.removeprefix(owner)[1:]


ActAndExistence = tuple[Act, bool]
_UNKNOWN_NAME_ERROR_OF: dict[str, Callable[[], Exception]] = {"getPrompt": UnknownPrompt, "readResource": UnknownResource}
