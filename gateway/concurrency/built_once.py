"""Attributes that are built when they are first read, once, whichever thread reads them first."""

import threading
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar, overload

T = TypeVar("T")
# One lock for all attributes: what one builds may read another, of another object too, and several locks could be taken in both orders.
_BUILDING: Final = threading.RLock()


class BuiltOnce(Generic[T]):
    """Makes a method an attribute that keeps what the method returns. functools.cached_property has no lock from Python 3.12 on.

    An attribute that could not be built is built by the next read.
    """

    def __init__(self, build: Callable[[Any], T]) -> None:
        self._build = build
        self._name = build.__name__
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """Called only while the instance has no such member, since the class has no `__set__`."""
        if instance is None:
            return self
        with _BUILDING:
            built = instance.__dict__
            if self._name not in built:
                built[self._name] = self._build(instance)
            found: T = built[self._name]
            return found
