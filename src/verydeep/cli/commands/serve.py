"""`verydeep serve`."""

from __future__ import annotations

import argparse

from ...core.config import typed
from ...core.settings import MachineSettings, ServeSettings
from .. import output
from ..arguments import given_settings
from ..output import Terminal
from .common import OK, answer_json


def serve(options: argparse.Namespace) -> int:
    """Runs a server until a signal stops it; 0 then, as that is how it ends."""
    from ...deploy.server.serve import Sources, serve

    given = given_settings(options)
    own = {name: given.pop(name) for name in list(given) if name in ServeSettings.__dataclass_fields__}
    settings = ServeSettings(**typed(ServeSettings, own))
    machine = MachineSettings(**{"workers": 0, **typed(MachineSettings, given)})
    reporter = Terminal(options.quiet)

    def ready(address: str) -> None:
        if options.json:
            answer_json({"address": address})
        reporter.say(f"{options.run} is served at {address} (Ctrl-C stops it)")

    sources = Sources(options.run, options.boxes, options.features, options.protocol, options.last)
    forced = serve(sources, settings, machine, reporter, ready)
    if forced:
        output.fail("stopped at once; pending requests were dropped.")
        return 128 + forced
    reporter.say("pending requests finished; server stopped")
    return OK
