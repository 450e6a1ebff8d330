"""Ports for those who open them themselves, later: none that the system gives to anybody meanwhile."""

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST = 10_240


def free_port() -> int:
    """Free now, and outside of what connections and servers get that name no port."""
    given = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(FIRST, max(given, 2 * FIRST))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def nowhere() -> str:
    """An address at which nobody listens, without a slash at its end."""
    return f"http://127.0.0.1:{free_port()}"
