"""Masks the credentials that a call has sent in what its agent answers, those that were renewed during the call included."""

from collections.abc import Mapping

from adapters.contract import Event, UpstreamFault
from adapters.redaction.secrets import SecretRedactor, secrets_in
from adapters.upstream.live_headers import sent_values


class CallRedactor:
    """Masks the secrets of a call's headers as they are at the time of the answer, since a long call sends several credentials."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = [headers]
        self._values: tuple[tuple[str, str], ...] = ()
        self._redactor: SecretRedactor | None = None

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Masks the secrets of further headers too, such as those with the credential of another attempt."""
        self._headers.append(headers)

    def redact_event(self, event: Event) -> Event:
        redactor = self._current_redactor()
        return event if redactor is None else redactor.redact_event(event)

    def redact_fault(self, fault: UpstreamFault) -> None:
        redactor = self._current_redactor()
        if redactor is not None:
            redactor.redact_fault(fault)

    def _current_redactor(self) -> SecretRedactor | None:
        values = tuple(pair for headers in self._headers for pair in sent_values(headers))
        if values != self._values:
            secrets = secrets_in(values)
            self._values, self._redactor = values, SecretRedactor(secrets) if secrets else None
        return self._redactor
