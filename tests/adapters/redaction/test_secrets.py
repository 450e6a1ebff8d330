"""Claims about secrets that an upstream sends back: they go no further, in whatever form."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from msgspec import Raw

from adapters.contract import ArtifactPiece, Event, Failed, Progress, UpstreamFault
from adapters.mcp_client.redaction import scrub_fault, scrub_listener, scrub_peer
from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.peer import ListenFilter
from adapters.redaction.secrets import SecretRedactor, redactor_for, secrets_of
from adapters.task import Artifact, Message, Part, Role

SECRET = 'canary/+"ü=~ 3f9a'
OTHER = "another-canary-77"


# attack LOG-02
@pytest.mark.parametrize(
    "written",
    [
        SECRET.encode(),
        json.dumps({"said": SECRET}).encode(),
        json.dumps({"said": SECRET}, ensure_ascii=False).encode(),
        quote(SECRET, safe="").encode(),
        quote_plus(SECRET).encode(),
        quote(SECRET, safe="").lower().encode(),
        json.dumps({"text": json.dumps({"said": SECRET})}).encode(),
        json.dumps({"text": json.dumps({"said": SECRET}, ensure_ascii=False)}, ensure_ascii=False).encode(),
        base64.b64encode(SECRET.encode()),
        base64.urlsafe_b64encode(SECRET.encode()),
        base64.b64encode(f"client:{SECRET}".encode()),
        base64.b64encode(f"x:{SECRET}:more".encode()),
        base64.urlsafe_b64encode(f"Bearer  {SECRET}".encode()),
    ],
)
def test_a_secret_is_taken_out_in_whatever_form(written: bytes) -> None:
    clean = SecretRedactor([OTHER, SECRET]).redact_bytes(b"before " + written + b" after " + OTHER.encode())
    assert b"***" in clean
    assert clean.startswith(b"before ")
    assert clean.endswith(b" after ***")
    assert written not in clean


# attack LOG-02
@pytest.mark.parametrize("scheme", ["Basic", "basic"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_password_is_a_secret_without_what_it_was_wrapped_in(scheme: str, encoding: str) -> None:
    header = f"{scheme} {base64.b64encode(f'robot:{SECRET}'.encode(encoding)).decode()}"
    scrubber = redactor_for({"Authorization": header})
    assert scrubber is not None
    for written in (SECRET, f"robot:{SECRET}", json.dumps(SECRET)[1:-1], quote(SECRET, safe=""), header, header.partition(" ")[2]):
        clean = scrubber.redact_bytes(f"password: {written}.".encode())
        assert clean.decode().replace("robot:", "") in ("password: ***.", f"password: {scheme} ***.")


def test_what_is_not_basic_is_not_unwrapped() -> None:
    token = base64.b64encode(b"robot:a long password").decode()
    assert secrets_of({"Authorization": f"Bearer {token}"}) == [f"Bearer {token}", token]
    assert secrets_of({"Authorization": "Basic not/base=64!"}) == ["Basic not/base=64!", "not/base=64!"]


def test_what_has_no_secret_is_not_touched() -> None:
    raw = b'{"content":[{"type":"text","text":"fine"}]}'
    assert SecretRedactor([SECRET]).redact_bytes(raw) is raw
    event = Progress(Message("m", Role.AGENT, (Part(text="fine"),)))
    assert SecretRedactor([SECRET]).redact_event(event) is event


def test_only_headers_that_carry_secrets_count() -> None:
    headers = {"Authorization": "Bearer abcdefgh", "X-Api-Key": "short", "Accept": "application/json", "traceparent": "00-abcdefgh-1"}
    assert secrets_of(headers) == ["Bearer abcdefgh", "abcdefgh"]
    assert redactor_for({"Accept": "application/json", "X-Api-Key": "short"}) is None
    assert redactor_for({"Cookie": "session=12345678"}) is not None


@pytest.mark.parametrize(
    "event",
    [
        Progress(Message("m", Role.AGENT, (Part(text=f"I have {OTHER}"),))),
        ArtifactPiece(Artifact("a", (Part(data={"deep": [OTHER]}),)), append=True, last_chunk=False),
        Failed("no", detail=f"status 500 {OTHER}", kind="UPSTREAM"),
    ],
)
def test_events_of_agents_are_cleaned_and_stay_what_they_are(event: Event) -> None:
    clean = SecretRedactor([OTHER]).redact_event(event)
    assert type(clean) is type(event)
    assert OTHER not in str(clean)
    assert repr(clean) == repr(event).replace(OTHER, "***")


def test_errors_are_cleaned() -> None:
    fault, refused = UpstreamFault("no", f"said {OTHER}"), McpRefused(-32042, OTHER, {"elicitations": [{"message": OTHER}]})
    for error in (fault, refused):
        scrub_fault(error, SecretRedactor([OTHER]))
    assert fault.detail == "said ***"
    assert (refused.detail, refused.data) == ("***", {"elicitations": [{"message": "***"}]})


class Client:
    """A Listener."""

    capabilities: Mapping[str, Any] = {"elicitation": {}}

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.granted: list[ListenFilter] = []

    async def notify(self, method: str, params: Raw) -> None:
        self.heard.append(bytes(params))

    async def ask(self, method: str, params: Raw) -> Raw:
        self.heard.append(bytes(params))
        return Raw(b"{}")

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        self.granted.append(granted)


async def test_what_a_server_says_on_the_way_is_cleaned() -> None:
    client = Client()
    listener = scrub_listener(client, SecretRedactor([OTHER]))
    peer = scrub_peer(client, SecretRedactor([OTHER]))
    assert peer is not None
    assert scrub_peer(None, SecretRedactor([OTHER])) is None
    assert peer.capabilities == client.capabilities
    said = Raw(json.dumps({"data": OTHER}).encode())
    await peer.notify("notifications/message", said)
    await peer.ask("elicitation/create", said)
    await listener.notify("notifications/progress", said)
    await listener.on_acknowledged(ListenFilter(tools=True))
    assert client.heard == [b'{"data": "***"}'] * 3
    assert client.granted == [ListenFilter(tools=True)]
