"""The HTTP client of the command line: calls the gateway at INTERLOCK_URL with INTERLOCK_TOKEN, or the session of `interlock login`."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from gateway.cli.exit_codes import CommandError, CommandFailed, CommandRefused, GatewayUnreachable, NothingFound, WrongUsage
from gateway.cli.output import print_problem, problem_lines, show_progress
from gateway.cli.tokens.authorities import trusted_authorities
from gateway.cli.tokens.hints import explain_rejected_token
from gateway.cli.tokens.sessions import find_token

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
DENIED_CODE = -32010  # JSON-RPC: denied by policy, over A2A and MCP
LIMITED_CODE = -32012  # JSON-RPC: a limit is reached
UNKNOWN_CODES = (-32001, -32011)  # JSON-RPC: an unknown task; an unknown agent or server
CREDENTIAL_TODO = "set INTERLOCK_TOKEN: export INTERLOCK_TOKEN=$(interlock token --user alice)"
LISTING_TODO = "interlock agent list, server list, workflow list, tools and task list show what you may see"
LISTING_TODO_BY_KIND = {  # by the kind of the unknown thing in the gateway's answer
    "approval": "interlock approval list --state all shows the ones you may see",
    "such checkpoint": "interlock run checkpoints shows the ones you may answer",
    "no checkpoint": "interlock workflow show NAME draws the steps of a workflow",
    "such run": "interlock run list shows yours",
    "such workflow": "interlock workflow list shows the ones you may see",
    "connection": "interlock connection list shows yours",
    "such session": "interlock session list shows yours",
    "dead letter": "interlock deadletter list shows yours",
    "decision": "refusals name their decision; all are in the audit: interlock audit tail",
    "not quarantined": "interlock memory quarantines shows the agents whose facts are held back",
    "fact": "interlock memory list shows the ones that you may read",
    "has no value": "interlock state list shows the keys that you may read",
    "grant": "interlock why DECISION_ID shows the grant that an agent acted under",
    "hold in force": "interlock db holds shows the holds in force",
    "active kill": "interlock kill list shows active kills",
    "held back": "interlock state held shows the ones that you may see",
    "such claim": "interlock claim list shows yours",
    "such context": "interlock task show ID names the context of a task",
}
WRONG_URL_TODO = f"set INTERLOCK_URL to the address that `interlock serve` names; where it is not set, it is {DEFAULT_URL}"
ANSWER_SECONDS = 150.0  # a turn of an agent may take 120


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One server-sent event; `id` is empty when it has none."""

    id: str
    data: str


