"""Habits of code that can't be taken back later: broad excepts, bare suppressions, mocks, leftovers."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.house.limits import Function
from tests.house.source import Source

# Doors and roots of tasks, where nothing is left above that could answer. Prefixes of module names.
ROOTS = (
    "adapters.mcp_client.pool",
    "adapters.mcp_client.stdio",
    "gateway.ingress.a2a_server",
    "gateway.ingress.admin",
    "gateway.server.composition",
    "gateway.cli.main",
    "gateway.cli",
    "gateway.calls.resumption.consented",
    "gateway.storage.database",
    "gateway.server.router",
    "gateway.server.health",
    "gateway.tasks.turns.deferred_endings",
    "gateway.ingress.mcp_server",
    "gateway.ingress.oauth",
    "gateway.tasks.webhooks.delivery",
    "gateway.server.periodic",
    "gateway.calls.resumption.approved",
    "gateway.calls.resumption.takeover",
    "gateway.storage.transactions",
    "gateway.tasks.turns.store",
    "gateway.storage.writer",
    "policies.tokens.verifier",  # whatever goes wrong while a token is read, nobody comes in
    "policies.keys.jwks",  # whatever goes wrong while keys are fetched, the last good set stays
)
ENVIRONMENT_READERS = ("gateway.server.settings", "gateway.cli.main", "gateway.server.app", "gateway.server.composition.tracing")
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


def _logs(node: ast.AST, loggers: frozenset[str] = frozenset()) -> bool:
    calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return any(
        (isinstance(call, ast.Attribute) and call.attr in LOGGED | loggers) or (isinstance(call, ast.Name) and call.id in loggers)
        for call in calls
    )


def broad_excepts(source: Source) -> list[str]:
    """`except Exception` stands only at a door or a task's root, with a line in the log."""
    at_a_root = any(source.module == root or source.module.startswith(f"{root}.") for root in ROOTS)
    loggers = frozenset(one.name for one in ast.walk(source.tree) if isinstance(one, Function) and _logs(one))
    problems = []
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
