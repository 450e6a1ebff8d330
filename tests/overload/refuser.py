"""What a refusal costs at least in Python: raw ASGI that answers every request with 503 and reads no body."""

from tests.bench.echo import Receive, Scope, Send

BODY = b'{"type":"about:blank","title":"Overloaded","status":503,"detail":"Try again later.","reason_id":"overloaded"}'
HEADERS = [
    (b"content-type", b"application/problem+json"),
    (b"content-length", b"%d" % len(BODY)),
    (b"retry-after", b"1"),
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI, HTTP only: run without lifespan events."""
    await send({"type": "http.response.start", "status": 503, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
