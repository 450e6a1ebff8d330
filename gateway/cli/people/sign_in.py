"""login, logout, whoami: signs the person in at a gateway by a code that they type in a browser (RFC 8628)."""

import os
import time
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, CommandRefused, WrongUsage
from gateway.cli.http_client import DEFAULT_URL, connect
from gateway.cli.tokens.sessions import CLIENT_ID, LOGIN_TODO, post_form, read_session, session_from, sessions_path, write_session

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_SECONDS = 5  # RFC 8628 s3.5
REFUSALS = {
    "access_denied": "the sign-in was refused in the browser",
    "expired_token": "nobody signed in while the code was valid",
}


def register(app: typer.Typer) -> None:
    for command in (login, logout, whoami):
        app.command()(command)


def login(
    scope: Annotated[str, typer.Option(help='What the commands may do, as permissions such as "agent:* tool:crm.*".')] = "*",
) -> None:
    """Sign in at the gateway in a browser. Later commands use the session where INTERLOCK_TOKEN is not set."""
    url = _gateway_url()
    begun = post_form(url, "/oauth/device", {"client_id": CLIENT_ID, "scope": scope, "resource": _issuer_of(url)})
    if begun.status_code != 200:
        raise CommandFailed(f"the gateway at {url} begins no sign-in: {_error_of(begun)}", "set INTERLOCK_TOKEN instead")
    device = begun.json()
    screen.print_text(f"Open {device['verification_uri']} and enter the code {device['user_code']}")
    screen.print_note(f"or open {device['verification_uri_complete']}")
    session = session_from(_poll(url, device))
    write_session(url, session)
    screen.print_note(f"the session is stored in {sessions_path()}")
    person = _who(url)
    screen.print_text(f"signed in as {person['subject']}")


def logout() -> None:
    """End the session of the command line at the gateway, and delete its tokens."""
    url = _gateway_url()
    session = read_session(url)
    if session is None:
        screen.print_text(f"you are not signed in at {url}")
        return
    write_session(url, None)
    answer = post_form(url, "/oauth/revoke", {"token": session.refresh_token, "client_id": CLIENT_ID})
    if answer.status_code != 200:
        raise CommandFailed(f"the tokens are deleted here, but the gateway did not end the session: {_error_of(answer)}")
    screen.print_text(f"signed out of {url}")


def whoami(as_json: screen.AsJson = False) -> None:
    """Show your name at the gateway, and what your token may be used for."""
    with connect() as remote:
        person = remote.get("/api/whoami")
    if as_json:
        screen.print_json(person)
        return
    lists = {name: " ".join(person[name]) for name in ("roles", "scope")}
    screen.print_fields(
        [
            ("person", person["subject"]),
            ("tenant", person["tenant"]),
            ("provider", person["issuer"]),
            ("roles", lists["roles"]),
            ("scope", lists["scope"]),
            ("client", person["client_id"]),
            ("token ends", screen.format_time(person["expires"] or "")),
        ]
    )


def _poll(url: str, device: dict[str, Any]) -> dict[str, Any]:
    """The tokens, once the person has signed in. Raises CommandRefused and CommandFailed."""
    interval = float(device.get("interval", SLOWER_SECONDS))
    form = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": CLIENT_ID}
    with screen.show_progress("waiting until you have signed in…"):
        while True:
            answer = post_form(url, "/oauth/token", form)
            if answer.status_code == 200:
                return dict(answer.json())
            error = _error_of(answer)
            if error in REFUSALS:
                raise CommandRefused(REFUSALS[error], LOGIN_TODO)
            if error not in ("authorization_pending", "slow_down", "temporarily_unavailable"):
                raise CommandFailed(f"the sign-in failed: {error}", LOGIN_TODO)
            interval += SLOWER_SECONDS if error == "slow_down" else 0
            time.sleep(interval)


def _issuer_of(url: str) -> str:
    """The gateway's own name for itself, which its tokens are for. Raises CommandFailed."""
    with connect(with_token=False) as remote:
        metadata = remote.get("/.well-known/oauth-authorization-server")
    if "device_authorization_endpoint" not in metadata:
        raise CommandFailed(f"nobody can sign in at {url}: it has no sign_in.providers", "set INTERLOCK_TOKEN instead")
    return str(metadata["issuer"])


def _who(url: str) -> dict[str, Any]:
    """What the gateway says about the person of the stored session."""
    with connect(use_variable=False) as remote:
        return dict(remote.get("/api/whoami"))


def _error_of(answer: Any) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


def _gateway_url() -> str:
    url = os.environ.get("INTERLOCK_URL") or DEFAULT_URL
    if not url.startswith(("http://", "https://")):
        raise WrongUsage(f"INTERLOCK_URL is {url!r}, not an http or https address", f"for example: export INTERLOCK_URL={DEFAULT_URL}")
    return url.rstrip("/")
