"""Refusals of the board. gateway/ingress/http/state_errors.py maps them to HTTP, and the tools of the server `state` to tool errors."""


class BoardProblem(Exception):
    """A request that the board refuses. The text says what to do."""


class BadKey(BoardProblem):
    """The text is not a key, or not a prefix of keys."""


class UnknownValue(BoardProblem):
    """The key has no value."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The key {key} has no value.")


class StaleVersion(BoardProblem):
    """The value is not at the version that the change was made for. `current` is its version; 0: the key has no value."""

    def __init__(self, key: str, current: int) -> None:
        now = f"is at version {current}" if current else "has no value"
        super().__init__(
            f"The key {key} {now}, which the precondition excludes. Read the key again, and repeat the change for that version."
        )
        self.current = current


class VersionRequired(BoardProblem):
    """A change of an existing value does not say which version it replaces."""

    def __init__(self, key: str, current: int) -> None:
        super().__init__(f"The key {key} has a value. Name the version that you have read (If-Match), or * for any version.")
        self.current = current


class BoardValueTooLarge(BoardProblem):
    """A value, or a patch, is larger or deeper than the board allows."""


class BoardFull(BoardProblem):
    """The tenant has as many values, or as many bytes of values, as its quota allows."""
