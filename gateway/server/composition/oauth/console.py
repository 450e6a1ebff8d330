"""Lets people sign in to the console where they sign in for clients, and ties sessions of the console to sign-ins."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.ingress.http.error_rows.state import UnknownSignIn
from gateway.ingress.oauth.sign_in.clients.store import BROWSER, OWN_CLIENTS
from gateway.ingress.oauth.sign_in.sessions import SECOND_US, Session, SignedInPerson
from gateway.server.composition.oauth.sign_in import FindSignIn, SignInServer
from gateway.storage.database import Batch
from policies.delegation.chain import Principal

PAGE_NAME = "console"
PURPOSE_TEXT = "You open the console of this gateway. It shows and does what you may see and do yourself."


@dataclass(frozen=True, slots=True)
class ConsoleSignIns:
    """The sign-ins that sessions of the console belong to. `find_sign_in` returns None where nobody signs in at the gateway."""

    find_sign_in: FindSignIn
    public_url: str

    async def find_person(self, tenant: str, session_id: str) -> tuple[Principal, float] | None:
        """The person of a sign-in that lasts, and until when their roles count; None where it has ended. Raises SignInNotRenewed."""
        sign_in = self.find_sign_in()
        return None if sign_in is None else await sign_in.renewal.find_person(tenant, session_id)

    async def end_browser_session(self, tenant: str, session_id: str) -> None:
        """Ends a sign-in that no client has but a browser."""
        if (sign_in := self.find_sign_in()) is not None:
            await sign_in.renewal.end_browser_session(tenant, session_id)

    def begin(self, request: Request, to: str) -> Response:
        """The page where a person signs in, who then comes back to the path `to`."""
        return self._sign_in.flow.begin_page(request, PAGE_NAME, to, PURPOSE_TEXT)

    def open(self, person: SignedInPerson, seconds: float) -> tuple[Session, Callable[[Batch], None]]:
        """A session of a browser, of at most so many seconds, and what stores it."""
        sessions = self._sign_in.sessions
        session = sessions.new_session(person, BROWSER, OWN_CLIENTS[BROWSER].name, self.public_url, "*")
        session = replace(session, until=min(session.until, session.created + int(seconds * SECOND_US)))
        return session, lambda batch: sessions.open(batch, session)

    @property
    def _sign_in(self) -> SignInServer:
        if (sign_in := self.find_sign_in()) is None:
            raise UnknownSignIn
        return sign_in
