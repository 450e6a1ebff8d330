"""Tells the service manager that the process serves, by the datagrams of sd_notify(3): a unit with `Type=notify` waits for them."""

import socket
from collections.abc import MutableMapping
from typing import Final

import structlog

VARIABLE: Final = "NOTIFY_SOCKET"
log = structlog.get_logger()


def report_ready(status: str, environment: MutableMapping[str, str]) -> None:
    """Sends READY=1 with a line of status for people to the socket that VARIABLE names, and removes the variable, so that programs
    which the gateway starts can't send. Without the variable nothing is sent. A socket that takes nothing is only logged.
    """
    path = environment.pop(VARIABLE, "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path  # "@" stands for the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(f"READY=1\nSTATUS={status.splitlines()[0]}\n".encode())
    except OSError as error:
        log.warning("readiness_not_reported", problem=str(error), todo=f"is {VARIABLE} the socket of the service manager?")
