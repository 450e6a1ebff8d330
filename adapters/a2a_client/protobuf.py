"""Converts between A2A in protobuf, JSON and the types of adapters/task.py, for gRPC."""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf import any_pb2, json_format
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf
from google.rpc import error_details_pb2, status_pb2

from adapters.a2a_client.wire.transport import NotCarried
from adapters.contract import UpstreamFault

DEPTH_MAX: Final = 34  # of JSON: a deeper Struct exceeds the 100 nested messages that protobuf reads
INTEGER_MAX: Final = 2**53  # beyond it, a double may stand for another integer
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
M = TypeVar("M", bound=Protobuf)


def to_json(message: Protobuf) -> dict[str, Any]:
    """A message as ProtoJSON. Doubles of a Struct that are whole become integers. Raises UpstreamFault."""
    try:
        read: dict[str, Any] = json_format.MessageToDict(message)
    except (json_format.Error, ValueError) as error:
        raise UpstreamFault("The message has a value that JSON can't represent", str(error)[:500]) from None
    _restore_integers(read)
    return read


def to_protobuf(noun_or_json: Any, kind: type[M]) -> M:
    """A type of adapters/task.py, or JSON, as a message of `kind`. Raises NotCarried."""
    value = msgspec.to_builtins(noun_or_json)
    _check_carried(value, DEPTH_MAX)
    try:
        message: M = json_format.ParseDict(value, kind(), ignore_unknown_fields=True)
    except (json_format.Error, ValueError, OverflowError) as error:
        raise NotCarried(str(error)[:500]) from None
    return message


def _restore_integers(value: Any) -> None:
    """Replaces whole doubles by integers in place."""
    members: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in members:
        if isinstance(member, float) and member.is_integer() and abs(member) <= INTEGER_MAX:
            value[key] = int(member)
        elif isinstance(member, dict | list):
            _restore_integers(member)


def _check_carried(value: Any, depth: int) -> None:
    """Raises NotCarried for JSON nested more than `depth` deep, or with an integer that a double would round."""
    if isinstance(value, dict | list | tuple):
        if depth <= 0:
            raise NotCarried("nested too deeply")
        for member in value.values() if isinstance(value, dict) else value:
            _check_carried(member, depth - 1)
    elif isinstance(value, int) and abs(value) > INTEGER_MAX and not _is_double(value):
        raise NotCarried("an integer that a double would round")


def _is_double(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def status_bytes(code: int, message: str, details: Iterable[dict[str, Any]]) -> bytes:
    """A serialized google.rpc.Status. Of `details` (JSON with `@type`), only ErrorInfo, BadRequest and RetryInfo are kept."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        kind = _DETAILS.get(str(detail["@type"]).rpartition(".")[2])
        if kind is not None:
            packed = any_pb2.Any()
            packed.Pack(json_format.ParseDict({name: member for name, member in detail.items() if name != "@type"}, kind()))
            status.details.append(packed)
    packed_status: bytes = status.SerializeToString()
    return packed_status


def reason_in(details: bytes) -> str:
    """The reason of the first ErrorInfo in a serialized Status, or the empty string."""
    try:
        for packed in status_pb2.Status.FromString(details).details:
            info = error_details_pb2.ErrorInfo()
            if packed.Unpack(info):
                return str(info.reason)
    except DecodeError:
        pass
    return ""


_DETAILS: Final[dict[str, type[Protobuf]]] = {
    "ErrorInfo": error_details_pb2.ErrorInfo,
    "BadRequest": error_details_pb2.BadRequest,
    "RetryInfo": error_details_pb2.RetryInfo,
}
