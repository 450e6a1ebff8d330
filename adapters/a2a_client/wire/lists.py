"""ListTasks of A2A 1.0 (s3.1.4): its parameters and a page of tasks."""

from typing import Any, Final

from msgspec import Raw, Struct

from adapters.a2a_client.wire.v1 import BadMessage, check_id, convert_params
from adapters.task import TaskState

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 100
TOKEN_LIMIT: Final = 256  # characters


class ListParams(Struct, frozen=True, rename="camel"):
    """ListTasksRequest. `history_length`: None or 0 = none, n = the last n; `status_timestamp_after` is RFC 3339."""

    context_id: str = ""
    status: TaskState | None = None
    page_size: int | None = None
    page_token: str = ""
    history_length: int | None = None
    status_timestamp_after: str = ""
    include_artifacts: bool = False
    tenant: str = ""


class TaskPage(Struct, frozen=True, rename="camel"):
    """ListTasksResponse; `next_page_token` is always present, and empty on the last page. `tasks` are encoded Tasks."""

    tasks: tuple[Raw, ...]
    next_page_token: str
    page_size: int
    total_size: int


def read_list_params(params: Any) -> ListParams:
    """Reads the decoded `params` of ListTasks. Raises BadMessage."""
    read = convert_params({} if params is None else params, ListParams)
    if read.page_size is not None and not 1 <= read.page_size <= PAGE_SIZE_MAX:
        raise BadMessage("pageSize", f"must be from 1 to {PAGE_SIZE_MAX}")
    if read.history_length is not None and read.history_length < 0:
        raise BadMessage("historyLength", "must not be negative")
    check_id(read.context_id, "contextId")
    if len(read.page_token) > TOKEN_LIMIT or not read.page_token.isprintable():
        raise BadMessage("pageToken", "is not one of ours")
    return read
