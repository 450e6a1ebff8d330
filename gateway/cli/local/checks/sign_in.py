"""Problems of the sign-in of people: settings that contradict each other, and identity providers that can't be used."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gateway.cli.local.settings_problem import SettingsProblem

if TYPE_CHECKING:
    from adapters.oauth.discovery import AuthorizationServer
    from adapters.upstream.egress import Egress
    from gateway.server.sections.sign_in import SignInProviderSettings
    from gateway.server.settings import Settings

SECRET_METHODS = ("client_secret_basic", "client_secret_post")
REGISTER_TODO = "write the issuer's entry in identity.issuers, with its jwks_url and roles_claim"


class ProviderFinding(NamedTuple):
    """What was found at a provider. An empty `todo` means that nothing is to be done."""

    name: str
    is_usable: bool
    detail: str
    todo: str = ""


def find_sign_in_problems(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields problems of the section `sign_in` that can be seen without asking anybody."""
    section, issuers = settings.sign_in, {issuer.issuer for issuer in settings.identity.issuers}
    for name, provider in section.providers.items():
        where = f"sign_in.providers.{name}"
        if provider.issuer not in issuers:
            yield SettingsProblem(f"{where}.issuer", f"{provider.issuer} is not one of identity.issuers", REGISTER_TODO)
        yield from _find_secret_problems(where, provider)
        if "openid" not in provider.scopes:
            todo = "add openid to the scopes"
            yield SettingsProblem(f"{where}.scopes", "without openid the provider returns no ID token, and nobody can sign in", todo)
    if section.development == "on" and not settings.has_development_sign_in:
        problem = "the development issuer is off, so there are no development users to choose from"
        yield SettingsProblem(
            "sign_in.development", problem, "set it to auto; or set identity.development: on, on loopback", is_fatal=False
        )
    if section.clients and not settings.has_sign_in:
        problem = "nobody can sign in with these clients, because there is no provider"
        yield SettingsProblem("sign_in.clients", problem, "write sign_in.providers, or remove the clients", is_fatal=False)
    yield from _find_open_address(settings)


def ask_providers(settings: "Settings") -> list[ProviderFinding]:
    """Reads the metadata of each provider, as the gateway does at a login. A provider takes at most 10 seconds."""
    from adapters.upstream.egress import Egress

    async def ask_all() -> list[ProviderFinding]:
        egress = Egress(settings.allowed_targets)
        try:
            return [await _ask_provider(egress, name, provider) for name, provider in settings.sign_in.providers.items()]
        finally:
            await egress.close()

    return asyncio.run(ask_all())


async def _ask_provider(egress: "Egress", name: str, provider: "SignInProviderSettings") -> ProviderFinding:
    from adapters.contract import UpstreamFault
    from adapters.oauth.discovery import discover_authorization_server
    from adapters.upstream.targets import EgressRefused

    field = f"sign_in.providers.{name}"
    try:
        found = await discover_authorization_server(egress.fetch, provider.issuer)
    except EgressRefused as refused:
        return ProviderFinding(field, False, f"{provider.issuer} may not be called: {refused.public}", "add it to egress.allow")
    except UpstreamFault as fault:
        detail = f"{provider.issuer} can't be used: {fault.detail or fault}"
        return ProviderFinding(field, False, detail, "correct the issuer; its /.well-known/openid-configuration has to name it")
    return _judge(field, provider, found)


def _judge(field: str, provider: "SignInProviderSettings", found: "AuthorizationServer") -> ProviderFinding:
    """What the metadata say about the login and about renewing roles."""
    if not found.authorization_endpoint:
        return ProviderFinding(field, False, "it has no authorization endpoint, so people can't log in there", "name another issuer")
    if provider.auth_method and found.methods and provider.auth_method not in found.methods:
        detail = f"it does not list {provider.auth_method} among its methods of client authentication"
        return ProviderFinding(field, True, detail, f"it lists {', '.join(found.methods)}: set auth_method to one of them")
    if found.scopes and "offline_access" in provider.scopes and "offline_access" not in found.scopes:
        detail = "it does not list offline_access, so it may give no refresh token: sessions then end after sign_in.session_life"
        return ProviderFinding(field, True, detail, "see its documents for how it gives refresh tokens")
    return ProviderFinding(field, True, f"people log in at {urlsplit(found.authorization_endpoint).netloc}")


def _find_secret_problems(field: str, provider: "SignInProviderSettings") -> Iterator[SettingsProblem]:
    """Yields a secret that can't be read, and a method of client authentication that does not fit."""
    from adapters.contract import UpstreamFault
    from gateway.server.settings import resolve_credential

    if not provider.client_secret:
        if provider.auth_method in SECRET_METHODS:
            problem = f"{provider.auth_method} needs a client_secret"
            yield SettingsProblem(f"{field}.auth_method", problem, "set client_secret to env:NAME or file:PATH")
        return
    try:
        resolve_credential(provider.client_secret)
    except (UpstreamFault, OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "detail", "") or str(error)
        yield SettingsProblem(f"{field}.client_secret", problem, "put the secret there that the provider gave the gateway")
    if provider.auth_method not in ("", *SECRET_METHODS):
        problem = f"with {provider.auth_method} the client_secret is not used"
        yield SettingsProblem(f"{field}.auth_method", problem, "remove auth_method or client_secret")


def _find_open_address(settings: "Settings") -> Iterator[SettingsProblem]:
    """Yields an address on which codes, cookies and tokens would cross the network in plain text."""
    from gateway.server.settings import LOOPBACK

    public = urlsplit(settings.public_url)
    if settings.has_sign_in and settings.host in LOOPBACK and public.scheme != "https" and public.hostname not in LOOPBACK:
        problem = f"people sign in at {settings.public_url}, where codes and tokens cross the network in plain text"
        yield SettingsProblem(
            "server.public_url", problem, "end TLS in front of the gateway, and write its https:// address", is_fatal=False
        )
