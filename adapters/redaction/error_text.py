"""Filters an agent's error texts for callers: plain sentences pass; texts that reveal the agent's internals do not."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from adapters.contract import Canceled, Failed, Progress
from adapters.redaction.reserved_metadata import N, filter_metadata
from adapters.task import Message, Part, encode

TEXT_MAX: Final = 4_000  # characters; a longer error text is a dump
BYTES_MAX: Final = 12 << 10  # bytes of JSON that are examined in one failure
WITHHELD_SUFFIX: Final = "; the agent's own error text is only in the log"
DETAIL_MAX: Final = 2_000  # characters for the log
STACK_MAX: Final = 64 << 10  # characters that are searched for a stack trace
_SECRET: Final = re.compile(
    r"(?<![\w-])(?>[\w-]*?eyJ)[\w-]{8,}+\.[\w-]|\b(?i:bearer|basic)\s+(?=\S*(?:\d|[a-z][A-Z]))[\w.~+/=-]{8,}"
    r"|(?:^|[?&;#\s])(?i:[\w.-]{0,40}(?:token|secret|passw|pwd|signature|credential|(?:api|access|account|private)[_-]?key)[\w.-]{0,40}|sig)=\S"
    r"|[?&#]code=\S"
    r"|\b[spr]k[-_]\w[\w-]{15,}|\bgh[opsu]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{8,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
)
_CODE: Final = r"\.(?:pyc?|pyx|[cm]?js|[jt]sx|ts|java|kt|scala|go|rs|rb|php|cs|cc|cpp|hpp|[ch]|swift|exs?|clj|lua|pl|sh|sql|so|dll|jar)"
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PORT: Final = r"(?:80|443|1433|1521|2181|3306|5432|5672|6379|8000|8080|8443|9000|9092|9200|11211|27017|50051)"
_INTERNAL_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # stacks
        r"(?i)\btrace_?back\b|\b(?:stack|back) ?trace\b|\bcore dumped\b|\bpanicked at\b|\bgoroutine \d",
        rf'{_CODE}(?::\d|\(\d|["\'], line)|[/\\][\w.@-]+{_CODE}\b|\bFile "[^"\n]+", line \d|\bline \d+, in [\w<]',
        # places
        r"(?<![\w/)])/(?:[\w.@+~-]+/)+[\w.@+~-]*|(?<![\w/)])/(?:srv|home|usr|etc|var|opt|tmp|root|app|mnt|proc|sys|dev|lib|Users|Library)\b",
        r"~/[\w.]|\.\.?/\w|\b[A-Za-z]:\\|\b[A-Z]:/\w|\\\\[\w.-]+\\",
        # addresses
        r"[A-Za-z0-9+.-]://",
        rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b|(?<![\w:])(?:[0-9A-Fa-f]{{1,4}}:){{3,7}}[0-9A-Fa-f]{{1,4}}\b|\w::|::\w",
        r"(?i)\b(?:[a-z0-9-]{1,63}\.){1,12}[a-z][a-z0-9-]{0,62}:\d{2,5}\b|\b[a-z]\w{0,62}(?:-\w{1,62}){1,12}:\d{3,5}\b",
        rf"(?i)\b[a-z_]\w*:{_PORT}\b",
        r"(?i)\blocalhost\b|\w\.(?:internal|intranet|local|localdomain|lan|corp|svc|cluster|home\.arpa|amazonaws\.com)\b|\barn:aws",
        r"\b(?:ECONN[A-Z]+|ENOTFOUND|EAI_[A-Z]+|ETIMEDOUT|EACCES|ENOENT|EPERM|EPIPE|EHOSTUNREACH|getaddrinfo|Errno|errno|WinError|urlopen)\b",
        r"HTTPS?ConnectionPool|\bfor url\b|(?i:<!doctype html|<html\b)",
        # names in code
        r"\b[a-z_][a-z0-9_]+(?:\.[a-z_][a-z0-9_]+){1,12}\.[A-Z]\w|\b[A-Za-z_]\w*\.(?:[A-Z]\w*)?(?:Error|Exception|Fault|Warning|Interrupt)\b",
        r"(?<![\w$])[A-Za-z_$][\w$]*(?:\.[A-Za-z_$<][\w$>]*){1,12}\(",
        r"\b[A-Z]\w*Exceptions?\b|\b[A-Z]\w*Error\s?[:(\[{'\"]|\b[A-Z](?=\w*[a-z])\w*\$[A-Za-z_]",
        r"\b[a-z_]\w{2,}\.[A-Z][a-z0-9]+[A-Z]\w*(?!\w|\.\w)|\b[A-Z](?=\w*[a-z])\w+(?:\.[A-Z](?=\w*[a-z])\w+){2,}",
        r"<class '|<(?:function|module|bound method|coroutine)\b|\b0x[0-9a-fA-F]{6,16}\b",
        # databases
        r"(?s)\bSELECT\b(?:(?!\bSELECT\b).){1,400}?\bFROM\b|\bUPDATE\b(?:(?!\bUPDATE\b).){1,200}?\bSET\b",
        r"\b(?:INSERT INTO|DELETE FROM|(?:CREATE|ALTER|DROP) (?:TABLE|INDEX|VIEW))\b",
        r"(?is)\bselect\b(?:(?!\bselect\b).){1,400}?\bfrom\s+\S+\s+(?:where|limit|join|order\s+by|group\s+by)\b|\binsert\s+into\s+\S+\s*\(",
        r"(?is)\bupdate\s+\S+\s+set\s+\S+\s*=|\bdelete\s+from\s+\S+\s+where\b",
        r"(?i)\bSQLSTATE\b|\[SQL\b|\bORA-\d{5}|\brelation \"|\bno such (?:table|column)\b|\bconstraint failed\b",
        r"(?i)\bsyntax error at or near\b|\bviolates (?:\w+ ){1,3}constraint\b|\bpsycopg|\bsqlite3?\b|\bsqlalchemy\b",
        # secrets by their names
        r"(?i)\b\w*(?:passw(?:or)?d|pwd|secret|token|(?:api|access|account|private)[_-]?key|credential)s?[\"']?\s*[=:]\s*[\"']?\S",
    )
)
_FRAME_MARKS: Final = ("Traceback (", 'File "', "  at ", "\tat ", "goroutine ", "panicked at ")  # every stack trace has one of these
_STACK: Final = re.compile(  # of Python, the JVM, .NET, Node, Go, Rust
    r'^Traceback \(most recent call last\):|^[ \t]+File "[^"\n]+", line \d|^goroutine \d+ \[[^\]\n]*\]:|^thread \'[^\'\n]*\' panicked at '
    r"|^(?:[ ]{2}|\t)[ \t]*+at (?:(?=[^\s()]+\.)[^\s()]++\(|[^\n]{0,500}[^\d\s]:\d++:\d++\)?[ \t\r]*+$)",  # matched in linear time
    re.MULTILINE,
)
_SECRET_MEMBER: Final = re.compile(
    r"trace_?back|stack_?trace|back_?trace|^stack$|passw|pwd|secret|credential|(?:api|access|account|private)[_-]?key"
    r"|authorization|cookie|token$",
    re.IGNORECASE,
)
_PUBLIC_PAGE: Final = re.compile(r"https://((?:[a-z0-9-]+\.)+[a-z]{2,})(?!\.?[\w:@-])(?:[/?#][^\s\"'<>]*)?", re.IGNORECASE)
_PRIVATE_LABELS: Final = frozenset(
    (
        "api",
        "internal",
        "intranet",
        "local",
        "localhost",
        "localdomain",
        "lan",
        "corp",
        "svc",
        "cluster",
        "vpc",
        "staging",
        "db",
        "amazonaws",
    )
)


def reveals_internals(text: str, agent_url: str = "") -> bool:
    """Whether a text reveals files, code, hosts, databases or secrets. `agent_url`: the agent's URL, whose host also counts.

    Public pages (https, a public name, no port) are allowed. Returns True when in doubt.
    """
    if len(text) > TEXT_MAX or _SECRET.search(text):
        return True
    host = urlsplit(agent_url).hostname or ""
    if "." in host and re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", text, re.IGNORECASE):
        return True
    rest = _PUBLIC_PAGE.sub(_remove_public_page, text)
    return any(pattern.search(rest) for pattern in _INTERNAL_PATTERNS)


def has_stack_trace(text: str) -> bool:
    """Whether a text of several lines has a stack trace in its first STACK_MAX characters. Returns False when in doubt."""
    return "\n" in text and any(frame in text for frame in _FRAME_MARKS) and _STACK.search(text, 0, STACK_MAX) is not None


def filter_progress_text(progress: Progress) -> Progress:
    """A progress event for callers: a message with a stack trace is moved to the detail for the log."""
    message = progress.message
    if message is None:
        return progress
    texts = [part.text for part in message.parts if isinstance(part.text, str)]
    words = texts[0] if len(texts) == 1 else "\n".join(texts)
    return replace(progress, message=None, detail=words[:DETAIL_MAX]) if has_stack_trace(words) else progress


class ErrorTextFilter:
    """Filters the texts of one failure. `detail` collects what was withheld, for the log. Withholds everything after BYTES_MAX bytes."""

    def __init__(self, agent_url: str = "") -> None:
        self.detail = ""
        self._agent_url = agent_url
        self._bytes_left = BYTES_MAX

    def filter_message(self, message: Message) -> Message | None:
        """The message if all of its parts are safe, else None: single lines of a stack trace may look harmless.

        Examines the texts joined by lines and as one, since they may be split anywhere.
        """
        texts = [part.text for part in message.parts if isinstance(part.text, str)]
        more = [
            each for part in message.parts for each in (part.url, part.data, part.filename, _file_text(part)) if each and each is not UNSET
        ]
        if self._may_show(["\n".join(texts), more]) and (len(texts) < 2 or not reveals_internals(_join_texts(texts), self._agent_url)):
            return self.with_filtered_metadata(message)
        self._withhold(message.parts)
        return None

    def filter_metadata(self, metadata: Mapping[str, Any] | UnsetType) -> dict[str, Any] | UnsetType:
        """The safe members of metadata; the same object if all are safe."""
        if not isinstance(metadata, dict):
            return UNSET
        shown = {name: value for name, value in metadata.items() if self._may_show({name: value})}
        if len(shown) == len(metadata):
            return metadata
        self._withhold({name: value for name, value in metadata.items() if name not in shown})
        return shown or UNSET

    def with_filtered_metadata(self, value: N) -> N:
        """A message, artifact or part with only the safe members of its metadata and its parts' metadata."""
        return filter_metadata(value, self.filter_metadata)

    def _may_show(self, value: Any) -> bool:
        self._bytes_left -= len(encode(value)) + 1
        return self._bytes_left >= 0 and not _any_reveals_internals(value, self._agent_url)

    def _withhold(self, value: Any) -> None:
        if len(self.detail) < DETAIL_MAX:
            self.detail += encode(value)[: DETAIL_MAX - len(self.detail)].decode("utf-8", "replace")


