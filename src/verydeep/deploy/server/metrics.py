"""Prometheus metrics of a server: requests, batches and the queue."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics in a registry of their own; safe to use from several threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp for each, which doubles the rows
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "verydeep_requests",
            "Responses by route and status; 499 where the client left.",
            ("route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "verydeep_request_seconds",
            "From a request's head to its response.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram("verydeep_batch_photos", "Images in a batch.", buckets=IMAGES, registry=registry)
        self._work = Histogram("verydeep_batch_seconds", "Duration of a batch.", buckets=SECONDS, registry=registry)
        self._length = Gauge("verydeep_queue_length", "Requests in progress or waiting.", registry=registry)
        self._places = Gauge("verydeep_queue_places", "The most that there may be.", registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a response; ``route`` is one of the server's own, so that unknown paths add no rows."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self._batches.observe(size)
        self._work.observe(seconds)

    def text(self, taken: int, places: int) -> bytes:
        """All metrics in Prometheus' text format 0.0.4, with the queue as it is now."""
        self._length.set(taken)
        self._places.set(places)
        return generate_latest(self._registry)
