"""Records what one call sends to its upstream and gets back, for a person who tries it: bounded, and without its secrets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from adapters.redaction.secrets import MASK, SecretRedactor, parts_of_secret

EXCHANGES_MAX: Final = 20  # of one call
BODY_MAX: Final = 64 << 10  # bytes of each body that are shown
BODY_SPARE: Final = 32 << 10  # bytes beyond these that are kept, so that a secret at their end is found whole
OWN_SECRETS_MAX: Final = 50  # of a response; the body of one with more is not shown, since to search it would take long
HEADER_MAX: Final = 500  # characters of a value
SHOWN_HEADERS: Final = frozenset(  # whose values are no secrets; the values of all others are masked
    (
        *("accept", "accept-encoding", "content-type", "content-length", "content-encoding", "cache-control", "date", "server"),
        *("user-agent", "retry-after", "traceparent", "a2a-version", "a2a-extensions", "interlock-deadline", "interlock-trace-id"),
        *("mcp-protocol-version", "mcp-method", "mcp-name", "transfer-encoding", "connection", "vary", "idempotency-key"),
        *("x-accel-buffering", "x-content-type-options", "content-security-policy", "referrer-policy"),
    )
)


@dataclass(frozen=True, slots=True)
class RawMessage:
    """One side of an exchange. `text` is the beginning of the body, `size` its bytes."""

    headers: tuple[tuple[str, str], ...]
    text: str
    size: int

    @property
    def is_cut(self) -> bool:
        """Whether the body is longer than its text."""
        return self.size > BODY_MAX


@dataclass(frozen=True, slots=True)
class RawExchange:
    """A request to an upstream and what came back. `start` is its first line; `status` is 0 as long as no response has begun."""

    start: str
    request: RawMessage
    status: int
    response: RawMessage


class ExchangeRecord:
    """One exchange that is going on."""

    def __init__(self, start: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self._start = start
        self._request_headers = dict(headers)
        self._request_body = _KeptBody(body or b"")
        self._response_headers: dict[str, str] = {}
        self._response_body = _KeptBody(b"")
        self._status = 0
        self._shown: tuple[Sequence[str] | None, RawExchange] | None = None  # as it was shown last, with what was masked

    def begin_response(self, status: int, headers: Mapping[str, str]) -> None:
        """Notes the head of the response."""
        self._status, self._response_headers, self._shown = status, dict(headers), None

    def add_body(self, chunk: bytes) -> None:
        """Notes the next bytes of the response's body."""
        self._response_body.add(chunk)
        self._shown = None

    def secrets(self) -> Iterator[str]:
        """Yields what no exchange of the call may show: the values of headers of the request that are no plain ones, and their parts."""
        return _secrets_of(self._request_headers)

    def to_exchange(self, secrets: Sequence[str] | None) -> RawExchange:
        """Returns the exchange as it is now, with `secrets` and those of its response masked; with None only its headers are.

        A response has its own masked in itself alone: a client that sends them on has them in its next request.
        """
        if self._shown is None or self._shown[0] != secrets:
            self._shown = (secrets, self._masked(secrets))
        return self._shown[1]

    def _masked(self, secrets: Sequence[str] | None) -> RawExchange:
        own = () if secrets is None else list(islice(_secrets_of(self._response_headers), OWN_SECRETS_MAX + 1))
        redactor = SecretRedactor([*(secrets or ()), *own[:OWN_SECRETS_MAX]])
        request = self._request_body.to_message(self._request_headers, redactor)
        response = self._response_body.to_message(self._response_headers, redactor)
        if len(own) > OWN_SECRETS_MAX:
            response = replace(response, text=MASK.decode())
        return RawExchange(redactor.redact_text(self._start), request, self._status, response)


def _secrets_of(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() not in SHOWN_HEADERS:
            yield from parts_of_secret(name, value)


class ExchangeRecorder:
    """The exchanges of one call. After `close` nothing is recorded, and what was recorded is gone."""

    def __init__(self) -> None:
        self._records: list[ExchangeRecord] = []
        self._is_closed = False
        self.left_out = 0  # exchanges above the limit
        self.decision_id = ""  # the first one: others are of what the call has caused

    def begin(self, start: str, headers: Mapping[str, str], body: bytes | None) -> ExchangeRecord | None:
        """Records a request, such as `POST https://…`. Returns None where no more is recorded."""
        if self._is_closed or len(self._records) >= EXCHANGES_MAX:
            self.left_out += not self._is_closed
            return None
        record = ExchangeRecord(start, headers, body)
        self._records.append(record)
        return record

    def note_decision(self, decision_id: str) -> None:
        """Notes the decision that allowed the call."""
        self.decision_id = self.decision_id or decision_id

    def exchanges(self) -> list[RawExchange]:
        """Returns the exchanges as they are now. A secret of one request is masked in all."""
        secrets = list(dict.fromkeys(secret for record in self._records for secret in record.secrets()))
        return [record.to_exchange(secrets) for record in self._records]

    def close(self) -> None:
        """Ends the recording, also in tasks that the call has left behind."""
        self._is_closed = True
        self._records.clear()


class _KeptBody:
    """The beginning of a body, and its size."""

    def __init__(self, body: bytes) -> None:
        self._kept = bytearray()
        self._size = 0
        self.add(body)

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._kept += chunk[: max(0, BODY_MAX + BODY_SPARE - len(self._kept))]

    def to_message(self, headers: Mapping[str, str], redactor: SecretRedactor) -> RawMessage:
        text = redactor.redact_bytes(bytes(self._kept))[:BODY_MAX].decode("utf-8", "replace")
        return RawMessage(tuple(_shown_headers(headers.items(), redactor)), text, self._size)


def _shown_headers(headers: Iterable[tuple[str, str]], redactor: SecretRedactor) -> Iterator[tuple[str, str]]:
    """Yields headers by name and value, which may repeat the secret of another. Of a masked value with a scheme, the scheme is shown."""
    for name, value in headers:
        if name.lower() in SHOWN_HEADERS:
            yield name, redactor.redact_text(value)[:HEADER_MAX]
        else:
            scheme, _, rest = value.partition(" ")
            yield name, f"{scheme} {MASK.decode()}" if rest and scheme.lower() in ("bearer", "basic", "dpop") else MASK.decode()


# Of the call that a person tries; None for all others. `.get()` is what every request asks, so it is not behind a function.
CURRENT_RECORDER: Final[ContextVar[ExchangeRecorder | None]] = ContextVar("exchange_recorder", default=None)


@contextmanager
def recording_with(recorder: ExchangeRecorder) -> Iterator[None]:
    """Lets the calls that are made in this context, and in tasks that begin in it, be recorded."""
    token = CURRENT_RECORDER.set(recorder)
    try:
        yield
    finally:
        CURRENT_RECORDER.reset(token)


def note_decision(decision_id: str) -> None:
    """Records the decision that allowed the call, where somebody tries it."""
    recorder = CURRENT_RECORDER.get()
    if recorder is not None:
        recorder.note_decision(decision_id)


def begin_exchange(start: str, headers: Mapping[str, str], body: bytes | None) -> ExchangeRecord | None:
    """Records a request where somebody tries the call; None, at next to no cost, for every other call.

    Only requests that carry a call are recorded: others, such as those for tokens, have secrets in their bodies.
    """
    recorder = CURRENT_RECORDER.get()
    return None if recorder is None else recorder.begin(start, headers, body)
