"""Client ID Metadata Documents: clients whose id is the URL of a document that describes them (draft of the OAuth group, -02)."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import FetchDocument
from adapters.upstream.targets import EgressRefused
from gateway.ingress.oauth.sign_in.clients.redirects import BadRedirect
from gateway.ingress.oauth.sign_in.clients.store import GRANTS, SignInClient, UnknownClient, clean_name, read_redirects
from policies.cache import BoundedCache
from policies.strict_json import BadJson, parse

DOCUMENT_MAX: Final = 10 << 10  # bytes
KEYS_MAX: Final = 64 << 10  # bytes of a key set
FETCH_SECONDS: Final = 3.0  # for the document and its keys together
KEEP_SECONDS: Final = 300.0
MISS_SECONDS: Final = 30.0  # a document that could not be used is not fetched again for this long
CACHE_SIZE: Final = 1000
FETCHES_MAX: Final = 32  # at once
PER_SITE_MAX: Final = 2  # at once, from the hosts of one site, so that slow ones hold no more
WAIT_SECONDS: Final = 3.0  # for a place
URL_MAX: Final = 256  # characters
NOT_FETCHED: Final = "the client metadata document can't be fetched, or is not a small JSON object"
METHODS: Final = ("none", "private_key_jwt")
_URL: Final = re.compile(r"https://[a-z0-9.-]{1,253}(:[0-9]{1,5})?(/[!$&-;=@-\[\]_a-z~%]*)")
log = structlog.get_logger()


class ClientDocuments:
    """Fetches documents through the egress guard: no private address, no redirect, bounded. `clock` counts seconds."""

    def __init__(self, fetch: FetchDocument, private_uris: Collection[str], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._private_uris = private_uris
        self._known: BoundedCache[str, SignInClient | str] = BoundedCache(CACHE_SIZE, clock)
        self._places = asyncio.Semaphore(FETCHES_MAX)
        self._sites: dict[str, _Site] = {}  # of which documents are being fetched, or waited for

    async def find(self, url: str) -> SignInClient:
        """The client of the document at `url`. Raises UnknownClient."""
        _check_url(url)
        found = self._known.get(url)
        if found is None:
            async with self._place_of(_site_of(url)):
                found = self._known.get(url) or await self._look_up(url)
        if isinstance(found, str):
            raise UnknownClient(found)
        return found

    @asynccontextmanager
    async def _place_of(self, name: str) -> AsyncIterator[None]:
        """Holds a place of a site, and then one of all places. Raises UnknownClient where none is free for WAIT_SECONDS."""
        site = self._sites.setdefault(name, _Site())
        site.users += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        for places in (site.places, self._places):
                            await held.enter_async_context(places)
                except TimeoutError:
                    raise UnknownClient("the client metadata document can't be fetched now, as others of its site are slow") from None
                yield
        finally:
            site.users -= 1
            if not site.users:
                del self._sites[name]

    async def _look_up(self, url: str) -> SignInClient | str:
        """The client, or why there is none; both are remembered."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                client = await self._read(url)
        except (UnknownClient, TimeoutError) as failure:
            error = failure if isinstance(failure, UnknownClient) else UnknownClient(NOT_FETCHED)
            log.warning("client_document_refused", url=url[:URL_MAX], problem=str(error))
            self._known.put(url, str(error), MISS_SECONDS)
            return str(error)
        self._known.put(url, client, KEEP_SECONDS)
        return client

    async def _read(self, url: str) -> SignInClient:
        parts = _check_url(url)
        document = await self._fetch_object(url, DOCUMENT_MAX)
        if document.get("client_id") != url:
            raise UnknownClient("the client metadata document is of another client")
        method = document.get("token_endpoint_auth_method", "none")
        if method not in METHODS or "client_secret" in document:
            raise UnknownClient("a client with a metadata document has no secret: its method is none or private_key_jwt")
        try:
            redirects = read_redirects(document.get("redirect_uris"), self._private_uris)
        except BadRedirect as error:
            raise UnknownClient(f"the client metadata document can't be used: {error}") from None
        jwks = await self._read_keys(document) if method == "private_key_jwt" else ""
        name = clean_name(document.get("client_name")) or parts
        return SignInClient(url, "document", name, redirects, GRANTS[:2], host=parts, jwks=jwks)

    async def _read_keys(self, document: Mapping[str, Any]) -> str:
        """The key set of a client that authenticates with a key, as JSON."""
        keys = document.get("jwks")
        if keys is None and isinstance(document.get("jwks_uri"), str) and document["jwks_uri"].startswith("https://"):
            keys = await self._fetch_object(document["jwks_uri"], KEYS_MAX)
        if not isinstance(keys, dict):
            raise UnknownClient("the client metadata document names no keys for private_key_jwt")
        return msgspec.json.encode(keys).decode()

    async def _fetch_object(self, url: str, limit: int) -> Mapping[str, Any]:
        try:
            answer = await self._fetch(url, limit=limit, timeout=FETCH_SECONDS)
            document = parse(answer.body) if answer.status == 200 else None
        except (EgressRefused, UpstreamFault, BadJson):
            document = None
        if not isinstance(document, dict):
            raise UnknownClient(NOT_FETCHED)
        return document


class _Site:
    """The places of one site, and how many requests hold one or wait for one."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(PER_SITE_MAX)
        self.users = 0


def _site_of(url: str) -> str:
    """The last two labels of the host, since one can have any number of hosts below a name."""
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:])


def _check_url(url: str) -> str:
    """The host of the URL of a document. Raises UnknownClient for a URL without a path, or that could be mistaken for another."""
    found = _URL.fullmatch(url) if len(url) <= URL_MAX else None
    steps = found[2].split("/") if found else []
    if found is None or found[2] == "/" or "." in steps or ".." in steps:
        raise UnknownClient("the client id is not the URL of a metadata document")
    return urlsplit(url).netloc
