"""The operator's options for AWS: a credential, and the region and service of signatures."""

from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.redaction.validation_texts import describe_problem

AWS_OPTION: Final = "aws"  # the member of an A2A agent's `upstream`; requests of an agent that has it are signed
AGENTCORE: Final = "bedrock-agentcore"


class AwsAccess(BaseModel):
    """AWS options. `access_key_id`, `secret_access_key`, `session_token`: a credential. `ambient`: the machine's own, by AWS's default
    chain.

    Without either, requests are not signed, and have the agent's headers. `region`: required where the agent's URL does not have it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    ambient: bool = False


class A2AAwsAccess(AwsAccess):
    """`upstream.aws` of an A2A agent behind AWS signatures; `service` is the AWS service that verifies them."""

    service: str = AGENTCORE


def parse_access(document: Any) -> A2AAwsAccess:
    """Parses `upstream.aws`. Raises ValueError with the invalid member and the problem."""
    try:
        found = A2AAwsAccess.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {describe_problem(first)}") from None
    if not found.ambient and not (found.access_key_id and found.secret_access_key):
        raise ValueError("access_key_id: is needed with secret_access_key, or ambient: true")
    return found


def region_in(url: str) -> str:
    """The region in a URL's host, such as `eu-central-1`; empty without one."""
    labels = (urlsplit(url).hostname or "").split(".")[1:]
    return next((label for label in labels if _is_region(label)), "")


def _is_region(label: str) -> bool:
    if "-" not in label:
        return False
    first, *middle, last = label.split("-")
    return len(first) == 2 and bool(middle) and last.isdigit() and all(word.isalpha() for word in (first, *middle))
