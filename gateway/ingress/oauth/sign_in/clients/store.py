"""Clients that people sign in with: the gateway's own, those of the operator, those that registered themselves, and metadata documents."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec
from sqlalchemy import select

from gateway.ingress.oauth.sign_in.clients.redirects import BadRedirect, parse_redirect
from gateway.ingress.oauth.sign_in.tables import sign_in_clients as table
from gateway.storage.database import Batch, Database
from policies.ids import new_id

COMMAND_LINE: Final = "interlock-cli"
BROWSER: Final = "interlock-browser"  # the gateway's own pages
DOCUMENT_PREFIX: Final = "https://"  # of a client id that is the URL of a metadata document
AGENT_PREFIX: Final = "client_"  # of the ids that the registry gives to agents
NAME_MAX: Final = 80  # characters
REDIRECTS_MAX: Final = 20
UNUSED_US: Final = 3_600_000_000  # a registration that nobody signs in with is kept for an hour
AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - a name
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS: Final = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
_INSERT: Final = "INSERT INTO sign_in_clients (id, name, redirect_uris, grants, used, until) VALUES (?, ?, ?, ?, 0, ?)"
_DELETE_EXPIRED: Final = "DELETE FROM sign_in_clients WHERE until < ?"
_DELETE_SURPLUS: Final = (  # those that were used are never displaced by those that were not
    "DELETE FROM sign_in_clients WHERE id IN (SELECT id FROM sign_in_clients WHERE used = 0 ORDER BY until LIMIT ?)"
)

ClientKind = Literal["own", "operator", "dynamic", "document"]


class UnknownClient(Exception):
    """There is no such client, or its metadata document can't be used; the message is safe to show."""


class TooManyClients(Exception):
    """All places for clients that register themselves are taken by clients in use."""


