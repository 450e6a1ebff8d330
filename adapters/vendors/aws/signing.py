"""AWS request signatures (Signature Version 4), with a configured credential or the machine's own."""

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from msgspec import UNSET, Struct
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.upstream.aws_access import AwsAccess, region_in
from adapters.vendors.sdk.agent import VendorOptions
from adapters.vendors.sdk.connection import JSON_TYPE, Request, VendorConnection

NO_CREDENTIAL_TEXT: Final = "The gateway has no credential for the agent"


class AwsOptions(AwsAccess, VendorOptions):
    """The options of every agent at AWS."""


async def sign_request(request: Request, connection: VendorConnection[Any], service: str) -> Request:
    """The request with a signature over its method, path, headers and body. Raises UpstreamFault."""
    body = b"" if request.body is UNSET else request.body if isinstance(request.body, bytes) else msgspec.json.encode(request.body)
    request_headers = dict(request.headers) if request.body is UNSET else {"content-type": JSON_TYPE, **request.headers}
    sent = SignableRequest(request.method, connection.url + request.path, request_headers, body)
    headers, secrets = await signed_headers(sent, connection.options, service)
    return replace(request, body=request.body if request.body is UNSET else body, headers=headers, secrets=secrets)


class SignableRequest(Struct, frozen=True):
    """A request in the form in which it is sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


async def signed_headers(request: SignableRequest, access: AwsAccess, service: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The headers with a signature, and the secrets among them. Without a credential, the headers unchanged.

    Raises UpstreamFault.
    """
    credential = await _find_credential(access)
    if credential is None:
        return dict(request.headers), ()
    region = access.region or region_in(request.url)
    if not region:
        raise UpstreamFault("The agent's registration has no region", "upstream.region is empty, and the URL has none")
    made = AWSRequest(method=request.method, url=request.url, data=request.body, headers=dict(request.headers))
    SigV4Auth(credential, service, region).add_auth(made)
    return dict(made.headers.items()), (credential.secret_key, *([credential.token] if credential.token else []))


async def _find_credential(options: AwsAccess) -> ReadOnlyCredentials | None:
    if options.access_key_id or options.secret_access_key:
        if not (options.access_key_id and options.secret_access_key):
            raise UpstreamFault(NO_CREDENTIAL_TEXT, "upstream.access_key_id or upstream.secret_access_key is empty")
        return ReadOnlyCredentials(options.access_key_id, options.secret_access_key, options.session_token or None)
    if not options.ambient:
        return None
    try:
        return await asyncio.to_thread(_read_machine_credential)
    except BotoCoreError as error:
        raise UpstreamFault(NO_CREDENTIAL_TEXT, f"{type(error).__name__}: {error}"[:300]) from error


def _read_machine_credential() -> ReadOnlyCredentials:
    """Reads files, and may call the machine's metadata service; refreshes a credential that is about to expire."""
    found = machine_credentials()
    if found is None:
        machine_credentials.cache_clear()
        raise UpstreamFault(NO_CREDENTIAL_TEXT, "the AWS credential chain found no credential on this machine")
    return found.get_frozen_credentials()


@cache
def machine_credentials() -> Credentials | None:
    """The machine's own credential, which refreshes itself; one for the process."""
    return Session().get_credentials()
