"""Serve a net over HTTP: a page in the browser and a JSON API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.config import typed
from ...core.settings import MachineSettings, ServeSettings
from ...core.terminal import Terminal
from .. import output
from ..execution import OK
from ..parser import CommandParser, Options, add_settings, add_shared, given_settings, settings_from

if TYPE_CHECKING:
    from ...deploy.server.models import ServedModels


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="MODEL", help="a run's folder, a checkpoint, an exported file or SVMs")
    net = parser.group("Net and weights")
    net.add_argument("--boxes", metavar="MODEL", help="localisation model, to also predict boxes")
    net.add_argument(
        "--features", metavar="FILE", help="features file, to also compute descriptors and find similar images in it"
    )
    add_shared(parser, "--last", "--protocol", "--no-calibration", "--reject-at")
    add_settings(parser, ServeSettings)
    add_settings(parser, MachineSettings, only=("device", "precision", "layout", "threads"))


def run(options: Options) -> int:
    """Runs a server until a signal stops it; 0 then, as that is how it ends."""
    from ...deploy.server.serve import serve

    given = given_settings(options, MachineSettings)
    own = {name: text for name, text in given.items() if not hasattr(ServeSettings, name)}
    machine = MachineSettings(**{"workers": 0, **typed(MachineSettings, own)})
    reporter = Terminal(options.quiet)

    def ready(address: str) -> None:
        if options.json:
            output.show_json({"address": address})
        reporter.say(f"{options.run} is served at {address} (Ctrl-C stops it)")

    def open_models(machine: MachineSettings) -> ServedModels:
        from ...deploy.server.models import open_served
        from ...evaluation.rejection import check_calibrated
        from ...transfer.load import load

        check_calibrated(options.reject_at, options.calibration)
        classifier = load(options.run, options.last, machine, options.calibration)
        others = (options.boxes, options.features, options.protocol)
        return open_served(options.run, classifier, *others, machine, reporter, options.reject_at)

    forced = serve(open_models, settings_from(options, ServeSettings), machine, reporter, ready)
    if forced:
        output.fail("stopped at once; pending requests were dropped.")
        return 128 + forced
    reporter.say("pending requests finished; server stopped")
    return OK
