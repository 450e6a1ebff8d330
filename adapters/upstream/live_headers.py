"""Headers with a credential that is renewed before it expires, for calls that outlive one credential."""

import time
from collections import ChainMap, deque
from collections.abc import Callable, Iterator, KeysView, Mapping
from typing import Final

SENT_MAX: Final = 8  # credentials of one call that are masked: at half a life each, those before them have expired long ago


def with_more(headers: Mapping[str, str], more: Mapping[str, str]) -> Mapping[str, str]:
    """The headers with `more`, which take precedence; a renewed credential stays renewed."""
    return ChainMap(dict(more), headers)  # type: ignore[arg-type]  # it is only read


def sent_values(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of each header, and every earlier value of a renewed credential. Renews nothing, unlike reading the headers."""
    if isinstance(headers, ChainMap):
        for layer in headers.maps:
            yield from sent_values(layer)
    elif isinstance(headers, LiveHeaders):
        yield from headers.sent_values()
    else:
        yield from headers.items()


class LiveHeaders(Mapping[str, str]):
    """Headers `fixed`, and the header `name` with the value of `make`, which is renewed on a read after `seconds`.

    Copies (`{**headers}`) are constant, so a caller that sends several requests copies them for each.
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
        self._credentials = deque([self._values[name]], SENT_MAX)

    def sent_values(self) -> Iterator[tuple[str, str]]:
        """Name and value of each header, with the last SENT_MAX values of the credential."""
        yield from ((name, value) for name, value in self._values.items() if name != self._name)
        yield from ((self._name, credential) for credential in self._credentials)

    def __getitem__(self, name: str) -> str:
        if name == self._name and self._clock() - self._made >= self._seconds:
            self._made = self._clock()
            self._values[name] = self._make()
            self._credentials.append(self._values[name])
        return self._values[name]

    def keys(self) -> KeysView[str]:
        """The names, as the dictionary has them: copies read them three times as fast as those of a Mapping."""
        return self._values.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
