"""One problem of the settings, with what to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SettingsProblem:
    """One problem. With `is_fatal` the gateway can't start; otherwise it works, but probably not as intended."""

    field: str
    problem: str
    todo: str
    is_fatal: bool = True

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"
