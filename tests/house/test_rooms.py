"""Every library that has a room has its contract, so that import-linter watches it."""

import ast
import sys
import tomllib
from functools import cache

from tests.house.source import PRODUCT, ROOT, Source, product

ROOMS = {
    *("a2a", "aiohttp", "botocore", "cedarpy", "cronsim", "fastapi", "genai_prices", "google", "grpc", "httpx", "httpx2"),
    *("jinja2", "jiter", "jmespath", "jose", "jq", "jsonschema_rs", "markupsafe", "mcp", "mcp_types", "pydantic_monty", "tantivy"),
}
FREE = {  # used where they are needed; an addition is decided here
    "alembic",
    "cryptography",
    "httptools",
    "jsonschema",
    "msgspec",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "referencing",  # comes with jsonschema: where its references lead
    "rfc8785",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "typer",
    "uvicorn",
    "uvloop",
    "yaml",
    "yarl",  # comes with aiohttp, whose addresses it is
}


@cache
def contracts() -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return found


def imported(source: Source) -> set[str]:
    """The top-level packages that a module imports."""
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def test_every_library_with_a_room_has_a_contract() -> None:
    watched = {name for contract in contracts() if contract["type"] == "forbidden" for name in contract["forbidden_modules"]}  # type: ignore[attr-defined]  # TOML has no types
    assert watched == ROOMS


def test_every_library_has_a_room_or_is_free() -> None:
    used = set().union(*(imported(source) for source in product()))
    assert used - set(sys.stdlib_module_names) - set(PRODUCT) - ROOMS - FREE == set()


def test_every_package_names_all_its_folders() -> None:
    exhaustive = {contract["id"] for contract in contracts() if contract.get("exhaustive")}
    assert exhaustive == {*PRODUCT, "ingress", "calls"}


def test_imports_are_read_from_both_statements() -> None:
    assert imported(Source("x.py", "import jose.jws\nfrom mcp_types import X\nfrom . import y\n")) == {"jose", "mcp_types"}
