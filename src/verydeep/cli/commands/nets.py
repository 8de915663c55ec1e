"""List the nets of Table 1: layers, parameters, multiply-adds, receptive field."""

from __future__ import annotations

from dataclasses import asdict

from ...core.config import typed
from ...core.settings import TrainSettings
from ...models.architectures import NET_NAMES, NetFacts, net_facts
from ..execution import show_result
from ..output import show_table
from ..parser import CommandParser, Options, add_settings, given_settings


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("name", nargs="?", metavar="NET", help="also list the layers of this net")
    size = parser.group("Net and weights")
    size.add_argument("--classes", type=int, default=1000, metavar="N", help="number of classes (default: 1000)")
    add_settings(parser, TrainSettings, only=("crop", "width"))


def run(options: Options) -> int:
    """Prints what is known of the nets without building one."""
    given = typed(TrainSettings, given_settings(options))
    size = {"classes": options.classes, "crop": given.get("crop", 224), "width": given.get("width", 1.0)}
    names = [options.name] if options.name else list(NET_NAMES)
    facts = [net_facts(name, **size) for name in names]
    documents = [asdict(net) for net in facts]
    title = "{classes} classes, one crop of {crop}x{crop} pixels, width {width:g}".format(**size)
    result = documents[0] if options.name else documents
    return show_result(options, result, lambda _: _show(title, facts, with_layers=bool(options.name)))


def _show(title: str, facts: list[NetFacts], with_layers: bool) -> None:
    columns = ["net", "weight layers", "parameters", "multiply-adds", "receptive field"]
    rows = [
        (n.name, n.weight_layers, f"{n.parameters:,}", f"{n.multiply_adds:,}", f"{n.receptive_field} px") for n in facts
    ]
    show_table(title, columns, rows)
    if with_layers:
        layer_rows = [
            (x.name, f"{x.kernel}x{x.kernel}", x.inputs, x.outputs, f"{x.parameters:,}") for x in facts[0].layers
        ]
        show_table("", ["layer", "kernel", "inputs", "outputs", "parameters"], layer_rows)
