"""Asks a server whether it still answers anything."""

from adapters.contract import NotSent, UpstreamFault
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.wire.eras import modern_params


async def answers_ping(channel: DuplexChannel, seconds: float) -> bool:
    """Whether the server sends any message within `seconds` of a ping. An error counts too: a server may know no `ping`.

    True where so many calls are under way that no ping can be sent, since that tells nothing of the server.
    """
    received = channel.messages_received
    try:
        await channel.request("ping", modern_params({}) if channel.is_modern else {}, seconds)
    except NotSent:
        return True
    except UpstreamFault:
        return channel.messages_received != received
    return True
