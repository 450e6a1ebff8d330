"""Self-signed certificates, TLS contexts of them, and a front that ends TLS before a server, as a proxy does."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def _named(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def certificate(*names: str, ends_in: timedelta = timedelta(1)) -> tuple[bytes, bytes]:
    """A certificate for host names or addresses and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(2), now + ends_in)
    made = (
        builder.add_extension(x509.SubjectAlternativeName([_named(each) for each in names]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), private


def trusting(pem: bytes) -> ssl.SSLContext:
    """For a client, that trusts this certificate alone."""
    return ssl.create_default_context(cadata=pem.decode())


def showing(folder: Path, pem: bytes, key: bytes, *protocols: str) -> ssl.SSLContext:
    """For a server. `protocols`: that it offers by ALPN."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (folder / "pair.pem").write_bytes(key + pem)
    context.load_cert_chain(folder / "pair.pem")
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@dataclass
class TlsFront:
    """`versions` are those of TLS that were agreed on, `protocols` those of ALPN, one a connection."""

    port: int
    versions: list[str | None]
    protocols: list[str | None]


@asynccontextmanager
async def tls_front(context: ssl.SSLContext, port: int) -> AsyncIterator[TlsFront]:
    """Speaks TLS on a port of its own, and hands every byte on to `port` of loopback."""
    front = TlsFront(0, [], [])

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        front.versions.append(tls.version())
        front.protocols.append(tls.selected_alpn_protocol())
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(asyncio.CancelledError):  # at the end of a test, which is no error
            await asyncio.gather(_handed_on(reader, behind_writer), _handed_on(behind_reader, writer))

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=context)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()


async def _handed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
