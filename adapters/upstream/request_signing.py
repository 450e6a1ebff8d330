"""Signatures over requests of A2A agents behind AWS, whose library is loaded when the first such agent is called."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

from adapters.upstream.aws_access import AWS, A2AAccess, access_of, is_signed

SIGNER: Final = "adapters.vendors.aws.signing"


class Signer(Protocol):
    """Makes the headers of a request that is sent as it is told here."""

    async def headers(self, upstream: Mapping[str, Any], request: tuple[str, str, bytes], given: Mapping[str, str]) -> Mapping[str, str]:
        """`given`, with a signature where `upstream` says so. `request`: method, URL and body. Raises UpstreamFault."""
        ...


class NoSigner:
    """Signs nothing."""

    async def headers(self, upstream: Mapping[str, Any], request: tuple[str, str, bytes], given: Mapping[str, str]) -> Mapping[str, str]:
        return given


class RequestSigner:
    """Signs as `upstream.aws` of an entry has it. `read_text`: what its `env:NAME` stands for."""

    def __init__(self, read_text: Callable[[str], str]) -> None:
        self._read_text = read_text

    async def headers(self, upstream: Mapping[str, Any], request: tuple[str, str, bytes], given: Mapping[str, str]) -> Mapping[str, str]:
        if not is_signed(upstream):
            return given
        signing: Any = sys.modules.get(SIGNER) or await asyncio.to_thread(import_module, SIGNER)
        access = self._access(upstream[AWS])
        method, url, body = request
        headers, _ = await signing.sign(signing.Signable(method, url, given, body), access, access.service)
        return dict(headers)

    def _access(self, told: Mapping[str, Any]) -> A2AAccess:
        return access_of({name: self._read_text(value) if isinstance(value, str) else value for name, value in told.items()})
