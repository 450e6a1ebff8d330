"""What modules, classes, functions and tests may be called, and the sentence that each module starts with."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.house.limits import Function
from tests.house.source import Source

BAGS = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "manager", "service", "services", "shared", "lib", "models"}
SHADOWS = {"mcp", "a2a"}
PARTICIPLES_MAX = 0.03  # of the functions of one package
TEST_NAME_MAX = 79  # characters
VAGUE_MAX = 0.02  # of the docstrings of one package
VAGUE = re.compile(r"\b(?:who(?:ever|m)?|nobody|anybody|somebody|everybody|of (?:ours|theirs)|meanwhile|anew)\b", re.IGNORECASE)

ENDS_IN_ED = {"bed", "bleed", "breed", "embed", "exceed", "feed", "led", "need", "proceed", "red", "seed", "shed", "speed", "succeed"}
IRREGULAR = re.compile(
    "beaten|become|been|begun|bent|bitten|born|bought|bound|bred|broken|brought|built|burnt|caught|chosen|crept|dealt|"
    "done|drawn|driven|eaten|fallen|fed|felt|forgotten|fought|found|frozen|given|gone|got|grown|heard|held|hidden|hung|"
    "kept|known|laid|learnt|led|left|lent|lost|made|meant|met|paid|risen|said|seen|sent|shown|sold|sought|spent|spoken|"
    "stolen|stood|struck|stuck|sung|swept|sworn|taken|taught|thought|thrown|told|torn|understood|won|worn|woven|written"
)


def bags(source: Source) -> list[str]:
    """Names that say nothing, names of leftovers, and names that hide a library."""
    found = []
    for step in source.module.split("."):
        words = set(step.split("_"))
        if step in SHADOWS or words & BAGS or "new" in words or (step.endswith(("_v2", "2")) and not step.endswith(("oauth2", "httpx2"))):
            found.append(f"{source.path}: `{step}` is no name for a module")
    return found


def silent_modules(source: Source) -> list[str]:
    """Modules that do not start with a sentence. Private ones and empty package files may be silent."""
    if not source.text.strip() or (source.path.rpartition("/")[2].startswith("_") and not source.path.endswith("__init__.py")):
        return []
    sentence = (ast.get_docstring(source.tree) or "").partition("\n\n")[0].strip()
    good = sentence.endswith(".") and len(sentence) > 20
    return [] if good else [f"{source.path}: starts with a sentence that ends with a period"]


def bare_folders(root: Path) -> list[str]:
    """Folders with tests or fakes in them, but without `__init__.py`: these would shadow the packages they mirror."""
    folders = {path.parent for path in root.rglob("*.py")}
    return sorted(f"{folder}: no __init__.py" for folder in folders if not (folder / "__init__.py").exists())


def is_participle(name: str) -> bool:
    """Whether a function is named by one past participle, such as `kept` or `_allowed`, rather than by a verb with an object."""
    word = name.strip("_")
    return bool(IRREGULAR.fullmatch(word)) or (word.isalpha() and word.endswith("ed") and word not in ENDS_IN_ED)


def functions_of(source: Source) -> list[Function]:
    return [node for node in ast.walk(source.tree) if isinstance(node, Function)]


def participles(sources: Iterable[Source]) -> tuple[list[str], float]:
    """The functions and methods that a past participle alone names, and their share of all."""
    functions = [(source, node) for source in sources for node in functions_of(source)]
    found = [f"{source.path}:{node.lineno}: {node.name}" for source, node in functions if is_participle(node.name)]
    return found, len(found) / len(functions)


def repeated_classes(sources: Iterable[Source]) -> list[str]:
    """Classes, nested ones included, whose name another file has too."""
    files: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].add(source.path)
    return [f"class {name}: {', '.join(sorted(paths))}" for name, paths in sorted(files.items()) if len(paths) > 1]


def long_test_names(source: Source) -> list[str]:
    """Test functions whose name is no short claim."""
    names = [(node.lineno, node.name) for node in functions_of(source) if node.name.startswith("test_")]
    return [f"{source.path}:{line}: {name} has {len(name)} characters" for line, name in names if len(name) > TEST_NAME_MAX]


def docstrings(sources: Iterable[Source]) -> list[tuple[str, str]]:
    """Place and text of the docstrings of modules, classes and functions."""
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                found.append((f"{source.path}:{getattr(node, 'lineno', 1)}", text))
    return found


def vague_docstrings(sources: Iterable[Source]) -> tuple[list[str], float]:
    """The docstrings that name no actor but "whoever", "somebody" and the like, and their share of all."""
    texts = docstrings(sources)
    found = [f"{place}: {match[0]}" for place, text in texts if (match := VAGUE.search(text))]
    return found, len(found) / len(texts)
