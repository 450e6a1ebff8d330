"""The standard environment variables of OpenTelemetry that decide what the gateway exports."""

from collections.abc import Mapping
from typing import Final, Literal

Signal = Literal["traces", "metrics", "logs"]
BASE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
METRICS_SECONDS: Final = 60.0  # between two exports (OTEL_METRIC_EXPORT_INTERVAL)


def is_exported(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether a collector is named and nothing turns the signal off. An empty variable counts as unset, and only `true` disables the SDK.

    OpenTelemetry, "Environment Variable Specification": Boolean value, General SDK Configuration, Exporter Selection.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() == "none":
        return False
    return bool(collector_address(signal, environment))


def collector_address(signal: Signal, environment: Mapping[str, str]) -> str:
    """Where a signal goes, by the standard variables (OpenTelemetry Protocol Exporter, Endpoint URLs for OTLP/HTTP); empty: nowhere."""
    base = environment.get(BASE, "")
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return own or (f"{base.rstrip('/')}/v1/{signal}" if base else "")


def metrics_interval(environment: Mapping[str, str]) -> float:
    """Returns the seconds between two exports of metrics. A value that is no positive number of milliseconds counts as unset."""
    text = environment.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    return int(text) / 1000 if text.isascii() and text.isdigit() and int(text) else METRICS_SECONDS
