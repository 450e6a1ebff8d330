"""The files of this repository as text and syntax trees, for the rules of the house."""

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("gateway", "adapters", "registry", "policies")
PAPERS = (".md", ".toml", ".lock", ".yaml", ".yml", ".cedar", ".sql", ".html", ".css", ".feature", "")
SKIPPED = {".git", ".venv", ".interlock", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


@dataclass(frozen=True)
class Source:
    """One Python file. `path` is relative to the root, with forward slashes."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    @property
    def module(self) -> str:
        """`gateway.oauth` for both gateway/ingress/oauth.py and gateway/ingress/oauth/__init__.py."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


@cache
def files() -> tuple[Path, ...]:
    """Every file that is kept, none that is made."""
    return tuple(_files(ROOT))


@cache
def python(*folders: str) -> tuple[Source, ...]:
    """The Python files below these folders of the root. Raises LookupError for a folder that has none."""
    found = (path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders)
    sources = tuple(Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in found)
    if empty := set(folders) - {source.path.partition("/")[0] for source in sources}:
        raise LookupError(f"no Python file below {', '.join(sorted(empty))}")
    return sources


def product() -> tuple[Source, ...]:
    return python(*PRODUCT)


def everything() -> tuple[Source, ...]:
    return python(*PRODUCT, "tests", "examples")


def texts() -> Iterator[tuple[str, str]]:
    """Path and text of all that a person may read: code, papers, settings, scripts."""
    for path in files():
        if path.suffix in (*PAPERS, ".py"):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def assert_kept(rule: Callable[[Source], list[str]], sources: Iterable[Source]) -> None:
    """Fails with one line for each place that breaks the rule, and when there is no file to check."""
    __tracebackhide__ = True
    sources = tuple(sources)
    assert sources, "no file to check"
    problems = [problem for source in sources for problem in rule(source)]
    assert not problems, "\n" + "\n".join(problems)