def filter_failure(ending: Failed | Canceled, text_filter: ErrorTextFilter) -> Failed | Canceled:
    """An ending with only the safe texts and metadata of the agent; the rest goes to its detail.

    Returns an ending without anything unsafe unchanged.
    """
    message = ending.message and text_filter.filter_message(ending.message)
    metadata = (text_filter.filter_metadata(dict(ending.metadata)) or None) if ending.metadata else None
    unchanged = message is ending.message and metadata == (ending.metadata or None)
    if isinstance(ending, Canceled):
        return ending if unchanged else replace(ending, message=message, metadata=metadata)
    if unchanged and not text_filter.detail:
        return ending
    reason = ending.reason + WITHHELD_SUFFIX if ending.message and not message else ending.reason
    return replace(ending, message=message, reason=reason, metadata=metadata, detail=f"{ending.detail} {text_filter.detail}".strip())


def _join_texts(texts: list[str]) -> str:
    """The texts as one, with a space after each sentence."""
    return "".join(text + " " if text.endswith((".", "!", "?")) else text for text in texts)


def _file_text(part: Part) -> str:
    """The text of a file; empty if it is not text."""
    if not isinstance(part.raw, str):
        return ""
    try:
        return base64.b64decode(part.raw.replace("-", "+").replace("_", "/") + "==").decode()
    except (binascii.Error, ValueError):
        return ""


def _any_reveals_internals(value: Any, agent_url: str) -> bool:
    if isinstance(value, str):
        return reveals_internals(value, agent_url)
    if isinstance(value, Mapping):
        named = any(reveals_internals(name, agent_url) or (member and _SECRET_MEMBER.search(name)) for name, member in value.items())
        return named or any(_any_reveals_internals(member, agent_url) for member in value.values())
    return isinstance(value, list | tuple) and any(_any_reveals_internals(member, agent_url) for member in value)


def _remove_public_page(found: re.Match[str]) -> str:
    return found[0] if _PRIVATE_LABELS.intersection(found[1].lower().split(".")) else " "
