"""Clients that use every kind of request at any process, and remember each that failed."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.ingress.console.sign_in.links import PER_PERSON_MAX
from tests.journeys.kills import MCP, META, VERSION

LEGACY = "2025-11-25"
PAUSE_SECONDS = 0.05  # of a client whose request failed
BROKEN_OFF = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.IncompleteReadError)


class NotServed(Exception):
    """A request failed; the message says how."""


@dataclass(slots=True)
class Outcome:
    """How many requests were served, and what became of the others."""

    served: int = 0
    failed: list[str] = field(default_factory=list)
    by_kind: dict[str, int] = field(default_factory=dict)
    reopened: int = 0  # streams without an end of their own that a process closed


class AnyProcessClients:
    """`count` clients. Each request has a connection of its own, so that none sticks to a process."""

    def __init__(self, url: str, host: str, token: str, http: aiohttp.ClientSession) -> None:
        """`host`: of the gateway's public URL, which its tokens are for."""
        self._url, self._http = url, http
        self._headers = {"authorization": f"Bearer {token}", "host": host}
        self._numbers = itertools.count(1)
        self._stopped = asyncio.Event()
        self._visits = asyncio.Semaphore(PER_PERSON_MAX)  # the clients are one person, whose oldest open link gives way to the eleventh
        self.outcome = Outcome()

    async def run(self, count: int) -> Outcome:
        """Runs until `stop`."""
        acts: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "SendMessage": self._send_and_read,
            "SendStreamingMessage": self._stream,
            "SubscribeToTask": self._resume_stream,
            "tools/call": self._call,
            "tools/call in a session": self._call_in_session,
            "administration": self._read_tasks,
            "console": self._visit_console,
        }
        workers = (
            self._work(list(acts.items())[number % len(acts) :] + list(acts.items())[: number % len(acts)]) for number in range(count)
        )
        await asyncio.gather(self._listen(), *workers)
        return self.outcome

    def stop(self) -> None:
        self._stopped.set()

    async def _work(self, acts: list[tuple[str, Callable[[str], Awaitable[None]]]]) -> None:
        for name, act in itertools.cycle(acts):
            if self._stopped.is_set():
                return
            try:
                await act(f"said {next(self._numbers)}")
            except (NotServed, *BROKEN_OFF) as error:
                self.outcome.failed.append(f"{name}: {error!r}"[:1000])
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.outcome.served += 1
                self.outcome.by_kind[name] = self.outcome.by_kind.get(name, 0) + 1

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, form: Any = None
    ) -> tuple[Mapping[str, str], bytes]:
        """Raises NotServed for any status but 2xx, and 303 after a form."""
        sent = {"json": body} if form is None else {"data": form}
        url = f"{self._url}{path}"
        async with self._http.request(method, url, **sent, headers={**self._headers, **headers}, allow_redirects=False) as answer:
            said = await answer.read()
            if answer.status // 100 != 2 and not (form and answer.status == 303):
                raise NotServed(f"{method} {path}: {answer.status} {said[:700]!r}")
            return answer.headers, said

    async def _rpc(self, path: str, method: str, params: Any, headers: Mapping[str, str]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        _, said = await self._request("POST", path, headers, body)
        document = json.loads(said)
        if "result" not in document:
            raise NotServed(f"{method}: {said[:700]!r}")
        return document["result"]

    async def _send_and_read(self, said: str) -> None:
        """A task is sent at one process, read at another, and its numbered events are read at a third."""
        task = (await self._rpc("/agents/agent", "SendMessage", _message(said), VERSION))["task"]
        again = await self._rpc("/agents/agent", "GetTask", {"id": task["id"]}, VERSION)
        if again["status"]["state"] != "TASK_STATE_COMPLETED" or said not in json.dumps(again["artifacts"]):
            raise NotServed(f"GetTask: {again}")
        _, events = await self._request("GET", f"/api/tasks/{task['id']}/events", {"accept": "text/event-stream"})
        seqs = _event_numbers(events)
        if not seqs or seqs != list(range(seqs[0], seqs[0] + len(seqs))):
            raise NotServed(f"events of a task have gaps: {seqs}")

    async def _stream(self, said: str) -> None:
        await self._read_stream(said)

    async def _read_stream(self, said: str) -> bytes:
        """Returns the server-sent events of a whole turn."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": _message(said)}
        _, events = await self._request("POST", "/agents/agent", VERSION, body)
        if said.encode() not in events or b"TASK_STATE_COMPLETED" not in events:
            raise NotServed(f"a stream ended early: {events[-300:]!r}")
        return events

    async def _resume_stream(self, said: str) -> None:
        """The events of a turn after its first one are sent again by any process, each once, as to a client that lost its stream."""
        events = await self._read_stream(said)
        numbers, task = _event_numbers(events), json.loads(events.partition(b"data:")[2].split(b"\n")[0])["result"]["task"]["id"]
        body = {"jsonrpc": "2.0", "id": 2, "method": "SubscribeToTask", "params": {"id": task}}
        _, rest = await self._request("POST", "/agents/agent", {**VERSION, "last-event-id": str(numbers[0])}, body)
        if len(numbers) < 2 or _event_numbers(rest) != numbers[1:]:
            raise NotServed(f"a stream of the events {numbers} goes on with {_event_numbers(rest)}: {rest[-300:]!r}")

    async def _call(self, said: str) -> None:
        params = {"name": "echo", "arguments": {"text": said}, "_meta": META}
        result = await self._rpc("/mcp/server", "tools/call", params, MCP)
        if result["content"][0]["text"] != said:
            raise NotServed(f"tools/call: {result}")

    async def _call_in_session(self, said: str) -> None:
        """A session of the older era, whose requests reach different processes."""
        headers = await self._initialize()
        params = {"name": "echo", "arguments": {"text": said}}
        _, answer = await self._request(
            "POST", "/mcp/server", headers, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        )
        if said.encode() not in answer:
            raise NotServed(f"tools/call in a session: {answer[:200]!r}")
        await self._request("DELETE", "/mcp/server", headers)

    async def _initialize(self) -> dict[str, str]:
        """Returns the headers of a new session."""
        accept = {"accept": "application/json, text/event-stream"}
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        begun, _ = await self._request("POST", "/mcp/server", accept, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        headers = {**accept, "mcp-session-id": begun["mcp-session-id"], "mcp-protocol-version": LEGACY}
        await self._request("POST", "/mcp/server", headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        return headers

    async def _read_tasks(self, _said: str) -> None:
        await self._request("GET", "/api/tasks?limit=5", {})

    async def _visit_console(self, _said: str) -> None:
        """A link of one process opens a session at another, whose pages a third one shows."""
        async with self._visits:
            _, link = await self._request("POST", "/api/console/links", {})
            secret, own = json.loads(link)["url"].partition("link=")[2], {"origin": f"http://{self._headers['host']}"}
            opened, _ = await self._request("POST", "/console/sign-in", own, form={"link": secret})
            cookie = {"cookie": opened["set-cookie"].partition(";")[0]}
            _, page = await self._request("GET", "/console/tasks", cookie)
            if b"Sign out" not in page and b"sign-out" not in page:
                raise NotServed(f"a page of the console: {page[:200]!r}")

    async def _listen(self) -> None:
        """Holds the GET stream of a session, and opens it again, at any process, whenever a process closes it."""
        try:
            headers = {**(await self._initialize()), "accept": "text/event-stream"}
            stopped = asyncio.create_task(self._stopped.wait())
            while not stopped.done():
                async with self._http.get(f"{self._url}/mcp/server", headers={**self._headers, **headers}) as answer:
                    if answer.status != 200:
                        raise NotServed(f"GET /mcp/server: {answer.status} {(await answer.read())[:200]!r}")
                    reading = asyncio.create_task(answer.read())
                    await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
                    reading.cancel()
                self.outcome.reopened += not stopped.done()
        except (NotServed, *BROKEN_OFF) as error:
            self.outcome.failed.append(f"the stream of a session: {error!r}"[:1000])


def _event_numbers(events: bytes) -> list[int]:
    """The ids of server-sent events."""
    return [int(line[3:]) for line in events.decode().splitlines() if line.startswith("id:")]


def _message(said: str) -> dict[str, Any]:
    return {"message": {"messageId": said, "role": "ROLE_USER", "parts": [{"text": said}]}}
