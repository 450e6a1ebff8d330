"""Builds the tracer that exports spans, if the environment names a collector."""

import os
from typing import TYPE_CHECKING

from adapters.version import VERSION
from gateway.server.settings import Settings
from gateway.telemetry.environment import exports_traces

if TYPE_CHECKING:
    from gateway.telemetry.otlp import OtelTracer


def tracer(settings: Settings) -> "OtelTracer | None":
    """Returns the tracer if the standard environment variables name a collector, else None. Without a tracer no span is created."""
    if not exports_traces(os.environ):
        return None
    from gateway.telemetry.otlp import tracer_from_environment

    return tracer_from_environment(VERSION, settings.telemetry.sample, os.environ)
