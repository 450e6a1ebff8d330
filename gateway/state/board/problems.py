"""Refusals of the board. gateway/ingress/http/error_rows/state.py maps them to HTTP, and the tools of the server `state` to tool errors."""


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


class MisfitValue(BoardProblem):
    """A value does not fit the schema of its key, and the operator has such values refused."""

    def __init__(self, key: str, problem: str, owner: str) -> None:
        whom = f" The role {owner} owns the prefix." if owner else ""
        super().__init__(f"The value does not fit the schema of {key}: {problem}. Nothing was stored.{whom}")


class UnknownHeldValue(BoardProblem):
    """No value of this id is held back."""

    def __init__(self) -> None:
        super().__init__("No value of this id is held back.")


class HeldValueDecided(BoardProblem):
    """The value was accepted or dropped before."""

    def __init__(self, state: str) -> None:
        super().__init__(f"The value was {state} before.")


class OwnHeldValue(BoardProblem):
    """The writer of a value that is held back can't accept it."""

    def __init__(self) -> None:
        super().__init__("You wrote this value, or an agent did for you; another person must accept it. You can drop it.")


class BackingFailed(BoardProblem):
    """The tool that holds the values of a prefix reported an error, or an answer without the value."""

    def __init__(self, key: str, tool: str, reason: str) -> None:
        super().__init__(f"The tool {tool}, which holds the value of {key}, {reason}. Nothing was stored at the gateway.")


class NotBacked(BoardProblem):
    """The tools of a prefix don't offer what was asked for: the gateway has no history and no list of values that it does not hold."""
