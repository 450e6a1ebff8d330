"""The tools and resources of the built-in server `subjects`: claims and the view of a subject, with the rights of the asker."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from gateway.ingress.built_in.server import BuiltInTool, FunctionServer
from gateway.ingress.http.error_rows.state import CLAIM_ERRORS
from gateway.state.claims.operations import LEASE_SECONDS, LEASE_SECONDS_MAX, ClaimOperations, ClaimOrder, claim_document
from policies.callers import Caller

URI_PREFIX: Final = "subject://"
LISTED_MAX: Final = 200
_Token = Annotated[int, Meta(ge=1)]
ReadView = Callable[[Caller, str], Awaitable[dict[str, Any]]]
"""Returns the view of a subject. Raises CallRefused and BadClaim."""


class _TakeArguments(ClaimOrder, frozen=True, forbid_unknown_fields=True):
    pass


class _RenewArguments(Struct, forbid_unknown_fields=True):
    id: str
    token: _Token
    seconds: Annotated[int, Meta(ge=1, le=LEASE_SECONDS_MAX)] = LEASE_SECONDS


class _ReleaseArguments(Struct, forbid_unknown_fields=True):
    id: str
    token: _Token
    cool_down_seconds: Annotated[int, Meta(ge=0)] | None = None


class _SubjectArguments(Struct, forbid_unknown_fields=True):
    subject: str


class ClaimTools:
    """The functions behind the tools."""

    def __init__(self, operations: ClaimOperations, read_view: ReadView) -> None:
        self._operations = operations
        self._read_view = read_view

    def build_server(self) -> FunctionServer:
        """The server with all tools."""
        tools = {
            "claim": BuiltInTool(_TakeArguments, self._take),
            "renew_claim": BuiltInTool(_RenewArguments, self._renew),
            "release_claim": BuiltInTool(_ReleaseArguments, self._release),
            "list_claims": BuiltInTool(_SubjectArguments, self._list),
            "show": BuiltInTool(_SubjectArguments, self._show),
        }
        return FunctionServer(tools, tuple(CLAIM_ERRORS), self.read_resource)

    async def read_resource(self, caller: Caller, uri: str) -> dict[str, Any]:
        """The view at a URI such as subject://customer:42. Raises what reading the view raises."""
        return await self._read_view(caller, uri.removeprefix(URI_PREFIX))

    async def _take(self, caller: Caller, arguments: _TakeArguments) -> dict[str, Any]:
        claim = await self._operations.take(caller, arguments)
        return claim_document(claim, claim.created)

    async def _renew(self, caller: Caller, arguments: _RenewArguments) -> dict[str, Any]:
        claim = await self._operations.renew(caller, arguments.id, arguments.token, arguments.seconds)
        return claim_document(claim, claim.created)

    async def _release(self, caller: Caller, arguments: _ReleaseArguments) -> dict[str, Any]:
        claim = await self._operations.release(caller, arguments.id, arguments.token, arguments.cool_down_seconds)
        return claim_document(claim, claim.until)

    async def _list(self, caller: Caller, arguments: _SubjectArguments) -> dict[str, Any]:
        found, now = await self._operations.list_on(caller, arguments.subject, None, LISTED_MAX)
        return {"items": [claim_document(claim, now) for claim in found]}

    async def _show(self, caller: Caller, arguments: _SubjectArguments) -> dict[str, Any]:
        return await self._read_view(caller, arguments.subject)
