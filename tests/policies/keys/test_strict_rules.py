"""Every rule of the strict reading by its name: a token that breaks just this one is refused, and for this reason."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from policies.tokens.verifier import TokenVerifier
from tests.fakes.clock import Clock
from tests.fakes.issuer import ABSENT, EcKey, FakeIssuer, RsaKey, b64, compact, hs256
from tests.fakes.tokens import GW, refusal

Made = Callable[[FakeIssuer, float], str]


def claims(**given: Any) -> Made:
    return lambda issuer, now: issuer.mint(**{name: value(now) if callable(value) else value for name, value in given.items()})


def header(**given: Any) -> Made:
    return lambda issuer, now: issuer.mint(given)


def raw(header_text: Callable[[dict[str, Any]], bytes] | None = None, claims_text: Callable[[dict[str, Any]], bytes] | None = None) -> Made:
    def made(issuer: FakeIssuer, now: float) -> str:
        heading, said = issuer.header(), issuer.claims()
        return compact(header_text(heading) if header_text else heading, claims_text(said) if claims_text else said, issuer.key.sign)

    return made


def with_text(text: str) -> Callable[[dict[str, Any]], bytes]:
    """The JSON of an object with some text added before its end."""
    return lambda members: f"{json.dumps(members)[:-1]}, {text}}}".encode()


def cut(change: Callable[[str], Any]) -> Made:
    return lambda issuer, now: change(issuer.mint())


def padded(token: str) -> str:
    return ".".join(part + "=" * (-len(part) % 4 or 4) for part in token.split("."))


def not_canonical(token: str) -> str:
    """The last character of the signature carries bits that decode to nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    return token[:-1] + alphabet[last ^ 1]


def signed_by(key: EcKey | RsaKey, **given: Any) -> Made:
    return lambda issuer, now: compact(issuer.header(**given), issuer.claims(), key.sign)


RULES: dict[str, tuple[str, Made]] = {
    "a text": ("shape", lambda issuer, now: 5),  # type: ignore[dict-item,return-value]  # that is the point
    "at most 16384 characters": ("shape", claims(x="x" * 16_384)),
    "two dots": ("shape", cut(lambda token: token + ".x")),
    "not one": ("shape", cut(lambda token: token.rpartition(".")[0])),
    "no padding": ("shape", cut(padded)),
    "canonical base64url": ("shape", cut(not_canonical)),
    "base64url, not base64": ("shape", cut(lambda token: token[:-3] + "+/A")),
    "an odd number of characters": ("shape", cut(lambda token: token + "AAA")),
    "a header of JSON": ("shape", raw(header_text=lambda _: b"{")),
    "a header that is an object": ("shape", raw(header_text=lambda _: b"[]")),
    "claims that are an object": ("shape", raw(claims_text=lambda _: b'"alice"')),
    "no key twice in the header": ("shape", raw(header_text=with_text('"alg": "none"'))),
    "no key twice in the claims": ("shape", raw(claims_text=with_text('"sub": "bob"'))),
    "no NaN": ("shape", claims(x=math.nan)),
    "no infinity": ("shape", claims(x=math.inf)),
    "no number beyond all bounds": ("shape", raw(claims_text=with_text('"x": 1e400'))),
    "no deep nesting": ("shape", raw(claims_text=with_text('"x": ' + "[" * 100 + "]" * 100))),
    "no crit": ("header", header(crit=["exp"])),
    "no jwk": ("header", header(jwk=EcKey().jwk())),
    "no jku": ("header", header(jku="https://evil.test/jwks")),
    "no x5u": ("header", header(x5u="https://evil.test/pem")),
    "no x5c": ("header", header(x5c=["AAAA"])),
    "no b64": ("header", header(b64=False)),
    "no zip": ("header", header(zip="DEF")),
    "no enc": ("header", header(enc="A256GCM")),
    "a type that is text": ("header", header(typ=["at+jwt"])),
    "a type on the list": ("type", header(typ="dpop+jwt")),
    "not an assertion's type": ("type", header(typ="oauth-id-jag+jwt")),
    "a kid": ("kid", header(kid=ABSENT)),
    "a kid of the set": ("kid", header(kid="other")),
    "an algorithm": ("alg", header(alg=ABSENT)),
    "an algorithm that we use": ("alg", header(alg="PS256")),
    "not none": ("alg", header(alg="none")),
    "not symmetric": ("alg", lambda issuer, now: compact(issuer.header(alg="HS256"), issuer.claims(), hs256(b"x"))),
    "the algorithm of the key": ("alg", header(alg="RS256")),
    "signed by the key": ("signature", signed_by(EcKey())),
    "signed at all": ("signature", cut(lambda token: token.rpartition(".")[0] + ".")),
    "signed over these claims": ("signature", cut(lambda token: token.replace(token.split(".")[1], b64(b'{"iss":"https://idp.test"}')))),
    "an issuer": ("issuer", claims(iss=ABSENT)),
    "the issuer to the letter": ("issuer", claims(iss="https://IDP.test")),
    "an audience": ("audience", claims(aud=ABSENT)),
    "our audience": ("audience", claims(aud="https://evil.test")),
    "one audience": ("audience", claims(aud=[GW, "https://evil.test"])),
    "an audience once": ("audience", claims(aud=[GW, GW])),
    "exp": ("times", claims(exp=ABSENT)),
    "exp that is a number": ("times", claims(exp="2000000000")),
    "exp that is no bool": ("times", claims(exp=True)),
    "iat": ("times", claims(iat=ABSENT)),
    "nbf that is a number": ("times", claims(nbf="0")),
    "not over": ("expired", claims(iat=lambda now: now - 100, exp=lambda now: now - 31)),
    "begun": ("not-yet-valid", claims(nbf=lambda now: now + 31)),
    "issued already": ("not-yet-valid", claims(iat=lambda now: now + 31)),
    "a life of an hour at most": ("lifetime", claims(exp=lambda now: now + 3601)),
    "a life at all": ("lifetime", claims(iat=lambda now: now, exp=lambda now: now)),
    "sub": ("sub", claims(sub=ABSENT)),
    "sub of 1 character": ("sub", claims(sub="")),
    "sub of 256 characters": ("sub", claims(sub="x" * 257)),
    "sub that is text": ("sub", claims(sub=5)),
    "nobody in between": ("act", claims(act={"sub": "agent"})),
    "bound to a key or nothing": ("cnf", claims(cnf={"x5t#S256": "x"})),
}


@pytest.mark.parametrize("rule", RULES)
async def test_a_token_that_breaks_one_rule_is_refused_for_it(identity: TokenVerifier, issuer: FakeIssuer, clock: Clock, rule: str) -> None:
    reason, made = RULES[rule]  # attacks TOK-02, TOK-03, TOK-05, TOK-07, TOK-09, TOK-13
    token = made(issuer, int(clock.now))
    if rule == "a text":
        from policies.keys.strict_jwt import TokenRefused, read_unverified

        with pytest.raises(TokenRefused, match=reason):
            read_unverified(token)
    else:
        assert await refusal(identity, token) == reason
    assert (await identity.verify(issuer.mint(), (GW,))).subject == "alice"  # and one that breaks none is taken


def test_the_tokens_are_otherwise_good() -> None:
    """The helpers change what they say and nothing else."""
    issuer = FakeIssuer()
    for made in (raw(), claims(), header()):
        assert len(base64.urlsafe_b64decode(made(issuer, 0).split(".")[2] + "==")) == 64
