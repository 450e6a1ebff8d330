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
:root{color-scheme:light dark;--ground:#f6f7f9;--paper:#fff;--ink:#1a2130;--soft:#565f70;--line:#8a93a3;--edge:#dfe3ea;
--accent:#2450c4;--on-accent:#fff;font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
@media(prefers-color-scheme:dark){:root{
--ground:#10141b;--paper:#181d26;--ink:#e7eaf0;--soft:#a5aebd;--line:#6d788a;--edge:#2b3340;--accent:#8fb0ff;--on-accent:#0c1530}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink)}
main{max-width:36rem;margin:9vh auto;padding:2rem;background:var(--paper);border:1px solid var(--edge);
border-radius:12px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}a{color:var(--accent)}small{color:var(--soft)}
dt{color:var(--soft);font-size:.85rem}dd{margin:0 0 .6rem;font-weight:600;overflow-wrap:anywhere}label{display:block;padding:.15rem 0}
fieldset{margin:0 0 1rem;border:1px solid var(--line);border-radius:8px}legend{color:var(--soft);font-size:.85rem;padding:0 .35rem}
input,button{font:inherit;color:inherit}input[type=radio]{accent-color:var(--accent)}
input:not([type=radio]){width:100%;margin:.3rem 0 1rem;padding:.4rem .6rem;
background:var(--paper);border:1px solid var(--line);border-radius:6px}
button{margin:0 .5rem .5rem 0;padding:.4rem 1rem;background:var(--paper);border:1px solid var(--line);border-radius:8px;cursor:pointer}
button:first-of-type{background:var(--accent);border-color:var(--accent);color:var(--on-accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media(max-width:600px){main{margin:0;border:0;border-radius:0;min-height:100vh;padding:1.5rem 1.1rem}}
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
