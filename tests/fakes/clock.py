"""A clock that stands still until it is told."""


class Clock:
    """Counts seconds since 1970."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def us(self) -> int:
        """Microseconds since 1970."""
        return int(self.now * 1_000_000)
