"""Habits of code that can't be taken back later: broad excepts, bare suppressions, mocks, leftovers."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator

from tests.house.limits import Function
from tests.house.source import Source

# Request handlers and roots of tasks, above which no code is left that could respond. Names of modules, or of folders with all below.
ROOTS = {
    "gateway.calls.resumption.rounds": "the root of the work on one task that waited for people",
    "gateway.calls.resumption.takeover": "the root of the work on one task of a lost process",
    "gateway.ingress.a2a_server.bindings": "request handlers",
    "gateway.ingress.a2a_server.cards": "a request handler",
    "gateway.ingress.mcp_server.elicitation.pending_calls": "the root of the task of a call that waits for an answer",
    "gateway.ingress.mcp_server.endpoint": "a request handler",
    "gateway.ingress.mcp_server.era_dispatch": "a request handler: an error of a request that has become a stream is its last event",
    "gateway.ingress.console.api": "a request handler, which the framework re-raises to after it has answered",
    "gateway.ingress.console.app": "a request handler",
    "gateway.ingress.console.attempts.streaming": "a request handler: a stream that fails ends with an event",
    "gateway.ingress.mcp_server.http_sse": "a request handler",
    "gateway.ingress.mcp_server.subscriptions.relist": "the root of the work on one server",
    "gateway.server.composition": "the root of the process",
    "gateway.server.health": "a request handler: a readiness check that raises has failed",
    "gateway.server.periodic": "the roots of periodic work",
    "gateway.server.router": "the outermost request handler",
    "gateway.server.sockets.http_exchange": "the root of one request",
    "gateway.storage.transactions": "the root of one job: its error goes to the caller that waits for it",
    "gateway.storage.writer": "the root of the writer's thread",
    "gateway.tasks.turns.deferred_endings": "the root of a task that writes an ending",
    "gateway.tasks.turns.recorder": "the root of a turn",
    "gateway.tasks.webhooks.delivery": "the root of one delivery",
    "gateway.workflows.engine.adapter": "the root of a run: what it has done is undone after any error",
    "gateway.workflows.cloud_events.triggers": "the root of one start of a trigger",
    "gateway.workflows.engine.scheduled_starts": "the root of the work on one schedule",
    "policies.keys.jwks": "a failed fetch of any kind keeps the last good key set; the fetch belongs to another package",
    "policies.tokens.verifier": "a token that cannot be read for any reason is refused",
}
ENVIRONMENT_READERS = ("gateway.server.settings", "gateway.cli.main", "gateway.server.app", "gateway.server.composition.telemetry")
LOGGED = {"exception", "error", "warning", "critical", "info", "debug"}
LEFTOVER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b")
SUPPRESSION = re.compile(
    r"#\s*(noqa|type:\s*ignore|pragma:|nosec|pyright:|mypy:)\s*(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|\[[\w, -]+\])?(.*)", re.IGNORECASE
)


def _names(node: ast.expr | None) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if node else {"BaseException"}


def _broad(source: Source) -> Iterator[ast.ExceptHandler]:
    """Handlers of everything that do not raise again at once."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _names(node.type) & {"Exception", "BaseException"}:
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield node


def _suppressed_lines(source: Source) -> Iterator[int]:
    """Lines with `suppress(Exception)`."""
    for node in (each for each in ast.walk(source.tree) if isinstance(each, ast.Call)):
        is_suppress = ast.unparse(node.func).rpartition(".")[2] == "suppress"
        if is_suppress and any(_names(argument) & {"Exception", "BaseException"} for argument in node.args):
            yield node.lineno


def _logs(node: ast.AST, loggers: frozenset[str] = frozenset()) -> bool:
    calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return any(
        (isinstance(call, ast.Attribute) and call.attr in LOGGED | loggers) or (isinstance(call, ast.Name) and call.id in loggers)
        for call in calls
    )


def root_of(source: Source) -> str | None:
    """The entry of ROOTS that a module belongs to."""
    return next((root for root in ROOTS if f"{source.module}.".startswith(f"{root}.")), None)


def needless_roots(sources: Iterable[Source]) -> set[str]:
    """Entries of ROOTS without a broad except."""
    return set(ROOTS) - {root_of(source) for source in sources if any(_broad(source))}


def broad_excepts(source: Source) -> list[str]:
    """`except Exception` stands only at a door or a task's root, with a line in the log."""
    at_a_root = root_of(source) is not None
    loggers = frozenset(one.name for one in ast.walk(source.tree) if isinstance(one, Function) and _logs(one))
    problems = []
    problems += [f"{source.path}:{line}: suppresses every exception" for line in _suppressed_lines(source)]
    for handler in _broad(source):
        if not at_a_root:
            problems.append(f"{source.path}:{handler.lineno}: a broad except, but no door or task root")
        elif not _logs(handler, loggers):
            problems.append(f"{source.path}:{handler.lineno}: a broad except without a line in the log")
    return problems


def _comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def bare_suppressions(source: Source) -> list[str]:
    """`noqa` and `type: ignore` name what they suppress and say why."""
    problems = []
    for line, comment in _comments(source):
        match = SUPPRESSION.search(comment)
        if match and (not match[2] or not re.search(r"[a-z]{3}", match[4])):
            problems.append(f"{source.path}:{line}: a suppression without its code or its reason")
    return problems


def leftovers(path: str, text: str) -> list[str]:
    return [f"{path}:{number}: a leftover" for number, line in enumerate(text.splitlines(), 1) if LEFTOVER.search(line)]


def http_middlewares(source: Source) -> list[str]:
    """Starlette's convenient middleware costs two tasks per request and breaks streaming."""
    found = [node for node in ast.walk(source.tree) if isinstance(node, ast.Name | ast.Attribute | ast.alias)]
    named = [
        node for node in found if "BaseHTTPMiddleware" in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", ""))
    ]
    decorated = [node for node in found if isinstance(node, ast.Attribute) and node.attr == "middleware"]
    return [f"{source.path}:{node.lineno}: middleware is pure ASGI here" for node in (*named, *decorated)]


def mocks(source: Source) -> list[str]:
    """Fakes, not mocks: no mock library, no `mocker`."""
    lines = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = ["mock"] if isinstance(node, ast.arg) and node.arg == "mocker" else []
        lines += [getattr(node, "lineno", 0) for name in names if name.startswith(("unittest.mock", "mock"))]
    return [f"{source.path}:{line}: a mock" for line in lines]


def environment_readers(source: Source) -> list[str]:
    """Settings are read in one file; the command line has two variables of its own."""
    if source.module in ENVIRONMENT_READERS or source.module.startswith("gateway.cli"):
        return []
    found = [node for node in ast.walk(source.tree) if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")]
    return [f"{source.path}:{node.lineno}: reads the environment" for node in found]
