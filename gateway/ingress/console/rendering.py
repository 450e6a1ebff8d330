"""Renders pages: templates of this package, escaped throughout, with hidden characters marked, and the headers of every answer."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from gateway.ingress.console.drawings.bars import draw_bars
from gateway.ingress.console.drawings.waterfall import draw_waterfall
from gateway.ingress.console.texts.foreign_text import BLOCK_MAX, shown_text
from gateway.ingress.console.texts.wording import (
    CHIP_KINDS,
    format_cost,
    format_duration,
    format_moment,
    format_state,
    person_name,
    shell_command,
)
from gateway.ingress.http.asgi import Header

CONTENT_SECURITY_POLICY: Final = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
PAGE_HEADERS: Final[tuple[Header, ...]] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),  # with no-referrer the Origin of a form would be null
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_MEDIA_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
CONNECT_PATH: Final = "/connect"
INDENTED_MAX: Final = 256_000  # characters of JSON that is indented
INDENTED_DEPTH: Final = 40
_NO_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\[\s\S])*+"?|[^][{}"]+')  # strings, also one that does not end
_FOLDER = files("gateway.ingress.console")


class StaticFiles:
    """The files that pages load. Their address changes with their content, so that browsers keep them."""

    def __init__(self) -> None:
        found = [entry for entry in _FOLDER.joinpath("static").iterdir() if entry.name.rpartition(".")[2] in _MEDIA_TYPES]
        self._contents = {entry.name: entry.read_bytes() for entry in found}
        self.version = hashlib.sha256(b"".join(self._contents[name] for name in sorted(self._contents))).hexdigest()[:12]

    def url(self, name: str) -> str:
        """Returns the address of a file."""
        return f"/console/static/{self.version}/{name}"

    def find(self, name: str) -> tuple[bytes, bytes] | None:
        """Returns the content and the media type of a file, or None."""
        content = self._contents.get(name)
        return None if content is None else (content, _MEDIA_TYPES[name.rpartition(".")[2]].encode())


class _PageEnvironment(Environment):
    """Templates of the console: escaped throughout, and strict about names that do not exist."""

    def __init__(self, more_globals: Mapping[str, Any], more_filters: Mapping[str, Any]) -> None:
        super().__init__(
            loader=FunctionLoader(_read_template),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.globals |= more_globals
        self.filters |= more_filters


class PageRenderer:
    """Renders templates. `now` returns seconds since 1970. `public_url` is where the pages of the gateway are."""

    def __init__(self, now: Any, static: StaticFiles, public_url: str) -> None:
        self._now = now
        self._connect_url = f"{public_url}{CONNECT_PATH}"
        self._environment = _PageEnvironment(
            {"static": static.url, "chip_kinds": CHIP_KINDS, "shell": shell_command},
            {
                "ago": self._ago,
                "moment": format_moment,
                "state": format_state,
                "duration": format_duration,
                "cost": format_cost,
                "person": person_name,
                "json": _format_json,
                "pretty": _format_body,
                "by_name": _by_name,
                "plain_option": _plain_option,
                "connect_path": self._connect_path,
                "waterfall": draw_waterfall,
                "bars": draw_bars,
            },
        )

    def render(self, template: str, members: Mapping[str, Any]) -> bytes:
        """Returns a page."""
        return self._environment.get_template(template).render(members).encode("utf-8", "replace")

    def _connect_path(self, url: object) -> str:
        """Returns the path of the gateway's page where a person connects an account; empty for any other address."""
        if not isinstance(url, str) or not url.startswith(self._connect_url) or ".." in url:
            return ""
        return CONNECT_PATH + url.removeprefix(self._connect_url)[:500]

    def _ago(self, text: str | None) -> str:
        """Returns how long ago a moment was, or how long it is until then."""
        if not text:
            return "never"
        seconds = self._now() - datetime.fromisoformat(text).timestamp()
        words = _in_words(abs(seconds))
        if words == "now":
            return "just now"
        return f"{words} ago" if seconds > 0 else f"in {words}"


def _in_words(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now" if seconds < 5 else f"{seconds:.0f} s"


def _read_template(name: str) -> str:
    return _FOLDER.joinpath("templates", name).read_text()


def _finalize(value: object) -> object:
    """Makes each value that a template prints a text that can be shown; what the templates themselves wrote stays."""
    if value is None:
        return ""
    return value if isinstance(value, Markup | int | float) else shown_text(value, BLOCK_MAX)


def _format_json(value: object) -> str:
    try:
        return shown_text(indent_json(json.dumps(value, ensure_ascii=False)), BLOCK_MAX)
    except RecursionError:
        return "⟦nested too deeply to be shown⟧"


def _format_body(text: str) -> str:
    """Returns a body with indented JSON; any other text as it is."""
    return shown_text(indent_json(text), BLOCK_MAX) if text else text


def indent_json(text: str) -> str:
    """Returns JSON with a line for each member. What is long, deep or no JSON stays as it is: its indents would be longer than itself."""
    if len(text) > INDENTED_MAX or _is_deep(text):
        return text
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def _is_deep(text: str) -> bool:
    """Whether the brackets of a text are nested deeper than INDENTED_DEPTH; brackets within strings do not count."""
    brackets = _NO_BRACKETS.sub("", text)
    for _ in range(INDENTED_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace("[]", "").replace("{}", "")
    return bool(brackets)


def _by_name(items: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {item["name"]: item for item in items}


def _plain_option(text: str) -> str:
    """Returns an option, which is a JSON text, as people read it: a string without its quotes."""
    value = json.loads(text)
    return value if isinstance(value, str) else text


def moment_text(seconds: float) -> str:
    """Returns seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def page_headers(extra: Iterable[Header] = ()) -> list[Header]:
    """Returns the headers of a page, which no cache stores."""
    return [*PAGE_HEADERS, (b"cache-control", b"no-store"), *extra]
