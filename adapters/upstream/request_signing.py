"""AWS signatures of requests to A2A agents. The AWS library is imported when the first such agent is called."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

from adapters.upstream.aws_access import AWS_OPTION, A2AAwsAccess, parse_access

SIGNING_MODULE: Final = "adapters.vendors.aws.signing"


class Signer(Protocol):
    """Signs requests."""

    async def signed_headers(
        self, upstream: Mapping[str, Any], method: str, url: str, body: bytes, unsigned_headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The headers with a signature where `upstream` requires one. Raises UpstreamFault."""
        ...


class RequestSigner:
    """Signs by an entry's `upstream.aws`. `read_text` resolves a value such as `env:NAME`."""

    def __init__(self, read_text: Callable[[str], str]) -> None:
        self._read_text = read_text

    async def signed_headers(
        self, upstream: Mapping[str, Any], method: str, url: str, body: bytes, unsigned_headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        if AWS_OPTION not in upstream:
            return unsigned_headers
        signing: Any = sys.modules.get(SIGNING_MODULE) or await asyncio.to_thread(import_module, SIGNING_MODULE)
        access = self._access(upstream[AWS_OPTION])
        headers, _ = await signing.signed_headers(signing.SignableRequest(method, url, unsigned_headers, body), access, access.service)
        return dict(headers)

    def _access(self, options: Mapping[str, Any]) -> A2AAwsAccess:
        return parse_access({name: self._read_text(value) if isinstance(value, str) else value for name, value in options.items()})
