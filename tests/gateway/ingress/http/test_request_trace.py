"""What a visit takes from its caller: little."""

import pytest

from gateway.ingress.http.request_trace import read_traceparent

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = b"00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "said"), [([TRACE], TRACE.decode()), ([TRACE, OTHER], ""), ([TRACE + b"0"], ""), ([b"\xff" * 55], ""), ([], "")]
)
def test_a_traceparent_that_is_sent_twice_or_odd_says_nothing(sent: list[bytes], said: str | None) -> None:
    assert read_traceparent({"headers": [(b"traceparent", value) for value in sent]}) == said
