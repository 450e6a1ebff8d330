"""JSON-RPC calls to A2A agents in either version: method names, request bytes and response parsing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from adapters.a2a_client.wire import tolerant, v03, v1
from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import PeerError
from adapters.contract import Challenged, InvalidAnswer, UpstreamFault
from adapters.task import Message, StreamResponse, Task, encode
from policies.strict_json import LARGE, BadJson, count_names, parse


class BuildSendParams(Protocol):
    """Builds the params of a send. `push_url`: where to push; the agent then need not wait for the task's end."""

    def __call__(
        self, message: Message, modes: tuple[str, ...], tenant: str, push_url: str = "", metadata: Mapping[str, Any] | None = None, /
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The methods, headers and send params of one version."""

    version: str
    send: str
    stream: str
    subscribe: str
    get: str
    cancel: str
    headers: Mapping[str, str]
    send_params: BuildSendParams


class _SendRequest(Struct, frozen=True, omit_defaults=True, rename="camel"):
    message: Message
    configuration: dict[str, Any] | UnsetType = UNSET
    tenant: str = ""
    metadata: Mapping[str, Any] | None = None


def _build_send_1_0(
    message: Message, modes: tuple[str, ...], tenant: str, push_url: str = "", metadata: Mapping[str, Any] | None = None
) -> Any:
    configuration: dict[str, Any] = {"acceptedOutputModes": modes} if modes else {}
    if push_url:
        configuration |= {"taskPushNotificationConfig": {"url": push_url}, "returnImmediately": True}
    return _SendRequest(message, configuration or UNSET, tenant, metadata or None)


def _build_send_0_3(
    message: Message, modes: tuple[str, ...], _tenant: str, push_url: str = "", metadata: Mapping[str, Any] | None = None
) -> Any:
    configuration: dict[str, Any] = {"blocking": not push_url}  # optional in 0.3, and agents differ in the default
    if modes:
        configuration["acceptedOutputModes"] = modes
    if push_url:
        configuration["pushNotificationConfig"] = {"url": push_url}
    return {"message": v03.message_json(message), "configuration": configuration, **({"metadata": metadata} if metadata else {})}


V1: Final = Dialect(
    "1.0",
    "SendMessage",
    "SendStreamingMessage",
    "SubscribeToTask",
    "GetTask",
    "CancelTask",
    {"A2A-Version": "1.0"},
    _build_send_1_0,
)
V03: Final = Dialect("0.3", "message/send", "message/stream", "tasks/resubscribe", "tasks/get", "tasks/cancel", {}, _build_send_0_3)


def request_bytes(request_id: int, method: str, params: Any) -> bytes:
    """A JSON-RPC request as bytes; `method` is one of a Dialect."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}' % (request_id, method.encode(), encode(params))


class _SendAnswer(Struct):
    id: Any = None
    result: StreamResponse | UnsetType = UNSET
    error: Any = None


class _TaskAnswer(Struct):
    id: Any = None
    result: Task | UnsetType = UNSET
    error: Any = None


_UNTYPED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what a decoder raises for other types than its own
_decode_send: Final = msgspec.json.Decoder(_SendAnswer).decode
_decode_task: Final = msgspec.json.Decoder(_TaskAnswer).decode


def read_event(body: bytes, request_id: int) -> PeerEvent:
    """Reads the response to a send, or one event of a stream. Clean 1.0 is decoded by type, anything else by its shape.

    Raises PeerError for a JSON-RPC error, UpstreamFault for anything that is not a response to this request.
    """
    if len(body) > LARGE:
        check_size(body)
    try:
        answer = _decode_send(body)
    except _UNTYPED:
        return tolerant.read_event(_result_in(body, request_id))
    member = None if answer.error is not None or answer.result is UNSET else v1.clean_member(answer.result)
    if member is None:
        return tolerant.read_event(_result_in(body, request_id))
    _check_id(answer.id, request_id)
    return member


def read_task(body: bytes, request_id: int) -> Task:
    """Reads the response to GetTask and CancelTask. Raises as `read_event` does."""
    check_size(body)
    try:
        answer = _decode_task(body)
    except _UNTYPED:
        return tolerant.read_task(_result_in(body, request_id))
    if answer.error is not None or answer.result is UNSET or not v1.is_clean_task(answer.result):
        return tolerant.read_task(_result_in(body, request_id))
    _check_id(answer.id, request_id)
    return answer.result


def check_size(body: bytes) -> None:
    """Bounds the members of a large response before it is decoded. Raises InvalidAnswer."""
    if len(body) > LARGE:
        try:
            count_names(body)
        except BadJson as bad:
            raise InvalidAnswer("The agent's answer has too many parts", str(bad)) from None


def http_fault(status: int, body: bytes, challenge: str = "") -> UpstreamFault:
    """The fault for a status other than 200. Only a JSON-RPC code of the body is public. `challenge`: WWW-Authenticate."""
    if status == 401 or (status == 403 and challenge):
        return Challenged(status, challenge, public=f"The agent refused the gateway's credential (HTTP {status})")
    try:
        code = parse(body)["error"]["code"]
    except (BadJson, KeyError, TypeError, IndexError):
        code = None
    if type(code) is int:
        return _peer_error(code, f"HTTP {status}")
    if status == 403:
        return UpstreamFault(f"The agent refused the gateway's credential (HTTP {status})")
    return UpstreamFault(f"The agent answered with HTTP {status}")


def _peer_error(code: int, detail: str) -> PeerError:
    return PeerError(code, f"JSON-RPC error {code}", detail)


def _result_in(body: bytes, request_id: int) -> Any:
    """The `result` of a JSON-RPC response, decoded strictly. Raises PeerError and InvalidAnswer."""
    try:
        answer = parse(body)
    except BadJson as bad:
        raise InvalidAnswer("The agent did not answer in JSON", str(bad)) from None
    if not isinstance(answer, dict):
        raise InvalidAnswer(tolerant.NOT_A2A, "the answer is not an object")
    error = answer.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        raise _peer_error(code if type(code) is int else -32603, str(error)[:500])
    _check_id(answer.get("id"), request_id)
    if "result" not in answer:
        raise InvalidAnswer(tolerant.NOT_A2A, "the answer has neither result nor error")
    return answer["result"]


def _check_id(response_id: Any, request_id: int) -> None:
    """Raises InvalidAnswer unless the id is the request's; some agents return it as a string."""
    if not ((type(response_id) is int and response_id == request_id) or response_id == str(request_id)):
        raise InvalidAnswer("The agent answered another request", "the JSON-RPC id differs")
