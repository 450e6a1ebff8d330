"""The tools and resources of the built-in server `state`: the board, with the rights of the asker.

What agents get names the author and source beside each value. Nothing of a value becomes part of a description or an instruction.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from adapters.contract import UpstreamFault
from adapters.upstream.targets import EgressRefused
from gateway.calls.limits.meters import LimitReached
from gateway.ingress.built_in.server import BuiltInTool, FunctionServer
from gateway.ingress.http.error_rows.state import STATE_ERRORS
from gateway.state.board.documents import NOTICE, change_document, held_document, value_document
from gateway.state.board.held_values.rows import HeldValue
from gateway.state.board.merge_patch import Edit
from gateway.state.board.operations import Board, WriteOptions
from gateway.state.board.problems import BadKey
from gateway.state.board.rules import TTL_MAX
from gateway.state.board.values import NO_PRECONDITION, Precondition
from gateway.storage.paging import BadCursor
from policies.callers import Caller
from registry.health.reachability import NotReachable

# what calls of the tools that hold values raise; a consent that is missing is asked for as by any tool
BACKING_FAULTS: Final = (UpstreamFault, EgressRefused, NotReachable, LimitReached)
URI_PREFIX: Final = "state://"
PAGE_DEFAULT: Final = 50
_Limit = Annotated[int, Meta(ge=1, le=200)]
_Version = Annotated[int, Meta(ge=0)]


class _KeyArguments(Struct, forbid_unknown_fields=True):
    key: str


class _SetArguments(Struct, forbid_unknown_fields=True):
    key: str
    value: Any
    version: _Version | None = None
    ttl: Annotated[int, Meta(ge=1, le=TTL_MAX)] | None = None


class _PatchArguments(Struct, forbid_unknown_fields=True):
    key: str
    patch: dict[str, Any]
    version: _Version | None = None


class _ListArguments(Struct, forbid_unknown_fields=True):
    prefix: str = ""
    cursor: str = ""
    limit: _Limit = PAGE_DEFAULT
    values: bool = False


class _HistoryArguments(Struct, forbid_unknown_fields=True):
    key: str
    limit: _Limit = PAGE_DEFAULT


class StateTools:
    """The functions behind the tools."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def build_server(self) -> FunctionServer:
        """The server with all tools."""
        tools = {
            "get": BuiltInTool(_KeyArguments, self._get),
            "set": BuiltInTool(_SetArguments, self._set),
            "patch": BuiltInTool(_PatchArguments, self._patch),
            "list": BuiltInTool(_ListArguments, self._list),
            "history": BuiltInTool(_HistoryArguments, self._history),
        }
        return FunctionServer(tools, (*STATE_ERRORS, BadCursor, *BACKING_FAULTS), self.read_resource)

    async def read_resource(self, caller: Caller, uri: str) -> dict[str, Any]:
        """The value at a URI such as state://customer/42/status. Raises as Board.get does."""
        if not uri.startswith(URI_PREFIX):
            raise BadKey("A value has a URI such as state://customer/42/status.")
        return {**value_document(await self._board.get(caller, uri.removeprefix(URI_PREFIX))), "notice": NOTICE}

    async def _get(self, caller: Caller, arguments: _KeyArguments) -> dict[str, Any]:
        return {**value_document(await self._board.get(caller, arguments.key)), "notice": NOTICE}

    async def _set(self, caller: Caller, arguments: _SetArguments) -> dict[str, Any]:
        options = WriteOptions(_precondition_of(arguments.version), arguments.ttl)
        return await self._write(caller, arguments.key, Edit(arguments.value), options)

    async def _patch(self, caller: Caller, arguments: _PatchArguments) -> dict[str, Any]:
        options = WriteOptions(_precondition_of(arguments.version))
        return await self._write(caller, arguments.key, Edit(arguments.patch, is_patch=True), options)

    async def _write(self, caller: Caller, key: str, edit: Edit, options: WriteOptions) -> dict[str, Any]:
        result = await self._board.write(caller, key, edit, options)
        if isinstance(result, HeldValue):
            return {"held": held_document(result, with_value=not edit.is_patch)}
        return value_document(result, with_value=False)

    async def _list(self, caller: Caller, arguments: _ListArguments) -> dict[str, Any]:
        page = await self._board.list_values(caller, arguments.prefix, arguments.cursor, arguments.limit, with_values=arguments.values)
        items = [value_document(value, with_value=arguments.values) for value in page.values]
        return {"items": items, "next": page.next or None, "notice": NOTICE}

    async def _history(self, caller: Caller, arguments: _HistoryArguments) -> dict[str, Any]:
        changes = await self._board.history(caller, arguments.key, None, arguments.limit)
        return {"items": [change_document(change) for change in changes], "notice": NOTICE}


def _precondition_of(version: int | None) -> Precondition:
    """None: no precondition, which only suffices where there is no value. 0: there must be no value."""
    if version is None:
        return NO_PRECONDITION
    return Precondition((version,)) if version else Precondition(no_value=True)
