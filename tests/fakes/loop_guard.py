"""Notes which functions read or convert something large in the thread of the event loop, where all others wait for them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from google.protobuf.message import Message as Protobuf

from adapters.a2a_client import protobuf
from adapters.a2a_client import rest as a2a_rest
from adapters.a2a_client.wire import rpc
from adapters.mcp_client.wire import messages as mcp_wire
from adapters.task import encode
from adapters.vendors.sdk import frames
from gateway.ingress.admin import bodies
from policies import strict_json
from policies.strict_json import LARGE

READERS: tuple[Callable[..., Any], ...] = (
    strict_json.parse,
    strict_json.count_names,
    rpc.read_event,
    rpc.read_task,
    a2a_rest._read_event,
    a2a_rest._read_task,
    mcp_wire.read_envelope,
    frames.parse_json,
    bodies._parse_model,
    protobuf.to_json,
    protobuf.to_protobuf,
)


def _size_of(value: Any) -> int:
    """Bytes of a text, of a message in protobuf, or of the JSON of anything else."""
    if isinstance(value, Protobuf):
        return value.ByteSize()
    return len(value if isinstance(value, bytes | bytearray | memoryview | str) else encode(value))


@contextmanager
def loop_guard() -> Iterator[list[str]]:
    """The names of the READERS that were called in this thread with more than LARGE bytes as their first argument."""
    watched = {getattr(reader, "__code__", None): reader.__name__ for reader in READERS}
    found: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = watched.get(frame.f_code) if event == "call" else None
        if name is not None and _size_of(frame.f_locals[frame.f_code.co_varnames[0]]) > LARGE:
            found.append(name)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
