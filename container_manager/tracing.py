"""OpenTelemetry traces, where its packages are installed and it is told where to send them; else nothing at all."""

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
    """Begin to send traces where OpenTelemetry's own variables say. Doing it again does nothing."""
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
    # Not at exit: a worker process has none, and a collector that is down would hold up the others.
    _provider = provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer("container_manager")


async def finish() -> None:
    """Send what is left, if that can be done quickly."""
    if _provider is None:
        return
    finishing = threading.Thread(target=_provider.shutdown, daemon=True)
    finishing.start()
    await asyncio.to_thread(finishing.join, FINISHES_WITHIN_SECONDS)


@contextmanager
def span(name: str, parent: str = "", **attributes: Any) -> Iterator[None]:
    """Time what is done inside; `parent` is the W3C trace context of another process or moment."""
    if _tracer is None:
        yield
        return
    from opentelemetry.propagate import extract  # noqa: PLC0415

    carrier: Mapping[str, str] = {"traceparent": parent}
    context = extract(carrier) if parent else None
    with _tracer.start_as_current_span(name, context, attributes=attributes):
        yield


def current() -> str:
    """The W3C trace context of what is being done now; "" when nothing is traced."""
    if _tracer is None:
        return ""
    from opentelemetry.propagate import inject  # noqa: PLC0415

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent", "")
