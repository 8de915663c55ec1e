"""What a server counts, as Prometheus' text format tells it (version 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PHOTOS = (1, 2, 4, 8, 16, 32, 64)


class _Histogram:
    """Counts of values up to some bounds, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        found, total = [], 0
        more = f"{labels}," if labels else ""
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{{more}le="{bound}"}} {total}')
        shown = f"{{{labels}}}" if labels else ""
        return [*found, f"{name}_sum{shown} {self._sum:.6f}", f"{name}_count{shown} {total}"]


class Metrics:
    """Counts of requests and batches, told from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._seconds: dict[str, _Histogram] = defaultdict(lambda: _Histogram(SECONDS))
        self._batches, self._work = _Histogram(PHOTOS), _Histogram(SECONDS)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answer; ``route`` is one of the server's own, so that strangers' paths make no new rows."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds[route].add(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Counts photos that went through a net together."""
        with self._lock:
            self._batches.add(size)
            self._work.add(seconds)

    def text(self, taken: int, places: int) -> str:
        """All of it, with the queue as it is now."""
        with self._lock:
            lines = _head("requests_total", "counter", "Answers by route and status; 499 where the client left.")
            for (route, status), count in sorted(self._requests.items()):
                lines.append(f'verydeep_requests_total{{route="{route}",status="{status}"}} {count}')
            lines += _head("request_seconds", "histogram", "From a request's head to its answer.")
            for route, histogram in sorted(self._seconds.items()):
                lines += histogram.lines("verydeep_request_seconds", f'route="{route}"')
            lines += _head("batch_photos", "histogram", "Photos that went through a net together.")
            lines += self._batches.lines("verydeep_batch_photos")
            lines += _head("batch_seconds", "histogram", "How long a batch took.")
            lines += self._work.lines("verydeep_batch_seconds")
        lines += [*_head("queue_length", "gauge", "Requests at work or waiting."), f"verydeep_queue_length {taken}"]
        lines += [*_head("queue_places", "gauge", "How many may be."), f"verydeep_queue_places {places}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP verydeep_{name} {text}", f"# TYPE verydeep_{name} {kind}"]
