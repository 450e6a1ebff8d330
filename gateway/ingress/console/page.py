"""What the pages of the console are made of: the request of a person, a page, and a way to another page."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.ingress.console.api import ApiClient, ApiRefusal, api_path, with_query
from gateway.ingress.console.attempts.requests import ProtocolClient
from gateway.ingress.console.sign_in.sessions import BrowserSession
from policies.callers import Caller
from policies.delegation.rulings import Act


class UnknownPage(Exception):
    """The console has no page at this path."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request of a person with a session. `names` are the variable segments of the path; `may` tells what the person could be allowed.

    `protocols` sends calls as the person. `spend` returns whether a form is sent for the first time, by its one-time text.
    """

    api: ApiClient
    caller: Caller
    session: BrowserSession
    path: str
    names: tuple[str, ...]
    query: Mapping[str, str]
    form: Mapping[str, str]
    may: Callable[[Act], bool]
    protocols: ProtocolClient
    spend: Callable[[str], Awaitable[bool]]

    @property
    def name(self) -> str:
        """The first variable segment of the path."""
        return self.names[0]

    @property
    def here(self) -> str:
        """The address of this page with its filters."""
        return with_query(self.path, self.query)

    def with_cursor(self, cursor: str) -> str:
        """Returns the address of the next page of this list."""
        return with_query(self.path, {**self.query, "cursor": cursor, "done": ""})


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its template, and what that shows.

    `api` is the address of its JSON twin. `command` does the same at the command line. `is_live`: the page renews itself. `status`: of
    the answer, where a form was refused and is shown again.
    """

    template: str
    title: str
    api: str
    command: tuple[str, ...]
    members: Mapping[str, Any] = field(default_factory=dict)
    is_live: bool = False
    status: int = 200
    posted: tuple[str, Any] | None = None  # the path and the body of a POST that answers the same as JSON


@dataclass(frozen=True, slots=True)
class GrowingPage:
    """A page that is not complete yet: each of `pages` is the whole page as it is then, the last one for good.

    `part` is the template of what grows. Scripts get that as a stream; without them a browser waits for the last page.
    """

    pages: AsyncGenerator[Page, None]
    part: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The answer to a form: another page, with a note of what was done."""

    path: str
    done: str = ""


Handler = Callable[[PageRequest], Awaitable[Page | GrowingPage | Elsewhere]]
DONE_TEXTS: Mapping[str, str] = {  # the notes that a page can show, so that no link can make it show others
    "approved": "Your approval is recorded.",
    "denied": "Your denial is recorded.",
    "answered": "Your answer is recorded; the run goes on.",
    "canceled": "The task was asked to stop.",
    "entry-approved": "Approved. It can be called now.",
    "refreshed": "Read again from its address.",
    "quarantined": "Quarantined. Nothing can call it until it is approved again.",
    "paused": "The run is paused.",
    "resumed": "The run goes on.",
    "started": "The run has started.",
    "registered": "Registered.",
    "suspended": "Suspended. Nothing can call it until it is resumed.",
    "entry-resumed": "It can be called again.",
    "ceiling-changed": "The ceiling is changed. It counts for the next call.",
    "entry-removed": "Removed. Nothing can call it any more.",
    "corrected": "Corrected. The former text stays in its history.",
    "forgotten": "Forgotten, with its history.",
    "erased": "All that was remembered of this person is erased.",
    "held": "What the agent wrote is held back. Nobody finds it until it is released.",
    "released": "What the agent wrote is found again.",
    "schedule-paused": "The schedule starts nothing until it is resumed.",
    "schedule-resumed": "The schedule goes on.",
    "letter-retried": "It is tried again, beginning with the first attempt.",
    "letter-dropped": "Dropped. It is neither sent nor started any more.",
    "session-ended": "The session is ended. Its client has to sign in again.",
    "browser-ended": "The browser is signed out.",
    "disconnected": "The account is removed. The service may still list Interlock as allowed.",
}
__all__ = ("ApiRefusal", "Elsewhere", "GrowingPage", "Handler", "Page", "PageRequest", "UnknownPage", "api_path", "with_query")
