"""The exceptions that product code defines, and those that no door ever sees."""

import ast
import builtins

from tests.house.source import Source

BUILT_IN = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)}

# Caught by its own package, or raised where there is no caller yet. Everything else needs a row in gateway/errors.py.
INSIDE = {
    "gateway.settings.BadSettings": "start-up: printed by the command line",
    "gateway.commands.outcomes.Stop": "the command line's own exit codes",
    "policies.cedar.BadPolicy": "start-up, or a reload that keeps the last good set",
    "policies.delegation.CannotNarrow": "the authority turns it into a Denial",
    "policies.jwks.BadKeySet": "the last good key set stays",
    "policies.key_folder.KeysUnusable": "start-up",
}


def exceptions(sources: list[Source]) -> set[str]:
    """Dotted names of the public exception classes defined here, found by the names of their parents."""
    classes = [(source.module, node) for source in sources for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    known = set(BUILT_IN)
    while more := {
        node.name for _, node in classes if node.name not in known and known & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    }:
        known |= more
    return {f"{module}.{node.name}" for module, node in classes if node.name in known - BUILT_IN and not node.name.startswith("_")}
