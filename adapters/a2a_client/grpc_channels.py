"""gRPC channels: one long-lived channel per target, to addresses that the egress guard vetted, at most CHANNELS_MAX."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any, Final

import grpc

from adapters.a2a_client.wire.transport import ANSWER_LIMIT
from adapters.upstream.egress import Egress, VettedTarget
from adapters.upstream.targets import grpc_url, has_no_scheme

CHANNELS_MAX: Final = 256
REVET_SECONDS: Final = 60.0  # after which the name is resolved and vetted again
RETIRED_SECONDS: Final = 600.0  # that calls on a replaced channel may still take
OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.primary_user_agent", "interlock"),
)
_DOWN: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class PinnedChannel:
    """A channel and the vetted addresses that it is pinned to."""

    __slots__ = ("addresses", "channel", "stubs", "vetted_at")

    def __init__(self, channel: "grpc.aio.Channel", addresses: tuple[str, ...], vetted_at: float) -> None:
        self.channel = channel
        self.addresses = addresses
        self.vetted_at = vetted_at  # on the clock of GrpcChannels
        self.stubs: dict[bool, Any] = {}  # of services, made on first use

    async def wait_until_connected(self, timeout_seconds: float) -> bool:
        """Whether the channel connects in time. Without a connection, the call is not sent.

        A later status can't tell that, since agents may send the same texts as gRPC itself.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in _DOWN:
                        return False
                    await self.channel.wait_for_state_change(state)
        except (TimeoutError, grpc.aio.UsageError):  # timed out, or the channel is being closed
            return False
        return True


class GrpcChannels:
    """Opens and caches channels. `roots`: PEM certificates to trust instead of gRPC's own."""

    def __init__(self, egress: Egress, now: Callable[[], float], roots: bytes | None = None, limit: int = ANSWER_LIMIT) -> None:
        """`limit`: maximum bytes of one message of an agent."""
        self._options = (*OPTIONS, ("grpc.max_receive_message_length", limit))
        self._egress = egress
        self._clock = now
        self._roots = roots
        self._pinned_channels: dict[tuple[str, bool | None], PinnedChannel] = {}
        self._closing_tasks: set[asyncio.Task[None]] = set()

    async def channel_to(self, target: str, tls: bool | None) -> PinnedChannel:
        """The channel to a target such as `host:port`. `tls` None: by its scheme, or without a scheme as `_wants_tls` decides.

        Raises EgressRefused, and UpstreamFault when the name has no address.
        """
        known = self._pinned_channels.get((target, tls))
        if known is not None and self._clock() - known.vetted_at < REVET_SECONDS:
            return known
        pinned = await self._egress.resolve_target(grpc_url(target))
        known = self._pinned_channels.get((target, tls))
        if known is None or known.addresses != pinned.addresses:
            known = self._replace((target, tls), known, pinned)
        known.vetted_at = self._clock()
        return known

    async def close(self) -> None:
        """Closes every channel."""
        lines, self._pinned_channels = list(self._pinned_channels.values()), {}
        for retiring in self._closing_tasks:
            retiring.cancel()
        await asyncio.gather(*(channel.channel.close() for channel in lines), *self._closing_tasks, return_exceptions=True)

    def _replace(self, key: tuple[str, bool | None], old: PinnedChannel | None, vetted: VettedTarget) -> PinnedChannel:
        if old is not None:
            self._retire(self._pinned_channels.pop(key))
        elif len(self._pinned_channels) >= CHANNELS_MAX:
            self._retire(self._pinned_channels.pop(next(iter(self._pinned_channels))))
        target, tls = key
        channel = self._pinned_channels[key] = PinnedChannel(
            self._open(vetted, _wants_tls(target, vetted) if tls is None else tls), vetted.addresses, 0.0
        )
        return channel

    def _retire(self, pinned_channel: PinnedChannel) -> None:
        task = asyncio.ensure_future(pinned_channel.channel.close(RETIRED_SECONDS))
        self._closing_tasks.add(task)
        task.add_done_callback(self._closing_tasks.discard)

    def _open(self, vetted: VettedTarget, tls: bool) -> "grpc.aio.Channel":
        """Opens a channel to the vetted addresses, with the target's name as authority."""
        host, port = str(vetted.url.raw_host), vetted.url.port
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        address = _grpc_address(vetted)
        if not tls:
            return grpc.aio.insecure_channel(address, [*self._options, ("grpc.default_authority", authority)])
        named = [("grpc.default_authority", authority), ("grpc.ssl_target_name_override", host)]
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(self._roots), [*self._options, *named])


def _grpc_address(vetted: VettedTarget) -> str:
    """A gRPC name of literal addresses of one family, which need no resolution."""
    port = vetted.url.port
    if ":" in vetted.addresses[0]:
        return "ipv6:" + ",".join(f"[{address}]:{port}" for address in vetted.addresses if ":" in address)
    return "ipv4:" + ",".join(f"{address}:{port}" for address in vetted.addresses if ":" not in address)


def _wants_tls(target: str, vetted: VettedTarget) -> bool:
    """Whether to use TLS for a target: without a scheme always, except in private networks that the operator allowed."""
    if not has_no_scheme(target):
        return vetted.url.scheme == "https"
    return vetted.url.port == 443 or any(ipaddress.ip_address(address).is_global for address in vetted.addresses)
