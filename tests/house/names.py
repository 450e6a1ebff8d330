"""What modules may be called, and the sentence that each one starts with."""

import ast
from pathlib import Path

from tests.house.source import Source

BAGS = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "manager", "service", "services", "shared", "lib", "models"}
SHADOWS = {"mcp", "a2a"}


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
