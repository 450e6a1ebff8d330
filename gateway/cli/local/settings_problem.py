"""One problem of the settings, with what to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SettingsProblem:
    """One problem. With `is_fatal` the gateway can't start; otherwise it works, but probably not as intended.

    With `may_pass` a later start can succeed with the same settings, such as after a disk was mounted.
    """

    field: str
    problem: str
    todo: str
    is_fatal: bool = True
    may_pass: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"
