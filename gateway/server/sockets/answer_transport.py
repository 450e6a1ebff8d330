"""The transport of a client's connection: counts what is written, and sends the head of an answer together with the body."""

import asyncio
from typing import Any

_HEAD_START, _HEAD_END = b"HTTP/1.1 ", b"\r\n\r\n"


class AnswerTransport:
    """Writes to a client. uvicorn writes the head of an answer, then its body, and uvloop would send each by a system call of its own.

    A head waits for the next write, at most until the end of the event loop's iteration. Each system call costs about 8 µs, since it also
    wakes the client. A body that looks like a head only waits like one.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""  # that waits for the body
        self.written = 0  # bytes, with those of a head that waits

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.endswith(_HEAD_END) and data.startswith(_HEAD_START):
            self._head = data
            self._loop.call_soon(self._send_head)
        else:
            self._transport.write(data)

    def _send_head(self) -> None:
        """Sends a head whose body has not come yet, as that of a stream, or does not come."""
        if self._head:
            head, self._head = self._head, b""
            if not self._transport.is_closing():
                self._transport.write(head)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