class GatewayClient:
    """One HTTP client. Every failure is a CommandError with what to do. Proxies and netrc of the environment are not used."""

    def __init__(self, url: str, token: str) -> None:
        import httpx

        if not url.startswith(("http://", "https://")):
            host = url if "://" not in url and re.fullmatch(r"[\w.-]+(:\d+)?/?", url) else ""
            todo = f"export INTERLOCK_URL=http://{host}" if host else f"for example: export INTERLOCK_URL={DEFAULT_URL}"
            raise WrongUsage(f"INTERLOCK_URL is {url!r}, not an http or https address", todo)
        if not token.isascii() or len(token.split()) > 1:
            raise WrongUsage("INTERLOCK_TOKEN is not a token", CREDENTIAL_TODO)
        self.url = url.rstrip("/")
        self._token = token
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=5.0)
        with self._translate_errors():
            self._client = httpx.Client(
                base_url=self.url,
                headers=self.headers,
                timeout=timeout,
                verify=trusted_authorities(self.url),
                trust_env=False,
                follow_redirects=False,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        match: str | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Returns the JSON answer, or None when it is empty. `match` is sent as If-Match."""
        headers = {"Accept": "application/json", **({"If-Match": f'"{match}"'} if match else {}), **(more_headers or {})}
        with self._translate_errors():
            answer = self._client.request(method, path, json=body, params=params or None, headers=headers)
        self._raise_for_status(answer)
        return self._decode(answer.content) if answer.content else None

    def send_value(self, method: str, path: str, value: Any, params: Mapping[str, str | int], headers: Mapping[str, str]) -> Any:
        """Returns the JSON answer to a request whose body is any JSON value, even null."""
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        with self._translate_errors():
            answer = self._client.request(method, path, content=json.dumps(value).encode(), params=params or None, headers=sent)
        self._raise_for_status(answer)
        return self._decode(answer.content)

    def approve(self, path: str, show: Callable[[Any], None], version: str | None = None, body: Any = None) -> Any:
        """Approves an entry of the registry at `version`, its `updated`.

        Without a version it passes the current entry to `show` and approves that.
        """
        if version is None:
            with show_progress("asking…"):
                waiting = self.get(path)
            show(waiting)
            version = waiting.get("updated")
        with show_progress("approving…"):
            return self.request("POST", f"{path}/approve", body=body, match=version)

    def list_all(self, path: str, limit: int = 1000, **params: str | int) -> list[Any]:
        """Returns the items of all pages of a list, at most `limit`."""
        items: list[Any] = []
        for page in self.read_pages(path, **params):
            items += page["items"]
            if len(items) >= limit:
                break
        return items[:limit]

    def read_pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yields the pages of a list."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.get(path, **params, **({"cursor": cursor} if cursor else {}))
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise error_for_other_service(self.url, "what it answers is no list of the gateway")
            if "empty" in page:
                print_problem(page["empty"]["detail"])
            yield page
            cursor = page.get("next")

    def call_rpc(self, path: str, method: str, params: Any, headers: Mapping[str, str]) -> Any:
        """Returns the result of one JSON-RPC call, from JSON or from an event stream."""
        for message in self.stream_rpc(path, method, params, headers):
            if "result" in message:
                return message["result"]
        raise CommandFailed("the answer ended before the result arrived", "try again; interlock task list shows what was started")

    def stream_rpc(self, path: str, method: str, params: Any, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yields every JSON-RPC message of the answer. Raises CommandError for an error message."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        accept = {"Accept": "application/json, text/event-stream"}
        with self._translate_errors(), self._client.stream("POST", path, json=body, headers={**accept, **headers}) as answer:
            if answer.is_error or not _is_stream(answer):
                answer.read()
                self._raise_for_status(answer)
                yield self._check_message(answer.content)
                return
            for sent in _parse_events(answer.iter_lines()):
                yield self._check_message(sent.data)

    def stream_events(self, path: str, last_event_id: str = "") -> Iterator[SseEvent]:
        """Yields the server-sent events after `last_event_id` until the gateway ends the stream."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        with self._translate_errors(), self._client.stream("GET", path, headers=headers) as answer:
            if answer.is_error or not _is_stream(answer):
                answer.read()
                self._raise_for_status(answer)
                raise error_for_other_service(self.url, f"{path} is not a stream of events")
            yield from _parse_events(answer.iter_lines())

    def stream_lines(self, path: str, **params: str) -> Iterator[str]:
        """Yields the lines of an answer that may be long."""
        with (
            self._translate_errors(),
            self._client.stream("GET", path, params=params, headers={"Accept": "application/x-ndjson"}) as answer,
        ):
            if answer.is_error:
                answer.read()
                self._raise_for_status(answer)
            yield from answer.iter_lines()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL, UnicodeError) as error:
            raise error_for_transport(self.url, error, httpx) from error

    def _raise_for_status(self, answer: "httpx.Response") -> None:
        if not answer.is_success:
            raise self.error_for_response(answer.status_code, answer.content)

    def error_for_response(self, status: int, content: bytes) -> CommandError:
        """Returns the error of an HTTP answer that is not a success. Errors of a gateway have a reason_id, or are of JSON-RPC or OAuth."""
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or not ("reason_id" in document or "error" in document):
            return error_for_other_service(self.url, f"it answers HTTP {status}")
        if status == 401:
            return explain_rejected_token(self._token, self.url)
        return error_for_document(document, status)

    def _decode(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            raise error_for_other_service(self.url, "what it answers is not JSON") from None
        except RecursionError:
            raise CommandFailed("the answer is nested too deeply to be shown", "curl shows it as it is") from None

    def _check_message(self, content: bytes | str) -> dict[str, Any]:
        """One JSON-RPC message; its error is raised."""
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise error_for_other_service(self.url, "what it answers is not JSON-RPC")
        if "error" in message:
            raise error_for_document(message, 200)
        return message


def connect(*, use_variable: bool = True, with_token: bool = True) -> GatewayClient:
    """Returns a client of the gateway that the environment names, with INTERLOCK_TOKEN, or else the token of `interlock login`.

    Without `use_variable` it ignores INTERLOCK_TOKEN, and without `with_token` it has no token. Raises CommandError.
    """
    url = os.environ.get("INTERLOCK_URL") or DEFAULT_URL
    token = os.environ.get("INTERLOCK_TOKEN", "").strip() if use_variable and with_token else ""
    return GatewayClient(url, token or (find_token(url) if with_token else ""))


def call_gateway(method: str, path: str, *, body: Any = None, progress: str = "asking…") -> Any:
    """Returns the answer to one request. Shows `progress` while it waits."""
    with connect() as remote, show_progress(progress):
        return remote.request(method, path, body=body)


def list_all(path: str, limit: int = 1000, **params: str) -> list[Any]:
    """Returns the items of all pages of a list, at most `limit`. Shows that it waits."""
    with connect() as remote, show_progress("asking…"):
        return remote.list_all(path, limit, **params)


def error_for_transport(url: str, error: Exception, http_library: ModuleType) -> CommandError:
    """Returns the error of a request without an answer. `http_library` is httpx, or httpx2, which the MCP SDK uses."""
    if isinstance(error, http_library.ConnectError) and (problem := _describe_tls_error(error)):
        todo = (
            "does it serve plain http? INTERLOCK_URL then begins with http://; else this machine must trust the certificate: "
            "install the one of its issuer, or name its file in SSL_CERT_FILE"
        )
        return GatewayUnreachable(f"no TLS connection to {url}: {problem}", todo)
    if isinstance(error, (http_library.ConnectError, http_library.ConnectTimeout)):
        return GatewayUnreachable(f"the gateway at {url} does not answer", "is the gateway running? start it with: interlock serve")
    if isinstance(error, http_library.TimeoutException):
        return CommandFailed(f"no answer within {ANSWER_SECONDS:.0f} s", "the request may still be running: interlock task list")
    if isinstance(error, http_library.TransportError):
        return GatewayUnreachable(f"the connection to {url} broke", "was the gateway stopped? start it with: interlock serve")
    return WrongUsage(f"{url} is not a valid URL", "check INTERLOCK_URL and the name you gave")


def _describe_tls_error(error: BaseException | None) -> str:
    """Returns what TLS says of a connection that did not come about, or an empty text when it had no part in it."""
    import ssl

    for _ in range(5):  # causes of a cause; httpx wraps twice
        if error is None:
            break
        if isinstance(error, ssl.SSLError):
            return str(getattr(error, "verify_message", "") or error.reason or "it was refused").lower().replace("_", " ")
        error = error.__cause__ or error.__context__
    return ""


def error_for_other_service(url: str, problem: str) -> CommandFailed:
    """What it means that something answers at the address, and not in the words of a gateway: another program, or a proxy in front."""
    return CommandFailed(f"{url} answers, but not as an Interlock gateway: {problem}", WRONG_URL_TODO)


def quote_segment(name: str) -> str:
    """Returns a name as one segment of a path. Raises WrongUsage for names that are no segment."""
    if name in ("", ".", ".."):
        raise WrongUsage("a name or an id is expected", "interlock COMMAND --help shows its arguments")
    return quote(name, safe="")


def error_for_document(document: Mapping[str, Any], status: int) -> CommandError:
    """Returns the error of an error document (RFC 9457 problem or JSON-RPC error) and its HTTP status."""
    error = document.get("error")
    inner = error if isinstance(error, dict) else document
    text = inner.get("detail") or inner.get("message") or document.get("error_description") or inner.get("title")
    text = str(text or f"the gateway answered {status}")
    details = {
        "code": _find_member(document, "reason_id"),
        "decision_id": _find_member(document, "decision_id"),
        "missing": _find_member(document, "missing"),
        "field": document.get("field"),
    }
    if isinstance(problems := document.get("problems"), list):
        lines = problem_lines(each for each in problems if isinstance(each, dict))
        return CommandFailed("\n".join(["the document is refused:", *lines]), details={**details, "problems": problems})
    if status == 403 or inner.get("code") == DENIED_CODE:
        return _refusal_from(text, details)
    if status in (429, 503) or inner.get("code") == LIMITED_CODE:
        return CommandFailed(text, _when_to_try_again(document), details=details)
    if status == 404 or inner.get("code") in UNKNOWN_CODES:
        todo = next((todo for word, todo in LISTING_TODO_BY_KIND.items() if word in text), LISTING_TODO)
        return NothingFound(text, todo, details=details)
    if status in (412, 428) and inner.get("reason_id") in ("stale-version", "version-required"):
        todo = "interlock state get KEY shows the version of now; give it as --version N"
        return CommandFailed(text, todo, details=details)
    return CommandFailed(text, details=details)


def _when_to_try_again(document: Mapping[str, Any]) -> str:
    """Returns what to do after a 429 or 503. A task in flight is to be watched, since sending its message again would repeat its acts."""
    if task := _find_member(document, "taskId"):
        return f"interlock task watch {shlex.quote(str(task))}"
    if _find_member(document, "reason_id") == "run-budget-spent" or _find_member(document, "reason") == "RUN_BUDGET_SPENT":
        return "interlock cost --budgets shows what is left of each budget"
    if _find_member(document, "reason_id") == "not-kept":
        return "its database fails or its disk is full: interlock doctor, on the gateway's machine, says which"
    return "budgets restart at midnight UTC" if _is_budget_spent(document) else "the gateway is busy: try again in a moment"


def _is_budget_spent(document: Mapping[str, Any]) -> bool:
    """Returns whether the daily budget is the reason: `reason_id` of problems and MCP errors, `reason` of A2A's ErrorInfo."""
    return bool(_find_member(document, "reason_id") == "budget-spent" or _find_member(document, "reason") == "BUDGET_SPENT")


def _refusal_from(text: str, details: Mapping[str, Any]) -> CommandRefused:
    lines = [f"refused: {text}"]
    for label, value in (("reason", details["code"]), ("missing", details["missing"]), ("decision", details["decision_id"])):
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        if shown and shown not in text:
            lines.append(f"{label}: {shown}")
    decision = details["decision_id"]
    return CommandRefused("\n".join(lines), f"for details: interlock why {shlex.quote(str(decision))}" if decision else "", details=details)


def _find_member(document: Any, name: str, depth: int = 6) -> Any:
    """Returns the first member of that name at any depth: problems have it at the top, JSON-RPC errors in `data`, A2A in its details."""
    if depth and isinstance(document, dict):
        if document.get(name):
            return document[name]
        inner = list(document.values())
    else:
        inner = document if depth and isinstance(document, list) else []
    return next((found for value in inner if (found := _find_member(value, name, depth - 1))), None)


def decode_json(content: bytes | str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise CommandFailed("an event of the stream is not JSON", WRONG_URL_TODO) from None


def _is_stream(answer: "httpx.Response") -> bool:
    return str(answer.headers.get("content-type", "")).startswith("text/event-stream")


def _parse_events(lines: Iterator[str]) -> Iterator[SseEvent]:
    """Parses WHATWG server-sent events: `id` stays until it is set again, and an event without data is skipped."""
    last = ""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield SseEvent(last, "\n".join(data))
            data = []
        elif name == "id":
            last = value
        elif name == "data":
            data.append(value)
