"""Signatures: made over what goes over the wire, with the operator's credential and no other."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress
from adapters.vendors.aws import signing as aws_signing
from adapters.vendors.aws.signing import NO_CREDENTIAL_TEXT, AwsOptions, sign_request
from adapters.vendors.sdk.agent import parse_options
from adapters.vendors.sdk.connection import Request, VendorConnection, VendorEndpoint
from tests.adapters.replay import vendor_of
from tests.fakes.aws import signature_fits
from tests.fakes.upstream import Upstream, answer

SECRET = "an-example-of-a-secret-key"
KEYS = {"region": "eu-central-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET}
ARN = "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aeu-central-1%3A1%3Aruntime%2Fecho/invocations"


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress(["127.0.0.1"])
    yield made
    await made.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine without a credential of its own, and without a metadata service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws_signing.machine_credentials.cache_clear()
    yield monkeypatch
    aws_signing.machine_credentials.cache_clear()


def line_to(url: str, egress: Any = None, **options: Any) -> VendorConnection[AwsOptions]:
    place = VendorEndpoint(url, {}, {"authorization": "Bearer of-the-gateway", "traceparent": "00-1"}, 1e9)
    return VendorConnection(egress, place, AwsOptions(**options))


async def ok(_head: bytes, _reader: Any, writer: Any) -> None:
    writer.write(answer(b"{}", "200 OK", "Content-Type: application/json"))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_what_goes_over_the_wire_is_what_was_signed(egress: Egress, streams: bool) -> None:
    async with Upstream(ok) as upstream:
        line = line_to(upstream.url, egress, **KEYS, session_token="a-session-token")
        request = await sign_request(Request("POST", ARN, {"prompt": "hello"}, {"x-amzn-session": "s"}), line, "bedrock-agentcore")
        if streams:
            assert [frame async for frame in line.stream_frames(request)]
        else:
            await line.request(request)
    head, body = upstream.requests[0], upstream.bodies[0]
    assert head.split(b" ")[1].decode() == ARN
    assert signature_fits(head, body, SECRET) and not signature_fits(head, body, "another") and not signature_fits(head, b"{}", SECRET)
    assert b"of-the-gateway" not in head and SECRET.encode() not in head
    assert b"x-amz-security-token: a-session-token" in head.lower()


async def test_a_request_without_a_body_is_signed_too(egress: Egress) -> None:
    async with Upstream(ok) as upstream:
        line = line_to(upstream.url, egress, **KEYS)
        await line.request(await sign_request(Request("GET", "/ping?a=b"), line, "bedrock"))
    assert signature_fits(upstream.requests[0], b"", SECRET)


async def test_without_a_credential_the_agent_s_own_headers_go(egress: Egress) -> None:
    async with Upstream(ok) as upstream:
        line = line_to(upstream.url, egress)
        await line.request(await sign_request(Request("POST", "/invocations", {}), line, "bedrock"))
    assert b"Bearer of-the-gateway" in upstream.requests[0] and b"AWS4" not in upstream.requests[0]


async def test_the_region_is_read_from_the_url_and_has_to_be_somewhere() -> None:
    keys = {**KEYS, "region": ""}
    line = line_to("https://bedrock-agent-runtime.us-gov-west-1.amazonaws.com", **keys)
    assert "/us-gov-west-1/bedrock/" in (await sign_request(Request("GET", "/"), line, "bedrock")).headers["Authorization"]
    with pytest.raises(UpstreamFault, match="has no region"):
        await sign_request(Request("GET", "/"), line_to("https://agents.example", **keys), "bedrock")


async def test_half_a_credential_is_none() -> None:
    with pytest.raises(UpstreamFault, match=NO_CREDENTIAL_TEXT):
        await sign_request(Request("GET", "/"), line_to("https://agents.example", region="us-east-1", access_key_id="AKID"), "bedrock")


async def test_the_machine_s_own_credential_is_used_only_where_the_operator_says_so(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("AWS_ACCESS_KEY_ID", "AKIDAMBIENT")
    machine.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    url = "https://bedrock-agent-runtime.us-east-1.amazonaws.com"
    assert "Authorization" not in (await sign_request(Request("GET", "/"), line_to(url), "bedrock")).headers
    assert "AKIDAMBIENT/" in (await sign_request(Request("GET", "/"), line_to(url, ambient=True), "bedrock")).headers["Authorization"]


async def test_a_machine_without_a_credential_is_said_and_asked_again(machine: pytest.MonkeyPatch) -> None:
    line = line_to("https://agents.example", region="us-east-1", ambient=True)
    with pytest.raises(UpstreamFault, match=NO_CREDENTIAL_TEXT):
        await sign_request(Request("GET", "/"), line, "bedrock")
    machine.setenv("AWS_ACCESS_KEY_ID", "AKIDAMBIENT")
    machine.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert "AKIDAMBIENT/" in (await sign_request(Request("GET", "/"), line, "bedrock")).headers["Authorization"]


async def test_a_session_token_that_is_echoed_is_not_in_the_details(egress: Egress) -> None:
    async def echoes(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"the canonical string has x-amz-security-token:a-session-token", "403 Forbidden"))

    async with Upstream(echoes) as upstream:
        line = line_to(upstream.url, egress, **KEYS, session_token="a-session-token")
        with pytest.raises(UpstreamFault) as caught:
            await line.request(await sign_request(Request("POST", "/", {}), line, "bedrock"))
    assert "canonical" in caught.value.detail and "a-session-token" not in caught.value.detail


def test_options_of_an_environment_are_read_when_they_are_used() -> None:
    upstream = {"agent": "A", "alias": "B", "secret_access_key": "env:KEY", "headers": {"x": "env:OTHER"}}
    read = {"env:KEY": SECRET}
    options = parse_options(vendor_of("bedrock"), upstream, lambda value: read.get(value, value))
    assert isinstance(options, AwsOptions) and options.secret_access_key == SECRET
