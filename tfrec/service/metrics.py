"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: The type of what `Metrics.text` gives.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one service. Routes are those of the service, so that clients cannot make new lines."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tfrec_requests", "Requests that were answered.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "tfrec_request_seconds",
            "Time from a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_rows = Histogram(
            "tfrec_batch_rows",
            "Rows that were answered together.",
            ["model", "function"],
            buckets=_ROWS,
            registry=self._registry,
        )
        self.version = Gauge(
            "tfrec_model_version", "How many times a model was loaded.", ["model"], registry=self._registry
        )
        self.stale = Gauge(
            "tfrec_model_stale", "1 where a run has changed and cannot be loaded.", ["model"], registry=self._registry
        )

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