class BadRegistration(Exception):
    """A registration is refused. `error` is a code of RFC 7591 s3.2.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class SignInClient(msgspec.Struct, frozen=True):
    """A client. `host` is where its metadata document is from, "" for other kinds; `has_api`: whether it may ask for /api.

    `jwks` is the key set of a client that authenticates with a key, as JSON; "" for a public client.
    """

    id: str
    kind: ClientKind
    name: str
    redirect_uris: tuple[str, ...]
    grants: tuple[str, ...] = GRANTS[:2]
    host: str = ""
    has_api: bool = False
    jwks: str = ""


class FindDocument(Protocol):
    """Finds the client of a metadata document. Raises UnknownClient."""

    def __call__(self, url: str) -> Awaitable[SignInClient]: ...


OWN_CLIENTS: Final = {
    COMMAND_LINE: SignInClient(COMMAND_LINE, "own", "the interlock command line", (), (DEVICE_CODE, REFRESH_TOKEN), has_api=True),
    BROWSER: SignInClient(BROWSER, "own", "the pages of this gateway", (), (), has_api=True),
}


@dataclass(frozen=True, slots=True)
class RegistrationLimits:
    """Bounds of clients that register themselves: their number, and the seconds that they are kept after the last sign-in."""

    count_max: int
    life: int


class SignInClients:
    """Finds clients, and registers them (RFC 7591). `now` counts microseconds since 1970.

    `configured` are the operator's clients. `find_document` is None where metadata documents are off.
    """

    def __init__(
        self,
        database: Database,
        configured: Mapping[str, SignInClient],
        limits: RegistrationLimits,
        private_uris: Collection[str],
        *,
        now: Callable[[], int],
        find_document: FindDocument | None,
    ) -> None:
        self._database = database
        self._known = {**configured, **OWN_CLIENTS}
        self._limits = limits
        self._now = now
        self._find_document = find_document
        self.private_uris = frozenset(private_uris)

    async def find(self, client_id: str) -> SignInClient:
        """Returns the client. Raises UnknownClient and ReadFailed."""
        if (known := self._known.get(client_id)) is not None:
            return known
        if client_id.startswith(DOCUMENT_PREFIX):
            if self._find_document is None:
                raise UnknownClient("this gateway accepts no client metadata documents")
            return await self._find_document(client_id)
        wanted = select(table).where(table.c.id == client_id, table.c.until > self._now())
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        if row is None:
            raise UnknownClient("there is no such client, or its registration has expired; the client has to register again")
        redirects, grants = (msgspec.json.decode(text, type=tuple[str, ...]) for text in (row.redirect_uris, row.grants))
        return SignInClient(row.id, "dynamic", row.name, redirects, grants)

    async def register(self, document: object) -> tuple[SignInClient, int]:
        """Registers a client by its metadata; returns it and when it expires (microseconds). Raises BadRegistration, TooManyClients."""
        client = _read_registration(document, self.private_uris)
        now = self._now()
        until = now + UNUSED_US
        texts = (msgspec.json.encode(part).decode() for part in (client.redirect_uris, client.grants))
        values = (client.id, client.name, *texts, until)

        def work(batch: Batch) -> None:
            batch.run(_DELETE_EXPIRED, (now,))
            count = batch.connection.exec_driver_sql("SELECT count(*) FROM sign_in_clients").scalar() or 0
            surplus = count + 1 - self._limits.count_max
            if surplus > 0 and batch.run(_DELETE_SURPLUS, (surplus,)) < surplus:
                raise TooManyClients("all places for clients that register themselves are in use")
            batch.run(_INSERT, values)

        await self._database.write_or_refuse(work, TooManyClients)
        return client, until

    def note_use(self, batch: Batch, client_id: str) -> None:
        """Keeps the registration of a client with which a person has signed in, in the transaction of the batch."""
        if client_id.startswith("dyn_"):
            now = self._now()
            values = (now, now + self._limits.life * 1_000_000, client_id)
            batch.run("UPDATE sign_in_clients SET used = ?, until = ? WHERE id = ?", values)


def is_client_of_people(client_id: str) -> bool:
    """Whether a client id is one of a client that people sign in with, and not of an agent."""
    return bool(client_id) and not client_id.startswith(AGENT_PREFIX)


def clean_name(text: object) -> str:
    """The name of a client as people may read it: without line breaks, marks that reorder text and other invisible characters."""
    if not isinstance(text, str):
        return ""
    visible = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * NAME_MAX])
    return " ".join(visible.split())[:NAME_MAX]


def read_redirects(value: object, private_uris: Collection[str]) -> tuple[str, ...]:
    """The `redirect_uris` of client metadata, which may be of different kinds. Raises BadRedirect."""
    if not isinstance(value, list) or not 0 < len(value) <= REDIRECTS_MAX or not all(isinstance(uri, str) for uri in value):
        raise BadRedirect(f"redirect_uris is a list of 1 to {REDIRECTS_MAX} URIs")
    return tuple(parse_redirect(uri, private_uris).uri for uri in value)


def _read_registration(document: object, private_uris: Collection[str]) -> SignInClient:
    """The client of a registration request (RFC 7591 s2). Raises BadRegistration.

    The gateway replaces what it does not serve, and says so in its answer (s3.2.1): every such client is public, and only uses codes.
    """
    if not isinstance(document, dict):
        raise BadRegistration("invalid_client_metadata", "the body must be a JSON object")
    grants = _read_grants(document.get("grant_types", [AUTHORIZATION_CODE, REFRESH_TOKEN]))
    try:
        redirects = read_redirects(document.get("redirect_uris"), private_uris)
    except BadRedirect as error:
        raise BadRegistration("invalid_redirect_uri", str(error)) from None
    return SignInClient(new_id("dyn"), "dynamic", clean_name(document.get("client_name")) or "a client without a name", redirects, grants)


def _read_grants(value: Any) -> tuple[str, ...]:
    """The grant types that are served here among those that a client lists. Raises BadRegistration without the authorization code."""
    named = [grant for grant in GRANTS[:2] if isinstance(value, list) and grant in value]
    if AUTHORIZATION_CODE not in named:
        raise BadRegistration("invalid_client_metadata", "grant_types has to contain authorization_code")
    return tuple(named)
