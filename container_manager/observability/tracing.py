"""OpenTelemetry traces. They are sent when its packages are installed and its own variables name a collector."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

FINISHES_WITHIN_SECONDS = 2.0

_tracer: "Tracer | None" = None
_provider: "TracerProvider | None" = None


def configure() -> None:
    """Start sending traces to the collector that OpenTelemetry's own variables name. A second call does nothing."""
    global _tracer, _provider  # noqa: PLW0603 - OpenTelemetry's own provider is one for the process
    if _tracer is not None:
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        logger.warning("no traces are sent: %s; install container-manager[opentelemetry]", error)
        return
    # Not at exit: worker processes run no exit handlers, and a collector that is down would delay the others' exit.
    _provider = provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer("container_manager")


async def finish() -> None:
    """Send the remaining spans, for at most FINISHES_WITHIN_SECONDS."""
    if _provider is None:
        return
    finishing = threading.Thread(target=_provider.shutdown, daemon=True)
    finishing.start()
    await asyncio.to_thread(finishing.join, FINISHES_WITHIN_SECONDS)


@contextmanager
def span(name: str, parent: str = "", **attributes: Any) -> Iterator[None]:
    """Record the block as a span. `parent` is a W3C trace context from another process or an earlier request."""
    if _tracer is None:
        yield
        return
    from opentelemetry.propagate import extract  # noqa: PLC0415

    carrier: Mapping[str, str] = {"traceparent": parent}
    context = extract(carrier) if parent else None
    with _tracer.start_as_current_span(name, context, attributes=attributes):
        yield


def current() -> str:
    """The W3C trace context of the current span; "" when there is none."""
    if _tracer is None:
        return ""
    from opentelemetry.propagate import inject  # noqa: PLC0415

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent", "")
