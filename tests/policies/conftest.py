"""An identity and an authority at a time that stands still, and a database for what does not depend on which."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from policies.keys.signing import SigningKeys
from policies.tables import metadata
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.verifier import TokenVerifier
from tests.fakes.authority import Scene
from tests.fakes.clock import Clock
from tests.fakes.issuer import FakeIssuer
from tests.fakes.tokens import GW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> FakeIssuer:
    return FakeIssuer(audience=GW, now=clock)


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> SigningKeys:
    return SigningKeys.open(tmp_path, clock)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def identity(issuer: FakeIssuer, keys: SigningKeys) -> TokenVerifier:
    return TokenVerifier(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url)], issuer.fetch, development=True)
