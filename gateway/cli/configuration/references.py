"""References of documents: to secrets (`env:NAME`, `file:PATH`, `stored:`), and to files with longer members. Documents have no secrets."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.cli.configuration.problems import BadMember
from gateway.workflows.dsl.yaml_reader import Unreadable, read_yaml

ENVIRONMENT: Final = "env:"
FILE: Final = "file:"
STORED: Final = "stored:"  # the gateway keeps the value that it has
SECRET_BYTES_MAX: Final = 64 << 10
SECRET_NAMES: Final = frozenset(
    {
        *("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "api_key", "apikey"),
        *("client_secret", "secret_access_key", "session_token", "password", "assertion", "secret", "token"),
    }
)


def is_reference(value: object) -> bool:
    """Returns whether a value of `upstream` stands for a secret that is elsewhere."""
    return isinstance(value, str) and (value.startswith((ENVIRONMENT, FILE)) or value == STORED)


def check_no_secret(upstream: Any, path: str = "/spec/upstream") -> None:
    """Raises BadMember for a text under a name of secrets that is no reference: documents are kept where many read them."""
    if isinstance(upstream, Mapping):
        for name, value in upstream.items():
            here = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if isinstance(value, str) and name.lower() in SECRET_NAMES and value and not is_reference(value):
                raise BadMember(here, "is a secret: write env:NAME or file:PATH instead, which are read where you run the command")
            check_no_secret(value, here)
    elif isinstance(upstream, list):
        for index, value in enumerate(upstream):
            check_no_secret(value, f"{path}/{index}")


def resolve_secrets(upstream: Any, folder: Path, path: str = "/spec/upstream") -> Any:
    """Returns the settings with the secrets themselves for `env:NAME` and `file:PATH`, and `stored:` as it is. Raises BadMember."""
    if isinstance(upstream, Mapping):
        return {name: resolve_secrets(value, folder, f"{path}/{name}") for name, value in upstream.items()}
    if isinstance(upstream, list):
        return [resolve_secrets(value, folder, f"{path}/{index}") for index, value in enumerate(upstream)]
    if not isinstance(upstream, str):
        return upstream
    if upstream.startswith(ENVIRONMENT):
        name = upstream.removeprefix(ENVIRONMENT)
        if not (value := os.environ.get(name, "")):
            raise BadMember(path, f"is the variable {name}, which is not set or empty: set it where you run the command")
        return value
    return _read_secret(folder / upstream.removeprefix(FILE), path) if upstream.startswith(FILE) else upstream


def _read_secret(file: Path, path: str) -> str:
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadMember(path, f"is in {file}, which can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not text or len(raw) > SECRET_BYTES_MAX:
        raise BadMember(path, f"is in {file}, which is empty or has more than {SECRET_BYTES_MAX} bytes")
    return text


def read_member_files(spec: Mapping[str, Any], members: Collection[str], folder: Path) -> dict[str, Any]:
    """Returns the spec with the data of the files that some of its members name as `file:PATH`, in YAML or JSON. Raises BadMember."""
    found = dict(spec)
    for name in members & spec.keys():
        value = spec[name]
        if isinstance(value, str) and value.startswith(FILE):
            file = folder / value.removeprefix(FILE)
            try:
                found[name], _ = read_yaml(file.read_text("utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise BadMember(f"/spec/{name}", f"can't be read: {getattr(error, 'strerror', None) or error}") from error
            except Unreadable as error:
                raise BadMember(f"/spec/{name}", f"{error.reason} (line {error.line} of {file})") from error
    return found
