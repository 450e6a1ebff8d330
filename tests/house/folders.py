"""Folders of the product: how many entries each has, what it says of itself, and which sibling imports which."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.house.source import Source

ENTRIES_MAX = 14
LIKE_THINGS = {"adapters/vendors", "gateway/storage/migrations/versions"}  # lists of like things may be longer
Graph = dict[str, set[str]]


def entries_by_folder(sources: Iterable[Source]) -> dict[str, set[str]]:
    """The modules and folders directly in each folder, without `__init__.py` and `__main__.py`."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        parts = source.path.split("/")
        for depth in range(1, len(parts)):
            if parts[depth] not in ("__init__.py", "__main__.py"):
                found["/".join(parts[:depth])].add(parts[depth])
    return dict(found)


def crowded_folders(sources: Iterable[Source]) -> list[str]:
    """Folders with more than 14 entries."""
    return [
        f"{folder}: {len(entries)} entries, at most {ENTRIES_MAX}"
        for folder, entries in sorted(entries_by_folder(sources).items())
        if len(entries) > ENTRIES_MAX and folder not in LIKE_THINGS
    ]


def folders_without_a_sentence(sources: Iterable[Source]) -> list[str]:
    """Folders whose `__init__.py` does not say in one line what they are for."""
    said = {source.path: (ast.get_docstring(source.tree) or "").strip() for source in sources}
    folders = {path.rpartition("/")[0] for path in said}
    texts = {folder: said.get(f"{folder}/__init__.py", "") for folder in sorted(folders)}
    return [f"{folder}/__init__.py: one sentence, in one line" for folder, text in texts.items() if not text.endswith(".") or "\n" in text]


def _imported_modules(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sibling_imports(sources: Iterable[Source]) -> dict[str, Graph]:
    """For each folder: which of its entries imports which other one. An entry is a module, or a folder with all below it."""
    sources = list(sources)
    modules = {source.module for source in sources}
    graphs: dict[str, Graph] = defaultdict(lambda: defaultdict(set))
    for source in sources:
        steps = source.module.split(".")
        for name in _imported_modules(source):
            target = name.split(".")
            if name not in modules or name == source.module:
                continue
            shared = next((at for at, (own, other) in enumerate(zip(steps, target, strict=False)) if own != other), None)
            if shared is not None:
                graphs[".".join(steps[:shared])][steps[shared]].add(target[shared])
    return graphs


def circles(graph: Graph) -> list[str]:
    """Entries that import each other, directly or through others."""
    reach = {start: _reachable(graph, start) for start in graph}
    return sorted(entry for entry, reached in reach.items() if entry in reached)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = list(graph.get(start, ()))
    while left:
        entry = left.pop()
        if entry not in found:
            found.add(entry)
            left.extend(graph.get(entry, ()))
    return found


def import_circles(sources: Iterable[Source]) -> list[str]:
    """Folders whose entries import each other in a circle, at any level of the tree."""
    graphs = sibling_imports(sources)
    if not graphs:
        raise LookupError("no import between modules was found")
    return [f"{folder or 'the packages'}: {', '.join(found)}" for folder, graph in sorted(graphs.items()) if (found := circles(graph))]
