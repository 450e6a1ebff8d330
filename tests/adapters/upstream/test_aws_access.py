"""The region of a request is read from its host, and an access without a credential is none."""

import pytest

from adapters.upstream.aws_access import parse_access, region_in


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-agentcore.eu-central-1.amazonaws.com/runtimes/x", "eu-central-1"),
        ("https://bedrock-agent-runtime.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://bedrock-agentcore.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://vpce-1.bedrock-agentcore.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("https://agents.corp.example/eu-central-1/x", ""),
        ("https://my-agent-1.corp.example", ""),
        ("https://agent-1.example", ""),
        ("http://127.0.0.1:8080", ""),
        ("https://" + "a-" * 5000 + "1.example", ""),
    ],
)
def test_the_region_is_the_label_of_the_host_that_looks_like_one(url: str, region: str) -> None:
    assert region_in(url) == region


@pytest.mark.parametrize("given", [None, {}, {"region": 1}, {"access_key_id": "a"}, {"secret_access_key": "b"}, {"ambient": False}, "x"])
def test_an_access_without_a_credential_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=": "):
        parse_access(given)


def test_an_access_is_for_agentcore_unless_told_otherwise() -> None:
    assert parse_access({"ambient": True}).service == "bedrock-agentcore"
    assert parse_access({"access_key_id": "a", "secret_access_key": "b", "service": "execute-api"}).service == "execute-api"
