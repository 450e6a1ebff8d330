"""Headers whose credential is made anew before it expires, for calls that outlive one credential."""

import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping


def with_more(headers: Mapping[str, str], more: Mapping[str, str]) -> Mapping[str, str]:
    """The same headers and more, which count where both have one; a credential that is made anew stays so."""
    return ChainMap(dict(more), headers)  # type: ignore[arg-type]  # which it only reads


class LiveHeaders(Mapping[str, str]):
    """`fixed`, and the header `name` whose value `make` returns; it is made anew once it is `seconds` old and somebody reads it.

    Copies of it (`{**headers}`) stay as they are: whoever sends several requests reads it for each.
    """

    def __init__(
        self, fixed: Mapping[str, str], name: str, make: Callable[[], str], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._name = name
        self._seconds = seconds
        self._clock = clock
        self._made = clock()
        self._values = {**fixed, name: make()}

    def __getitem__(self, name: str) -> str:
        if name == self._name and self._clock() - self._made >= self._seconds:
            self._made = self._clock()
            self._values[name] = self._make()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
