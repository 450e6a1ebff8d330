"""Signatures of webhooks: the specification's own example, and what is refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.standard_webhooks import BadSecret, SignatureRefused, read_secrets, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
ID, AT = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}


def test_the_published_example_is_signed_and_verified() -> None:
    assert sign(read_secrets(SECRET), ID, AT, BODY) == HEADERS
    assert verify(read_secrets(SECRET), HEADERS, BODY, AT + 299).id == ID


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"webhook-id": "msg_other"}, "no signature"),
        ({"webhook-id": ""}, "webhook-id"),
        ({"webhook-id": "x" * 257}, "webhook-id"),
        ({"webhook-timestamp": str(AT + 1)}, "no signature"),
        ({"webhook-timestamp": "yesterday"}, "seconds since 1970"),
        ({"webhook-timestamp": "٣"}, "seconds since 1970"),
        ({"webhook-signature": ""}, "no signature"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v1a,")}, "no signature"),
        ({"webhook-signature": SIGNATURE.removeprefix("v1,")}, "no signature"),
        ({"webhook-signature": " ".join(["v1,x"] * 16 + [SIGNATURE])}, "no signature"),
    ],
)
def test_a_request_that_is_not_signed_so_is_refused(change: dict[str, str], problem: str) -> None:
    with pytest.raises(SignatureRefused, match=problem):
        verify(read_secrets(SECRET), HEADERS | change, BODY, AT)


@pytest.mark.parametrize("offset", [-301, 301])
def test_a_request_of_another_time_is_refused(offset: int) -> None:
    with pytest.raises(SignatureRefused, match="300 seconds"):
        verify(read_secrets(SECRET), HEADERS, BODY, AT + offset)


def test_both_secrets_count_while_a_secret_is_changed() -> None:
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    both, headers = read_secrets(f"{SECRET} {other}"), sign(read_secrets(other), ID, AT, BODY)
    assert verify(both, headers, BODY, AT).timestamp == AT
    assert verify(read_secrets(SECRET), sign(both, ID, AT, BODY), BODY, AT).id == ID


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode(), base64.b64encode(b"x" * 65).decode()]
)
def test_a_secret_that_signs_nothing_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadSecret) as refused:
        read_secrets(text)
    assert len(text) < 8 or text.removeprefix("whsec_") not in str(refused.value)


@given(body=st.binary(max_size=200), changed=st.binary(max_size=200))
def test_no_other_body_has_the_signature(body: bytes, changed: bytes) -> None:
    headers = sign(read_secrets(SECRET), ID, AT, body)
    if body == changed:
        assert verify(read_secrets(SECRET), headers, changed, AT)
    else:
        with pytest.raises(SignatureRefused):
            verify(read_secrets(SECRET), headers, changed, AT)
