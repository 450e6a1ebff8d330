"""The settings in force, each with where its value came from, without secrets: for operators who look at a running gateway."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

ENVIRONMENT_PREFIX: Final = "INTERLOCK_"
SECRET_NAMES: Final = ("token", "secret", "password", "key", "credential", "headers")
NAMES_SHOWN: Final = 50


def describe_settings(settings: BaseSettings) -> list[dict[str, Any]]:
    """Returns each setting as `name`, `value` and `source`: default, file (or a flag), or environment.

    Lists and mappings of entries are shown by the names of these, since what is within them may be a credential.
    """
    variables = set(map(str.upper, EnvSettingsSource(type(settings)).env_vars))
    return list(_walk(settings, (), variables, is_set=True))


def _walk(model: BaseModel, path: tuple[str, ...], variables: set[str], *, is_set: bool) -> Iterator[dict[str, Any]]:
    for name in type(model).model_fields:
        value, here = getattr(model, name), (*path, name)
        was_set = is_set and name in model.model_fields_set
        if isinstance(value, BaseModel):
            yield from _walk(value, here, variables, is_set=was_set)
            continue
        source = "environment" if _is_of_environment(here, variables) else "file" if was_set else "default"
        yield {"name": ".".join(here), "value": _describe_value(name, value), "source": source}


def _is_of_environment(path: tuple[str, ...], variables: set[str]) -> bool:
    """Whether a variable has the setting, or as JSON what it is part of."""
    return any(ENVIRONMENT_PREFIX + "__".join(path[:length]).upper() in variables for length in range(1, len(path) + 1))


def _describe_value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return [*map(str, value)][:NAMES_SHOWN]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_describe_entry(name, each) for each in value[:NAMES_SHOWN]]
    return mask_secrets(name, str(value))


def _describe_entry(name: str, entry: Any) -> str:
    if isinstance(entry, BaseModel):
        named = next((getattr(entry, each) for each in ("name", "id", "issuer", "url", "who") if getattr(entry, each, "")), "")
        return mask_secrets(name, str(named)) or type(entry).__name__
    return mask_secrets(name, str(entry))


def mask_secrets(name: str, text: str) -> str:
    """Returns a text without what may be secret: references stay, addresses lose what is behind the host, and passwords."""
    if text.startswith(("env:", "file:")) or not text:
        return text
    if any(part in name.lower() for part in SECRET_NAMES):
        return "(not shown)"
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not shown)"
    if "@" in parts.netloc + parts.path and (not host or "@" in parts.path):  # such as a socket's, or a password with a slash
        return "(not shown)"
    if not host:
        return text.partition("?")[0]
    return f"{parts.scheme}://{host}{port}" + ("/…" if parts.path.strip("/") or parts.query else "")
