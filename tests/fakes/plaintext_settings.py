"""A cipher that leaves settings in plain form."""

from collections.abc import Sequence

from registry.rows import RegistrationRows


class PlaintextSettings:
    def seal_text(self, context: Sequence[str], text: str) -> str:
        return text

    def open_text(self, context: Sequence[str], text: str, former_context: Sequence[str] | None = None) -> str:
        return text


PLAINTEXT_ROWS = RegistrationRows(PlaintextSettings())
