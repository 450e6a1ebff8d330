"""Logs: one JSON object per line on stderr, with the trace id, without secrets and without control characters."""

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

VALUE_MAX: Final = 2048  # characters of one value
MEMBERS_MAX: Final = 50  # members of one nested value
DEPTH_MAX: Final = 4
HIDDEN: Final = "[hidden]"
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

SECRET_NAME = re.compile(
    r"authorization|bearer|cookie|credential|passw|private_key|secret|token(?!_id$|s$)|api_?key|assertion$|ticket$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?<![\w-])((?>[\w-]*?(?=eyJ)))eyJ[\w-]{8,}+\.[\w-]+(?:\.[\w-]*)?"  # a JWT, signed or cut short; the text before it stays
    r"|\b(?:bearer|basic)\s+[\w.~+/=-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password in a URL
    r"|(?i:(?<=[?&;\s])(?:access_token|client_secret|code|password|sig|token)=)[^&\s]+",
    re.IGNORECASE,
)

Event = MutableMapping[str, Any]
TraceId = Callable[[], str]
Forward = Callable[[Mapping[str, object]], object]


def hide_secret_texts(text: str) -> str:
    """Returns the text without what looks like a token, and without passwords in URLs."""
    return _SECRET_TEXT.sub(rf"\1{HIDDEN}", text)


def _redact_text(text: str) -> str:
    """Returns the text without secrets, cut to VALUE_MAX characters."""
    shown = hide_secret_texts(text if len(text) <= 2 * VALUE_MAX else text[: 2 * VALUE_MAX])
    return shown if len(text) <= VALUE_MAX else f"{shown[:VALUE_MAX]}… ({len(text)} characters)"


def _to_bounded_json(value: object, depth: int = 0) -> object:
    """Returns the value as plain JSON with redacted strings and bounded size. Values of members with secret names are hidden."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _redact_text(value)
    if depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, Mapping):
        members = list(value.items())[:MEMBERS_MAX]
        return {
            _redact_text(str(name)): HIDDEN if SECRET_NAME.search(str(name)) else _to_bounded_json(member, depth + 1)
            for name, member in members
        }
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [_to_bounded_json(member, depth + 1) for member in list(value)[:MEMBERS_MAX]]
    return _redact_text(str(value))


def _describe_exception(info: object) -> dict[str, str]:
    """Returns class, message and traceback of an exception, without the values of variables."""
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    where = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return {"error": type(error).__name__, "message": _redact_text(str(error)), "where": where}


def describe_line(event: Event, trace_id: str) -> dict[str, object]:
    """Returns the members of one line: bounded, and without secrets."""
    shown: dict[str, object] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    if trace_id:
        shown["trace_id"] = trace_id
    info = event.pop("exc_info", None)
    for name, value in event.items():
        shown[name] = (
            HIDDEN if SECRET_NAME.search(name) and isinstance(value, str | bytes | Mapping | Sequence) else _to_bounded_json(value)
        )
    if info:
        shown["exception"] = _describe_exception(info)
    return shown


def json_line(shown: Mapping[str, object]) -> str:
    """Returns one line of JSON in ASCII: line breaks, terminal escapes and bidirectional marks become \\u…."""
    return json.dumps(shown, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


class _LibraryLogHandler(logging.Handler):
    """Writes log records of libraries, such as uvicorn, in the gateway's format."""

    def __init__(self, stream: TextIO, trace_id: TraceId, forward: Forward, process: Mapping[str, int]) -> None:
        super().__init__()
        self._process = process
        self._stream = stream
        self._trace_id = trace_id
        self._forward = forward

    def emit(self, record: logging.LogRecord) -> None:
        event: Event = {"level": record.levelname.lower(), "logger": record.name, "event": record.getMessage(), **self._process}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        shown = describe_line(event, self._trace_id())
        self._stream.write(json_line(shown) + "\n")
        self._stream.flush()
        self._forward(shown)


def _is_news(record: logging.LogRecord) -> bool:
    """False for what uvicorn logs of a request that it can't parse: the gateway's own `request_refused` says why."""
    return record.msg != "Invalid HTTP request received."


def configure_logging(
    level: str, trace_id: TraceId = str, stream: TextIO | None = None, forward: Forward = lambda shown: None, *, pid: int = 0
) -> None:
    """Sends log lines from `level` on to `stream` (default stderr): the gateway's own, and warnings and errors of libraries.

    `forward` gets the members of each line too. With `pid`, each line has it: the process is one of several that write to the stream.
    """
    sink, process = stream or sys.stderr, {"pid": pid} if pid else {}

    def render(logger: object, method: str, event: Event) -> str:
        name = event.pop("event", "")
        shown = describe_line({"level": "error" if method == "exception" else method, "event": name, **process, **event}, trace_id())
        forward(shown)
        return json_line(shown)

    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryLogHandler(sink, trace_id, forward, process)]
    root.setLevel(max(LEVELS[level], logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = name != "uvicorn.access"
        library.addFilter(_is_news)
        library.setLevel(logging.NOTSET if name != "uvicorn.access" else logging.CRITICAL)
