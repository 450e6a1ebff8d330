"""The standard environment variables of OpenTelemetry that decide whether the gateway exports traces."""

from collections.abc import Mapping
from typing import Final

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def exports_traces(environment: Mapping[str, str]) -> bool:
    """Whether a collector is named and nothing turns traces off. An empty variable counts as unset, and only `true` disables the SDK.

    OpenTelemetry, "Environment Variable Specification": Boolean value, General SDK Configuration, Exporter Selection.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environment.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return False
    return any(environment.get(name) for name in ENDPOINTS)
