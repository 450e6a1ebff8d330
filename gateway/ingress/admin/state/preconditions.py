"""ETags of values: the version in quotes; and If-Match and If-None-Match (RFC 9110 s13.1), which a change of a value needs."""

from collections.abc import Iterator
from typing import Final

from gateway.ingress.http.asgi import BadHeader, Scope, list_header
from gateway.state.board.values import Precondition

ANY: Final = "*"
TAGS_MAX: Final = 100
VERSION_DIGITS_MAX: Final = 18
NO_VERSION: Final = -1  # what a tag stands for that no version has, such as a weak one


def etag_of(version: int) -> str:
    return f'"{version}"'


def read_precondition(scope: Scope) -> Precondition:
    """The precondition of a change. Raises BadHeader."""
    match, none_match = list_header(scope, b"if-match"), list_header(scope, b"if-none-match")
    if none_match is not None and none_match != ANY:
        raise BadHeader("If-None-Match of a change must be *, which asks that there is no value yet")
    if match is not None and none_match is not None:
        raise BadHeader("If-Match and If-None-Match exclude each other")
    if match == ANY:
        return Precondition(any_version=True)
    return Precondition(tuple(_versions_in(match)) if match is not None else (), no_value=none_match is not None)


def is_unchanged(scope: Scope, version: int) -> bool:
    """Whether a reader that names versions in If-None-Match has the value already. Raises BadHeader."""
    known = list_header(scope, b"if-none-match")
    return known is not None and (known == ANY or version in [_version_of(tag.removeprefix("W/")) for tag in _tags_in(known)])


def _versions_in(text: str) -> Iterator[int]:
    """The versions of a list of tags. A weak tag never matches (RFC 9110 s13.1.1)."""
    for tag in _tags_in(text):
        yield NO_VERSION if tag.startswith("W/") else _version_of(tag)


def _tags_in(text: str) -> list[str]:
    tags = [tag.strip() for tag in text.split(",")]
    if len(tags) > TAGS_MAX or not all(tag.removeprefix("W/").startswith('"') and tag.endswith('"') and len(tag) > 1 for tag in tags):
        raise BadHeader('a precondition must be *, or ETags such as "3"')
    return tags


def _version_of(tag: str) -> int:
    digits = tag[1:-1]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= VERSION_DIGITS_MAX else NO_VERSION
