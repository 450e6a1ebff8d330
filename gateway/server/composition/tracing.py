"""Makes the tracer that exports spans, where the environment names a collector."""

import os
from typing import TYPE_CHECKING

from adapters.version import VERSION
from gateway.server.settings import Settings

if TYPE_CHECKING:
    from gateway.telemetry.otlp import OtelTracer


def tracer(settings: Settings) -> "OtelTracer | None":
    """The tracer, where the standard environment variable names a collector. Without one no span is made."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    from gateway.telemetry.otlp import tracer_from_environment

    return tracer_from_environment(VERSION, settings.telemetry.sample)
