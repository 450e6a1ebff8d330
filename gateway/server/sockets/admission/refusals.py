"""Answers to requests that the process does not admit: their bytes, and when they are written."""

import asyncio
from typing import Final, Protocol

import msgspec

from gateway.calls.limits.slots import Overloaded
from gateway.ingress.http.asgi import SECURITY_HEADERS, Header
from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE, problem
from gateway.ingress.http.errors import describe

RETRY_SECONDS: Final = (1, 2, 3)  # Retry-After, in turns, so that refused clients do not all come back at once
OVERLOADED_TEXT: Final = "The gateway has more requests than it can serve in time; try again later."


class RefusalBytes:
    """Whole answers to refused requests, built once. `next` returns them in turns."""

    def __init__(self) -> None:
        self._kept_open = [_refusal_bytes(seconds, ()) for seconds in RETRY_SECONDS]
        self._closing = [_refusal_bytes(seconds, ((b"connection", b"close"),)) for seconds in RETRY_SECONDS]
        self._turn = 0

    def next(self, *, keeps_open: bool = True, with_body: bool = True) -> bytes:
        """Returns head and body, or for HEAD the head alone."""
        self._turn = (self._turn + 1) % len(RETRY_SECONDS)
        answer = (self._kept_open if keeps_open else self._closing)[self._turn]
        return answer if with_body else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _refusal_bytes(seconds: int, headers: tuple[Header, ...]) -> bytes:
    report = describe(Overloaded(OVERLOADED_TEXT, seconds))
    body = msgspec.json.encode(problem(report))
    length = (b"content-length", str(len(body)).encode())
    lines = ((b"content-type", PROBLEM_MEDIA_TYPE), length, (b"retry-after", str(seconds).encode()), *SECURITY_HEADERS, *headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n%b\r\n%b" % (b"".join(b"%b: %b\r\n" % line for line in lines), body)


class Answerable(Protocol):
    """A client's connection."""

    def is_closing(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class RefusalBatch:
    """Refusals that are written together, after all requests of an iteration of the event loop were read.

    Reading and writing in turns costs twice the time: each evicts the other's code from the processor's caches, and a waiting client is
    woken for each answer.
    """

    def __init__(self) -> None:
        self.answers: dict[Answerable, bytes] = {}  # that are not written yet

    def add(self, connection: Answerable, answer: bytes) -> None:
        """Writes `answer` before the event loop waits again. `connection` has no other answer in the batch."""
        if not self.answers:
            asyncio.get_running_loop().call_soon(self.write)
        self.answers[connection] = answer

    def write(self) -> None:
        """Writes all answers now."""
        answers, self.answers = self.answers, {}
        for connection, answer in answers.items():
            if not connection.is_closing():
                connection.write(answer)
