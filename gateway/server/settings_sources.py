"""Loads the settings from `interlock.yaml`, environment variables and flags, and names the source of each problem."""

import difflib
import itertools
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from adapters.redaction.validation_texts import describe_problem
from gateway.server.settings import BadSettings, Settings

UNION_TAGS = frozenset({"str", "list[str]"})  # steps that pydantic adds for the parts of a union; no setting has such a name


def _merge_layers(*layers: dict[str, Any]) -> dict[str, Any]:
    """Returns one mapping of several, merged member by member; later ones have precedence."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = _merge_layers(result[name], value) if both else value
    return result


def load_settings(config: Path | None, **flag_values: Any) -> Settings:
    """Returns the settings of `config` (default: ./interlock.yaml where it exists), the environment and the flags.

    Flags have the highest precedence, then the environment. Raises BadSettings.
    """
    document: dict[str, Any] = {}
    text, path = "", config or Path("interlock.yaml")
    if config is not None or path.exists():
        text, document = _read(path)
    flags = {name: value for name, value in flag_values.items() if value is not None}
    try:
        return Settings(**_merge_layers(document, EnvSettingsSource(Settings)(), flags))
    except SettingsError as error:
        raise BadSettings(_unreadable_variables()) from error
    except ValidationError as error:
        root = yaml.compose(text, yaml.SafeLoader) if text else None
        problems = (_describe_setting(found, path, root) for found in error.errors(include_url=False, include_input=False))
        raise BadSettings("\n".join(dict.fromkeys(problems))) from error


def _unreadable_variables() -> str:
    """Returns a message that names the environment variables of lists and mappings whose value is not JSON."""
    source, wrong = EnvSettingsSource(Settings), []
    for name, value in dict(source.env_vars).items():
        source.env_vars = {name: value}
        try:
            source()
        except SettingsError:
            wrong.append(name.upper())
    return f"{', '.join(sorted(wrong))}: write a list or a mapping as JSON, such as '[\"https://app.example.com\"]'"


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Returns the file's text and its document. Raises BadSettings with the line."""
    try:
        text = path.read_text()
        _refuse_repeated_names(path, yaml.compose(text, yaml.SafeLoader))
        document = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadSettings(f"{path}{line}: {error.problem or error.context}") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(document, dict):
        raise BadSettings(f"{path}: a mapping of settings is expected, such as `users:` and below it `  alice: {{roles: [sales]}}`")
    return text, document


def _refuse_repeated_names(path: Path, root: yaml.Node | None) -> None:
    """Raises BadSettings for a name that a mapping has twice: YAML's reader would take the last one and forget the others."""
    places: list[tuple[str, yaml.Node | None]] = [("", root)]
    read: set[int] = set()
    while places:
        where, node = places.pop()
        if node is None or id(node) in read:  # an alias names a node again
            continue
        read.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            places += [(f"{where}[{index}]", item) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = f"{where}.{key.value}".removeprefix("."), key.start_mark.line + 1
                if name in lines:
                    raise BadSettings(f"{path}:{line}: {name}: is set twice; line {lines[name]} has it too")
                lines[name] = line
                places.append((name, value))


def _describe_setting(error: Mapping[str, Any], path: Path, root: yaml.Node | None) -> str:
    """Returns one problem, with its line in the file, or else with the variable or flag it may come from."""
    steps = tuple(step for step in error["loc"] if step not in UNION_TAGS)
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    problem = _describe_unknown(steps) if error["type"] == "extra_forbidden" else describe_problem(error)
    if line := _find_line(root, steps):
        return f"{path}:{line}: {name}: {problem}"
    named = tuple(itertools.takewhile(lambda step: isinstance(step, str), steps))  # lists are given whole, as JSON
    return f"{name} (INTERLOCK_{'__'.join(map(str, named)).upper()} or a flag): {problem}"


def _describe_unknown(steps: tuple[int | str, ...]) -> str:
    """What is said of a name that no setting has: the one that is most like it, of those in its place."""
    kind: Any = Settings
    for step in steps[:-1]:
        kind = _kind_of_member(kind, step)
    near = difflib.get_close_matches(str(steps[-1]), getattr(kind, "model_fields", ()), n=1)
    return f"there is no such setting; is {near[0]} meant?" if near else "there is no such setting; docs/settings.md has all of them"


def _kind_of_member(kind: Any, step: int | str) -> Any:
    """The type of a member: a field of a model, an item of a list, a value of a mapping."""
    fields = getattr(kind, "model_fields", {})
    if step in fields:
        return fields[step].annotation
    members = typing.get_args(kind)
    return members[-1] if members else None


def _find_line(node: yaml.Node | None, steps: tuple[int | str, ...]) -> int:
    """Returns the line of the value at `steps`, from 1.

    For a missing value it is the line of the mapping that lacks it, or 0 when that is missing too.
    """
    found = 0
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            pair = (node.value[step], node.value[step])
        else:
            break
        if pair is None:
            break
        found, node = pair[0].start_mark.line + 1, pair[1]
    return found
