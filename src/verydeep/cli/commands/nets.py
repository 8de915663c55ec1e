"""List the nets of Table 1: layers, parameters, multiply-adds, receptive field."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ...core.config import typed
from ...core.settings import TrainSettings
from ..execution import OK
from ..output import show_json, show_table
from ..parser import CommandParser, add_settings, given_settings


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NET", help="list the layers of this net, too")
    size = parser.group("Net and weights")
    size.add_argument("--classes", type=int, default=1000, metavar="N", help="number of classes (1000)")
    add_settings(parser, TrainSettings, only=("crop", "width"))


def run(options: argparse.Namespace) -> int:
    """Prints what is known of the nets without building one."""
    from ...models.architectures import NET_NAMES, net_facts

    given = typed(TrainSettings, given_settings(options))
    size = {"classes": options.classes, "crop": given.get("crop", 224), "width": given.get("width", 1.0)}
    names = [options.name] if options.name else list(NET_NAMES)
    facts = [net_facts(name, **size) for name in names]
    if options.json:
        documents = [{**asdict(net), "layers": [asdict(layer) for layer in net.layers]} for net in facts]
        show_json(documents[0] if options.name else documents)
        return OK
    columns = ["net", "weight layers", "parameters", "multiply-adds", "receptive field"]
    rows = [
        (n.name, n.weight_layers, f"{n.parameters:,}", f"{n.multiply_adds:,}", f"{n.receptive_field} px") for n in facts
    ]
    crop = f"{size['crop']}x{size['crop']} pixels"
    show_table(f"{size['classes']} classes, one crop of {crop}, width {size['width']:g}", columns, rows)
    if options.name:
        layer_rows = [
            (x.name, f"{x.kernel}x{x.kernel}", x.inputs, x.outputs, f"{x.parameters:,}") for x in facts[0].layers
        ]
        show_table("", ["layer", "kernel", "inputs", "outputs", "parameters"], layer_rows)
    return OK
