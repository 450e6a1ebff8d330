"""Secrets in the upstream settings of an entry: shown as the text `stored:`, and kept where a change names them by this text."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.registration.requests import BadRequest
from gateway.registration.vendor_source import printable_name

STORED: Final = "stored:"  # stands for a secret that the gateway has and does not show
SECRET_WORDS: Final = ("token", "secret", "password", "passphrase", "key", "credential", "headers", "assertion", "cookie", "authorization")
OF_CLIENT: Final = ("issuer", "client_id")  # members of `auth` that say for whom its secret is
Path = tuple[str, ...]


def mask_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with `stored:` for each text below a name that is usual for secrets, and for addresses with a password."""
    return {name: _mask(value, (name,)) for name, value in settings.items()}


def _mask(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _mask(each, (*path, str(name))) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mask(each, path) for each in value]
    return STORED if isinstance(value, str) and value and _is_secret(value, path) else value


def _is_secret(text: str, path: Path) -> bool:
    has_password = "://" in text and "@" in text.split("://", 1)[1].split("/", 1)[0]
    return has_password or any(word in step.lower() for step in path for word in SECRET_WORDS)


def restore_secrets(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with the stored text in place of each `stored:`. Raises BadRequest where there is none for the same receiver."""
    return {name: _restore(value, stored.get(name), (name,)) for name, value in settings.items()}


def _restore(value: Any, stored: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        known = stored if isinstance(stored, Mapping) else {}
        if any(value.get(name) != known.get(name) for name in OF_CLIENT):
            known = {name: each for name, each in known.items() if isinstance(each, Mapping)}  # its secrets are for another client
        return {name: _restore(each, known.get(name), (*path, str(name))) for name, each in value.items()}
    if isinstance(value, list | tuple):
        items = stored if isinstance(stored, list | tuple) and len(stored) == len(value) else [None] * len(value)
        return [_restore(each, one, path) for each, one in zip(value, items, strict=True)]
    if value != STORED:
        return value
    if not isinstance(stored, str) or not stored:
        raise _nothing_stored(path)
    return stored


def refuse_stored(settings: Mapping[str, Any]) -> None:
    """Raises BadRequest for a `stored:` in the settings of a new entry, for which nothing is stored."""
    for path, value in _texts(settings, ()):
        if value == STORED:
            raise _nothing_stored(path)


def _nothing_stored(path: Path) -> BadRequest:
    where = ".".join(printable_name(step) for step in path)
    return BadRequest(f"upstream.{where}", "is stored: and the gateway has no such value for this receiver: give the value itself")


def find_differences(before: Any, after: Any, path: str) -> list[str]:
    """Returns the paths at which two settings differ, in the order of their names."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = sorted(before.keys() | after.keys())
        return [found for name in names for found in find_differences(before.get(name), after.get(name), f"{path}.{name}")]
    return [] if before == after else [path]


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, path)
    elif isinstance(value, str):
        yield path, value
