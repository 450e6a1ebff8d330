"""Pages for people: plain HTML made by the server, without scripts, that no other page can frame."""

import base64
import hashlib
import html
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from starlette.responses import HTMLResponse

from gateway.telemetry.spans import current_trace_id

_STYLE: Final = """
body{font:1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}
dt{font-weight:600}dd{margin:0 0 .5rem;overflow-wrap:anywhere}input:not([type=radio]){width:100%;font:inherit}a,button{font:inherit}
fieldset{margin:0 0 1rem}button{margin:0 .5rem .5rem 0;padding:.4rem 1rem}label{display:block}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "same-origin",  # with no-referrer the form's Origin would be null
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
_LEAVING_HEADERS: Final = {**PAGE_HEADERS, "referrer-policy": "no-referrer", "cross-origin-opener-policy": "unsafe-none"}
_TEMPLATE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">{head}
<title>{title} - Interlock</title><style>{style}</style><main><h1>{title}</h1>{body}</main></html>"""


def escape(text: str) -> str:
    """Escapes a text for HTML, in and outside of attributes."""
    return html.escape(text, quote=True)


def sentence_html(text: str) -> str:
    """A message as a paragraph, which begins with a capital letter and ends with a full stop."""
    return f"<p>{escape(text[:1].upper() + text[1:])}.</p>"


def html_page(title: str, body: str, status: int = 200) -> HTMLResponse:
    """A page. `body` is HTML; an error page names its trace."""
    if status >= 400 and (trace_id := current_trace_id()):
        body += f"<p><small>Trace {trace_id}</small></p>"
    return HTMLResponse(_TEMPLATE.format(title=escape(title), body=body, head="", style=_STYLE), status, PAGE_HEADERS)


def leaving_page(title: str, url: str, place: str) -> HTMLResponse:
    """A page that takes the person to `url`, with a link for browsers that do not follow.

    A redirect would not do: Chromium applies `form-action` to the redirect after a form too.
    """
    head = f'<meta http-equiv="refresh" content="0;url={escape(url)}">'
    body = f'<p><a href="{escape(url)}" rel="noreferrer">Continue to {escape(place)}</a></p>'
    return HTMLResponse(_TEMPLATE.format(title=escape(title), body=body, head=head, style=_STYLE), 200, _LEAVING_HEADERS)


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with more query parameters; empty ones are left out."""
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}{urlencode({name: value for name, value in parameters.items() if value})}"


def definitions_html(facts: Mapping[str, str]) -> str:
    """A list of names and texts."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"
