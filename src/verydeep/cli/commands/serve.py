"""The verb that serves a net over HTTP."""

from __future__ import annotations

import argparse

from ...core.config import typed
from ...core.settings import MachineSettings, ServeSettings
from .. import output
from ..arguments import given_settings
from ..output import Terminal
from .common import OK, answer_json


def serve(options: argparse.Namespace) -> int:
    """A server until it is asked to end; 0 then, as that is how it ends."""
    from ...deploy.server.serve import serve

    given = given_settings(options)
    mine = {name: given.pop(name) for name in list(given) if name in ServeSettings.__dataclass_fields__}
    settings = ServeSettings(**typed(ServeSettings, mine))
    machine = MachineSettings(**{"workers": 0, **typed(MachineSettings, given)})
    reporter = Terminal(options.quiet)

    def ready(address: str) -> None:
        if options.json:
            answer_json({"address": address})
        reporter.say(f"{options.run} is served at {address} (Ctrl-C ends it)")

    forced = serve(
        options.run,
        settings,
        machine,
        reporter,
        ready,
        boxes=options.boxes,
        features=options.features,
        protocol=options.protocol,
        last=options.last,
    )
    if forced:
        output.fail("ended at once; what waited was not answered.")
        return 128 + forced
    reporter.say("all that waited is answered; ended")
    return OK
