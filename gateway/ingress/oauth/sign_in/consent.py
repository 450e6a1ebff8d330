"""The page where a person consents and chooses how to sign in. It comes before the provider, and is bound to one browser by a cookie."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.ingress.oauth.pages import definitions_html, escape, html_page
from gateway.ingress.oauth.sign_in.providers.logins import Provider
from gateway.ingress.oauth.sign_in.requests import Purpose
from gateway.ingress.oauth.sign_in.scopes import describe_scope
from policies.ids import new_id
from policies.keys.signing import NotSignedByUs, SigningKeys

CONSENT_SECONDS: Final = 600
CONSENT_TYPE: Final = "interlock-sign-in+jwt"  # never the type of an access token
COOKIE_LENGTH: Final = 43
_KIND_NOTES: Final = {
    "dynamic": "This client registered itself, and nobody has checked its name. Continue only if you have just started it.",
    "document": "The name is the client's own. Its description comes from the host that is shown.",
    "device": "Continue only if you have just started this command yourself, and the page shows the same code.",
}


class ConsentExpired(Exception):
    """The page is too old, was used before, or belongs to another browser."""


@dataclass(frozen=True, slots=True)
class OpenConsent:
    """A consent that a person has just given or refused. `id` is used once, until `not_after` (seconds since 1970)."""

    id: str
    not_after: float
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class LoginChoices:
    """How people may sign in: at providers, and as development users."""

    providers: Mapping[str, Provider]
    development_users: Sequence[str]


class ConsentPages:
    """Shows consent pages and reads their forms. The form carries what was shown, signed, so that nothing is stored before a login."""

    def __init__(self, keys: SigningKeys, choices: LoginChoices, public_url: str) -> None:
        self._keys = keys
        self._choices = choices
        self._is_https = public_url.startswith("https://")
        self.cookie_name = f"{'__Host-' if self._is_https else ''}interlock-sign-in"

    def show(self, request: Request, purpose: Purpose) -> Response:
        """The page. The browser keeps its cookie from page to page, so that several tabs do not disturb each other."""
        cookie = self.cookie_of(request) or secrets.token_urlsafe(32)
        now = int(self._keys.now())
        claims = {"jti": new_id("c"), "browser": _digest(cookie), "exp": now + CONSENT_SECONDS, "purpose": msgspec.to_builtins(purpose)}
        form = _form_html(
            self._keys.sign(claims, CONSENT_TYPE),
            self._choices,
            *(("Sign in", "Cancel") if purpose.kind == "page" else ("Allow", "Refuse")),
        )
        shown = html_page(*_describe(purpose, form))
        shown.set_cookie(self.cookie_name, cookie, CONSENT_SECONDS, secure=self._is_https, httponly=True, samesite="lax")
        return shown

    def cookie_of(self, request: Request) -> str:
        """The cookie of the browser; "" without a usable one."""
        cookie = request.cookies.get(self.cookie_name, "")
        return cookie if len(cookie) == COOKIE_LENGTH and cookie.isascii() else ""

    def read(self, request: Request, form: Mapping[str, str]) -> OpenConsent:
        """The consent of a form, in the browser that it was shown in. Raises ConsentExpired."""
        try:
            claims: Mapping[str, Any] = self._keys.verify(form.get("request", ""), CONSENT_TYPE)
            purpose = msgspec.convert(claims["purpose"], Purpose)
        except (NotSignedByUs, KeyError, msgspec.ValidationError):
            raise ConsentExpired from None
        is_same = hmac.compare_digest(str(claims["browser"]), _digest(self.cookie_of(request)))
        if not is_same or claims["exp"] <= self._keys.now():
            raise ConsentExpired
        return OpenConsent(claims["jti"], float(claims["exp"]), purpose)

    @property
    def development_users(self) -> Sequence[str]:
        return self._choices.development_users


def expired_page() -> HTMLResponse:
    """The answer to a consent or login that can't be continued."""
    text = "<p>This page has expired, was used before, or belongs to another browser. Begin again in the program that led you here.</p>"
    return html_page("Begin again", text, 400)


def _describe(purpose: Purpose, form: str) -> tuple[str, str]:
    """The title and the body of the page."""
    if purpose.kind == "page":
        return "Sign in", f"<p>{escape(purpose.client_name)}</p>{form}"
    facts = {"Client": purpose.client_name}
    if purpose.client_host:
        facts["Described by"] = purpose.client_host
    facts["Your answer goes to"] = purpose.place
    facts["It gets access to"] = purpose.resource
    wanted = "".join(f"<li>{escape(line)}</li>" for line in describe_scope(purpose.scope))
    note = _KIND_NOTES.get("device" if purpose.kind == "device" else purpose.client_kind, "")
    return (
        "Allow this client?",
        f"<p>A client asks to act in your name at this gateway.</p>{definitions_html(facts)}<p>It asks to:</p><ul>{wanted}</ul>"
        f"<p>It can never do more than you may do yourself. {escape(note)}</p>{form}",
    )


def _form_html(signed: str, choices: LoginChoices, verb: str, refusal: str) -> str:
    """The form: a button for each provider, the development users, and the refusal."""
    users = "".join(
        f'<label><input type="radio" name="user" value="{escape(user)}"{" checked" if at == 0 else ""}> {escape(user)}</label>'
        for at, user in enumerate(choices.development_users)
    )
    development = f"<fieldset><legend>Development user</legend>{users}</fieldset>" if users else ""
    buttons = f'<button name="login" value="development">{verb}</button>' if users else ""
    for provider in choices.providers.values():
        buttons += f'<button name="login" value="provider {escape(provider.name)}">{verb}: continue to {escape(provider.label)}</button>'
    return (
        f'<form method="post" action="/oauth/consent"><input type="hidden" name="request" value="{escape(signed)}">'
        f'{development}{buttons}<button name="login" value="refused">{refusal}</button></form>'
    )


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
