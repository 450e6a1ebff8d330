"""Makes the tracer that exports spans, where the environment names a collector."""

import os
from typing import TYPE_CHECKING

from adapters.version import VERSION
from gateway.server.settings import Settings
from gateway.telemetry.environment import exports_traces

if TYPE_CHECKING:
    from gateway.telemetry.otlp import OtelTracer


def tracer(settings: Settings) -> "OtelTracer | None":
    """The tracer, where the standard environment variables name a collector. Without one no span is made."""
    if not exports_traces(os.environ):
        return None
    from gateway.telemetry.otlp import tracer_from_environment

    return tracer_from_environment(VERSION, settings.telemetry.sample)
