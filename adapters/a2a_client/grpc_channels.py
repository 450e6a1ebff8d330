"""gRPC channels: one long-lived channel per target, to addresses that the egress guard vetted, and a bounded number of them."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any, Final

import grpc

from adapters.a2a_client.wire.transport import ANSWER_LIMIT
from adapters.upstream.egress import Egress, Pinned
from adapters.upstream.targets import grpc_url, names_no_scheme

CHANNELS_MAX: Final = 256
FRESH_SECONDS: Final = 60.0  # after which the name is looked up and vetted again
RETIRED_SECONDS: Final = 600.0  # that calls on a channel which was replaced may still take
OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.primary_user_agent", "interlock"),
)
_DOWN: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class Line:
    """A channel with the addresses that it is pinned to."""

    __slots__ = ("addresses", "channel", "checked", "stubs")

    def __init__(self, channel: "grpc.aio.Channel", addresses: tuple[str, ...], checked: float) -> None:
        self.channel = channel
        self.addresses = addresses
        self.checked = checked  # when, on the clock of Channels
        self.stubs: dict[bool, Any] = {}  # of services, made on first use

    async def connected(self, seconds: float) -> bool:
        """Whether there is a connection by then. A call that waits for it is not sent without one; what it says afterwards tells nothing
        of that, since agents may use the same words as gRPC itself.
        """
        try:
            async with asyncio.timeout(seconds):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in _DOWN:
                        return False
                    await self.channel.wait_for_state_change(state)
        except (TimeoutError, grpc.aio.UsageError):  # late, or the channel is being closed
            return False
        return True


class Channels:
    """`roots`: PEM certificates to trust instead of those that gRPC brings."""

    def __init__(self, egress: Egress, now: Callable[[], float], roots: bytes | None = None, limit: int = ANSWER_LIMIT) -> None:
        """`limit`: bytes of one message of an agent."""
        self._options = (*OPTIONS, ("grpc.max_receive_message_length", limit))
        self._egress = egress
        self._now = now
        self._roots = roots
        self._lines: dict[tuple[str, bool | None], Line] = {}
        self._retired: set[asyncio.Task[None]] = set()

    async def line(self, target: str, tls: bool | None) -> Line:
        """The channel to a target such as `host:port`. `tls` None: as its scheme says, without one as `_wants_tls` does.

        Raises EgressRefused, and UpstreamFault when the name has no address.
        """
        known = self._lines.get((target, tls))
        if known is not None and self._now() - known.checked < FRESH_SECONDS:
            return known
        pinned = await self._egress.pinned(grpc_url(target))
        known = self._lines.get((target, tls))
        if known is None or known.addresses != pinned.addresses:
            known = self._replace((target, tls), known, pinned)
        known.checked = self._now()
        return known

    async def close(self) -> None:
        """Ends every channel."""
        lines, self._lines = list(self._lines.values()), {}
        for retiring in self._retired:
            retiring.cancel()
        await asyncio.gather(*(line.channel.close() for line in lines), *self._retired, return_exceptions=True)

    def _replace(self, key: tuple[str, bool | None], old: Line | None, pinned: Pinned) -> Line:
        if old is not None:
            self._retire(self._lines.pop(key))
        elif len(self._lines) >= CHANNELS_MAX:
            self._retire(self._lines.pop(next(iter(self._lines))))
        target, tls = key
        line = self._lines[key] = Line(self._open(pinned, _wants_tls(target, pinned) if tls is None else tls), pinned.addresses, 0.0)
        return line

    def _retire(self, line: Line) -> None:
        task = asyncio.ensure_future(line.channel.close(RETIRED_SECONDS))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def _open(self, pinned: Pinned, tls: bool) -> "grpc.aio.Channel":
        """Connects to the vetted addresses, under the name that was asked for."""
        host, port = str(pinned.url.raw_host), pinned.url.port
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        address = _address(pinned)
        if not tls:
            return grpc.aio.insecure_channel(address, [*self._options, ("grpc.default_authority", authority)])
        named = [("grpc.default_authority", authority), ("grpc.ssl_target_name_override", host)]
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(self._roots), [*self._options, *named])


def _address(pinned: Pinned) -> str:
    """A gRPC name of literal addresses, which nobody resolves; they are of one family in it."""
    port = pinned.url.port
    if ":" in pinned.addresses[0]:
        return "ipv6:" + ",".join(f"[{address}]:{port}" for address in pinned.addresses if ":" in address)
    return "ipv4:" + ",".join(f"{address}:{port}" for address in pinned.addresses if ":" not in address)


def _wants_tls(target: str, pinned: Pinned) -> bool:
    """Cards give no scheme: TLS it is, except within networks of our own that the operator allowed."""
    if not names_no_scheme(target):
        return pinned.url.scheme == "https"
    return pinned.url.port == 443 or any(ipaddress.ip_address(address).is_global for address in pinned.addresses)
