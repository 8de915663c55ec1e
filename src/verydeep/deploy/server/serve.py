"""`verydeep serve`: a web page and a JSON API over HTTP.

An image comes as a request's body (`uploads`), is decoded, and waits in a bounded queue, from which waiting images are
batched (`batching`) and run (`models`); `app` has the routes, `middleware` protects them, `uvicorn_server` handles the
connections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import PIXEL_LIMIT, MachineSettings, ServeSettings
from ...data.image_formats import reads_heic

if TYPE_CHECKING:
    from .models import ServedModels


def serve(
    open_models: Callable[[MachineSettings], ServedModels],
    settings: ServeSettings,
    machine: MachineSettings,
    reporter: Reporter,
    ready: Callable[[str], None],
) -> int:
    """Serves until SIGTERM or Ctrl-C, and then completes pending requests.

    Args:
        open_models: loads the models, once the port is known to be free.
        ready: called with the address once the server listens.

    Returns:
        0, or the number of a second signal, which stopped it at once.

    Raises:
        VerydeepError: the extra is missing, the address is taken, or a model is missing or broken.
    """
    check_extra(settings.heic)
    from .metrics import Metrics
    from .middleware import is_loopback
    from .uvicorn_server import address_of, listen, open_socket

    with open_socket(settings.host, settings.port) as at:  # a taken port is reported before torch is loaded
        from .app import build

        machine = replace(machine, max_pixels=max(PIXEL_LIMIT, settings.max_pixels))
        served = open_models(machine)
        if not is_loopback(settings.host):
            reporter.warn(
                f"everyone who reaches {settings.host} can use the server: it has no password (docs/serving.md)"
            )
        app, site = build(served, settings, Metrics(), reporter)
        forced = 1
        try:
            forced = listen(app, at, lambda: ready(address_of(at)), site.batcher.refuse)
        finally:
            site.batcher.close(drop=forced != 0)
            site.uploads.close()
    return forced


def check_extra(heic: bool = False) -> None:
    """Raises VerydeepError where a package for serving, HEIC too if enabled, is not installed."""
    if any(find_spec(name) is None for name in ("fastapi", "prometheus_client", "uvicorn", "h11")):
        raise VerydeepError("serving needs fastapi, prometheus-client and uvicorn: pip install 'verydeep[serve]'.")
    if heic and not reads_heic():
        raise VerydeepError("--heic needs pillow-heif: pip install pillow-heif, or leave it out.")
