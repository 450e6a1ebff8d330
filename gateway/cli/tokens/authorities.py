"""Which certificate authorities the command line trusts: those of the machine, as the gateway does, so that a company's own work too."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def trusted_authorities(url: str) -> "ssl.SSLContext":
    """Returns the TLS context for requests to `url`.

    It has OpenSSL's certificates, which SSL_CERT_FILE and SSL_CERT_DIR replace, and those that come with httpx, for a Python without any.
    For plain HTTP it has none, since reading them takes 20 ms.
    """
    import ssl

    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    import httpx

    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
