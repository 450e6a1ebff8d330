"""Programs that tests hold as text and run in processes of their own: the modules of the product that they name."""

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise

from tests.house.source import PRODUCT, Source

_MODULE = rf"(?:{'|'.join(PRODUCT)}|tests)(?:\.\w+)*"
_IMPORT = re.compile(rf"(?:^|[;\n])[ \t]*import ({_MODULE}(?:, ?[a-z_][\w.]*)*)")
_FROM = re.compile(rf"(?:^|[;\n])[ \t]*from ({_MODULE}) import (\w+)")
_RUN = re.compile(rf"-m ({_MODULE})\b")


def named_modules(text: str) -> Iterator[str]:
    """The modules of the product, or of tests, that a program or command line in `text` imports or runs."""
    for found in _IMPORT.finditer(text):
        yield from (name.strip() for name in found[1].split(",") if name.strip().partition(".")[0] in (*PRODUCT, "tests"))
    yield from (found[1] for found in _FROM.finditer(text))
    yield from (found[1] for found in _RUN.finditer(text))


def stale_modules(sources: Iterable[Source]) -> list[str]:
    """Modules that a string in `sources` names and that do not exist. Raises LookupError where no string names any."""
    stale, count = [], 0
    for source in sources:
        for line, name in _names(source.tree):
            count += 1
            if not _exists(name):
                stale.append(f"{source.path}:{line}: there is no module {name}")
    if not count:
        raise LookupError("no string names a module")
    return stale


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, name) for name in named_modules(node.value))
        elif isinstance(node, ast.List | ast.Tuple):
            texts = [each.value if isinstance(each, ast.Constant) else "" for each in node.elts]
            runs = pairwise(texts)
            yield from ((node.lineno, name) for flag, name in runs if flag == "-m" and str(name).partition(".")[0] in PRODUCT)


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
