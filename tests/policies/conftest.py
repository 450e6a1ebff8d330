"""An identity that trusts one issuer and the development issuer, at a time that stands still."""

from pathlib import Path

import pytest

from policies.identity import Identity, TrustedIssuer
from policies.keys import SigningKeys
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
def identity(issuer: FakeIssuer, keys: SigningKeys) -> Identity:
    return Identity(GW, keys, [TrustedIssuer(issuer.url, issuer.jwks_url)], issuer.fetch, development=True)
