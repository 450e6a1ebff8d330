"""Sends the changed requests over a few connections, and judges each answer."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiohttp
import yarl

from tests.fuzz.mutations import Case

ANSWER_SECONDS = 30.0  # within which an answer must begin
STREAM_SECONDS = 1.0  # after which an answer that goes on is left
_INTERNAL_ERROR = -32603


@dataclass(slots=True)
class Findings:
    """What the answers were. `faults`: the case, what was wrong, and the beginning of the answer."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[tuple[Case, str, str]] = field(default_factory=list)

    def count(self, beginning: str) -> int:
        return sum(fault.startswith(beginning) for _, fault, _ in self.faults)


def fault_of(status: int, media_type: str, body: bytes) -> str:
    """What is wrong with an answer to any request: a server error, an internal error of JSON-RPC, or JSON that isn't."""
    if status >= 500:
        return f"5xx: {status}"
    if not body or not media_type.endswith("json"):
        return ""
    try:
        document = json.loads(body)
    except ValueError:
        return "unreadable JSON"
    for answer in document if isinstance(document, list) else [document]:
        error = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(error, dict) and error.get("code") == _INTERNAL_ERROR:
            return "5xx: an internal error of JSON-RPC"
    return ""


async def send_cases(
    url: str, token: str, cases: Iterable[Case], width: int, on_progress: Callable[[int], None] = lambda _: None
) -> Findings:
    """Sends every case, `width` at a time, all as the person of `token`. Progress is told every thousand cases."""
    findings = Findings()
    left = iter(cases)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(limit=width)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def work() -> None:
            for case in left:
                await _send(http, url, token, case, findings)
                if findings.cases % 1_000 == 0:
                    on_progress(findings.cases)

        await asyncio.gather(*(work() for _ in range(width)))
    return findings


async def _send(http: aiohttp.ClientSession, url: str, token: str, case: Case, findings: Findings) -> None:
    headers = {"Authorization": f"Bearer {token}", **case.headers}
    address = yarl.URL(url + case.path, encoded=True)
    fault, answer = "", b""
    try:
        async with http.request(case.method, address, data=case.body or None, headers=headers, allow_redirects=False) as response:
            answer = await _read(response)
            findings.statuses[response.status] += 1
            fault = fault_of(response.status, response.content_type, answer)
    except TimeoutError:
        fault = f"hang: no answer in {ANSWER_SECONDS:.0f} s"
    except ValueError:
        pass  # a header or a path that no client can send
    except aiohttp.ClientError as error:
        fault = f"no answer: {error!r}"
    findings.cases += 1
    if fault:
        findings.faults.append((case, fault, answer[:2_000].decode(errors="replace")))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer, or what came of a stream until it paused for STREAM_SECONDS."""
    if response.content_type != "text/event-stream":
        return await response.read()
    parts = []
    try:
        async with asyncio.timeout(STREAM_SECONDS):
            async for part in response.content.iter_any():
                parts.append(part)
    except TimeoutError:
        response.close()
    return b"".join(parts)
