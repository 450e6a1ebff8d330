"""What an operator says of access to AWS: a credential, and where the request is signed for."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.upstream.validation_texts import describe_problem

AWS_OPTION: Final = "aws"  # the member of an A2A agent's `upstream`
AGENTCORE: Final = "bedrock-agentcore"


class AwsAccess(BaseModel):
    """`access_key_id`, `secret_access_key` and `session_token`: a credential. `ambient`: the machine's own, as AWS's tools find it.

    Without either, requests go unsigned, with the agent's headers. `region`: where the agent's URL does not name it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    ambient: bool = False


class A2AAwsAccess(AwsAccess):
    """`upstream.aws` of an agent that speaks A2A behind AWS's signatures; `service` is the one that checks them."""

    service: str = AGENTCORE


def parse_access(given: Any) -> A2AAwsAccess:
    """Raises ValueError with the member that is wrong, and what is wrong with it."""
    try:
        found = A2AAwsAccess.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {describe_problem(first)}") from None
    if not found.ambient and not (found.access_key_id and found.secret_access_key):
        raise ValueError("access_key_id: is needed with secret_access_key, or ambient: true")
    return found


def region_in(url: str) -> str:
    """The region that the host of a URL names, such as `eu-central-1`; empty for none."""
    labels = (urlsplit(url).hostname or "").split(".")[1:]
    return next((label for label in labels if _is_region(label)), "")


def _is_region(label: str) -> bool:
    if "-" not in label:
        return False
    first, *middle, last = label.split("-")
    return len(first) == 2 and bool(middle) and last.isdigit() and all(word.isalpha() for word in (first, *middle))


def is_signed(upstream: Mapping[str, Any]) -> bool:
    """Whether an A2A agent's requests are signed."""
    return AWS_OPTION in upstream
