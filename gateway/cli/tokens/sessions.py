"""The sessions of the command line: a file that only its owner can read, with the tokens of each gateway that the person signed in at."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.exit_codes import CommandFailed, CommandRefused, GatewayUnreachable
from gateway.cli.tokens.authorities import trusted_authorities

if TYPE_CHECKING:
    import httpx

CLIENT_ID = "interlock-cli"
EARLY_SECONDS = 30.0  # a token is refreshed this long before its end
LOGIN_TODO = "sign in: interlock login"


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The tokens of one gateway. `expires` is when the access token expires, in seconds since 1970."""

    access_token: str
    refresh_token: str
    expires: float


def sessions_path() -> Path:
    """The file: `interlock/sessions.json` in the folder for configuration (XDG base directories)."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "interlock" / "sessions.json"


def find_token(url: str) -> str:
    """A valid access token for the gateway at `url`, refreshed where it ends soon; "" where the person is not signed in there.

    Raises CommandRefused where the session is over.
    """
    found = read_session(url)
    if found is None:
        return ""
    if found.expires - EARLY_SECONDS > time.time():
        return found.access_token
    with _lock():  # a refresh token is used once: another command may have refreshed meanwhile
        newer = read_session(url)
        if newer is None or newer.expires - EARLY_SECONDS > time.time():
            return newer.access_token if newer else ""
        return _refresh(url, newer).access_token


def read_session(url: str) -> StoredSession | None:
    """The stored session of a gateway; None without a usable one."""
    entry = _read_all().get(_key_of(url))
    try:
        return StoredSession(str(entry["access_token"]), str(entry["refresh_token"]), float(entry["expires"])) if entry else None
    except (KeyError, TypeError, ValueError):
        return None


def write_session(url: str, session: StoredSession | None) -> None:
    """Stores the session of a gateway, or deletes it. The file is replaced as a whole, and readable by its owner only."""
    path = sessions_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sessions = {key: entry for key, entry in _read_all().items() if key != _key_of(url)}
    if session is not None:
        sessions[_key_of(url)] = asdict(session)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(sessions, indent=1))
    fresh.replace(path)


def session_from(answer: dict[str, Any]) -> StoredSession:
    """The session of an answer of the token endpoint."""
    return StoredSession(answer["access_token"], answer.get("refresh_token", ""), time.time() + float(answer["expires_in"]))


def post_form(url: str, path: str, form: dict[str, str]) -> "httpx.Response":
    """Posts a form to the gateway. Raises GatewayUnreachable."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=30, verify=trusted_authorities(url), trust_env=False, follow_redirects=False) as client:
            return client.post(path, data=form)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise GatewayUnreachable(
            f"the gateway at {url} does not answer", "is the gateway running? start it with: interlock serve"
        ) from error


def _refresh(url: str, session: StoredSession) -> StoredSession:
    """Refreshes and stores a session. Raises CommandRefused where it is over, and CommandFailed where it can't be refreshed now."""
    form = {"grant_type": "refresh_token", "refresh_token": session.refresh_token, "client_id": CLIENT_ID}
    answer = post_form(url, "/oauth/token", form)
    if answer.status_code in (400, 401):
        write_session(url, None)
        raise CommandRefused(f"your session at {url} is over", LOGIN_TODO)
    if answer.status_code != 200:
        raise CommandFailed(f"your session at {url} can't be refreshed now: HTTP {answer.status_code}", "try again in a moment")
    fresh = session_from(answer.json())
    write_session(url, fresh)
    return fresh


def _read_all() -> dict[str, Any]:
    try:
        found = json.loads(sessions_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key_of(url: str) -> str:
    return url.rstrip("/")


@contextmanager
def _lock() -> Iterator[None]:
    """Lets one command at a time refresh."""
    descriptor = os.open(sessions_path().with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
