"""A net on a page and as a JSON API, over HTTP: what `verydeep serve` starts.

A photo comes as a request's body (`uploads`), is decoded, and waits in a bounded queue, from which those that wait are
asked together (`batching`, `questions`); `app` has the routes, `guard` stands before them, `listening` has the
connections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import PIXEL_LIMIT, MachineSettings, ServeSettings
from ...data.image_formats import reads_heic


def serve(
    run: str,
    settings: ServeSettings,
    machine: MachineSettings,
    reporter: Reporter,
    ready: Callable[[str], None],
    boxes: str | None = None,
    features: str | None = None,
    protocol: str | None = None,
    last: bool = False,
) -> int:
    """Serves until SIGTERM or Ctrl-C, and then answers what waits.

    Args:
        run: and the others from ``boxes`` on: as for `verydeep.deploy.server.models.open_served`.
        ready: told the address once it listens.

    Returns:
        0, or the number of a second signal, which ended it at once.

    Raises:
        VerydeepError: the extra is missing, the address is taken, or what is to be served is not there or broken.
    """
    check_extra(settings.heic)
    from .metrics import Metrics
    from .middleware import is_loopback
    from .uvicorn_server import address_of, listen, open_socket

    with open_socket(settings.host, settings.port) as at:  # a taken port is told before torch is loaded
        from .app import build
        from .models import open_served

        wish = replace(machine, max_pixels=max(PIXEL_LIMIT, settings.max_pixels))
        served = open_served(run, boxes, features, protocol, last, wish, reporter)
        if not is_loopback(settings.host):
            reporter.warn(f"whoever reaches {settings.host} may ask: there is no password (docs/serving.md)")
        app, site = build(served, settings, Metrics(), reporter)
        forced = 1
        try:
            forced = listen(app, at, lambda: ready(address_of(at)), site.batcher.refuse)
        finally:
            site.batcher.close(drop=forced != 0)
            site.uploads.close()
    return forced


def check_extra(heic: bool = False) -> None:
    """Raises VerydeepError where what serving needs, HEIC too if asked for, is not installed."""
    if any(find_spec(name) is None for name in ("starlette", "uvicorn", "h11")):
        raise VerydeepError("serving needs starlette and uvicorn: pip install 'verydeep[serve]'.")
    if heic and not reads_heic():
        raise VerydeepError("--heic needs pillow-heif: pip install pillow-heif, or leave it out.")
