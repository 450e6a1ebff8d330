"""Signatures of AWS (Signature Version 4), made with the operator's credential: a named one, or the machine's own."""

import asyncio
import re
from functools import cache
from typing import Any, Final

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.vendor import VendorOptions
from adapters.vendor_line import JSON, Line, Request

NO_CREDENTIAL: Final = "The gateway has no credential for the agent"
_REGION: Final = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d+)\.")


class AwsOptions(VendorOptions):
    """`access_key_id`, `secret_access_key` and `session_token`: a credential. `ambient`: the machine's own, as AWS's tools find it.

    Without either, requests go unsigned, with the agent's headers. `region`: where the agent's URL does not name it.
    """

    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    ambient: bool = False


async def signed(request: Request, line: Line[Any], service: str) -> Request:
    """The same request with a signature over its method, path, headers and body. Raises UpstreamFault."""
    credential = await _credential(line.options)
    body = b"" if request.body is UNSET else request.body if isinstance(request.body, bytes) else msgspec.json.encode(request.body)
    kept = request.headers if request.body is UNSET else {"content-type": JSON, **request.headers}
    if credential is None:
        return replace(request, body=request.body if request.body is UNSET else body, headers=kept)
    sent = AWSRequest(method=request.method, url=line.url + request.path, data=body, headers=dict(kept))
    SigV4Auth(credential, service, _region(line)).add_auth(sent)
    secrets = (credential.secret_key, *([credential.token] if credential.token else []))
    return replace(request, body=request.body if request.body is UNSET else body, headers=dict(sent.headers.items()), secrets=secrets)


def _region(line: Line[Any]) -> str:
    found = line.options.region or ((match := _REGION.search(line.url)) and match[1])
    if not found:
        raise UpstreamFault("The agent's registration names no region", "upstream.region is empty, and the URL has none")
    return str(found)


async def _credential(options: AwsOptions) -> ReadOnlyCredentials | None:
    if options.access_key_id or options.secret_access_key:
        if not (options.access_key_id and options.secret_access_key):
            raise UpstreamFault(NO_CREDENTIAL, "upstream.access_key_id or upstream.secret_access_key is empty")
        return ReadOnlyCredentials(options.access_key_id, options.secret_access_key, options.session_token or None)
    if not options.ambient:
        return None
    try:
        return await asyncio.to_thread(_frozen)
    except BotoCoreError as error:
        raise UpstreamFault(NO_CREDENTIAL, f"{type(error).__name__}: {error}"[:300]) from error


def _frozen() -> ReadOnlyCredentials:
    """Reads files, and may ask the machine's metadata service; renews what is about to expire."""
    found = ambient()
    if found is None:
        ambient.cache_clear()
        raise UpstreamFault(NO_CREDENTIAL, "the machine has no credential that AWS's tools would find")
    return found.get_frozen_credentials()


@cache
def ambient() -> Credentials | None:
    """The machine's own credential, which renews itself; there is one for the process."""
    return Session().get_credentials()
