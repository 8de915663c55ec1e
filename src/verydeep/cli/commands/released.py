"""Verbs of the released models: weights in and out, exported nets."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ...core.config import typed
from ...core.settings import TrainSettings
from ..arguments import given_settings
from ..output import Terminal, show, show_note, show_table
from .common import OK, answer_json, machine_wish


def weights_list(options: argparse.Namespace) -> int:
    """The public weight files that can be fetched."""
    from ...checkpoints.download import cached
    from ...checkpoints.registry import all_released

    rows = [(one, cached(one).is_file()) for one in all_released()]
    if options.json:
        answer_json(
            [
                {
                    **{"name": one.name, "net": one.net, "address": one.address, "digest": one.digest},
                    **{"bytes": one.size or None, "pixels": one.pixels, "licence": one.licence, "here": here},
                    **{"all_layers": one.full, "top1_error": one.errors and one.errors[0]},
                    "file": str(cached(one)) if here else None,
                }
                for one, here in rows
            ]
        )
        return OK
    table = [
        (
            *(one.name, one.net, f"{one.errors[0]:.1f} / {one.errors[1]:.1f}" if one.errors else ""),
            *(f"{one.size / 1e6:.0f}" if one.size else "", "yes" if here else "", one.licence.partition(",")[0]),
        )
        for one, here in rows
    ]
    title = "released weights: errors % (top-1 / top-5) of one centre crop, as their publishers tell"
    show_table(title, ["name", "net", "errors", "MB", "here", "licence"], table)
    show_note("`verydeep weights fetch NAME` downloads one; training and all verbs take the name from then on")
    return OK


def weights_fetch(options: argparse.Namespace) -> int:
    """One of them into the cache."""
    from ...checkpoints.download import fetch
    from ...checkpoints.registry import released_named

    released = released_named(options.name)
    path = fetch(options.name, options.source, Terminal(options.quiet))
    if options.json:
        answer_json({"name": released.name, "file": str(path), "licence": released.licence})
    else:
        show(f"{path} ({released.licence})")
    return OK


def convert(options: argparse.Namespace) -> int:
    """Weights in another layout."""
    from ...checkpoints.convert import convert

    given = typed(TrainSettings, given_settings(options))
    pixels = given.get("preprocessing", "recorded")
    told = convert(options.source, options.out, options.to, pixels, options.class_names)
    if options.json:
        answer_json(told)
        return OK
    classes = f", {told['classes']} classes" if told["classes"] else ", convolutions alone"
    known = told["origin"].get("name")
    show(f"{told['file']}: net {told['net']}, {told['layers']} layers{classes}{f', from {known}' if known else ''}")
    if told["card"]:
        show(f"card: {told['card']}")
    for line in _next(told, shlex.quote(options.out)):
        show(line)
    return OK


def _next(told: dict[str, Any], place: str) -> list[str]:
    """What can be done with what was written: convolutions alone cannot classify."""
    if told["boxes"]:
        return [f"ask it: verydeep localise predict {place} PHOTO"]
    if told["classes"]:
        return [f"ask it: verydeep predict {place} PHOTO"]
    width = "" if told["width"] == 1 else f" --width {told['width']:g}"
    return [
        f"a classifier of your photos on its descriptors: verydeep probe --data DATA --weights {place}",
        f"to train from it: verydeep train {told['net']} --data DATA --start {place}{width}",
    ]


def export(options: argparse.Namespace) -> int:
    """Exports a net for other runtimes."""
    from ...deploy.export import export

    told = export(
        options.run,
        options.to,
        options.out,
        options.takes,
        options.photos,
        options.last,
        machine_wish(options),
        Terminal(options.quiet),
    )
    if options.json:
        answer_json(told)
        return OK
    show(f"{told['file']}: {told['bytes'] / 1e6:.1f} MB, card {told['card']}")
    for line in _export_lines(told):
        show(line)
    show(f"predict with it: verydeep predict {shlex.quote(told['file'])} PHOTO")
    return OK


def _export_lines(told: dict[str, Any]) -> list[str]:
    lines = []
    if "largest_difference" in told:
        lines.append(f"largest posterior difference from the net, at two sizes: {told['largest_difference']:.1e}")
    if "top1_agreement" in told:
        lines.append(
            f"int8/float top-1 agreement: {told['top1_agreement']:.1f} % ({told['compared_photos']} images); "
            f"mean posterior difference {told['mean_posterior_difference']:.1e}"
        )
    for name, error in told.get("top1_error", {}).items():
        lines.append(f"top-1 error of {name}: {error:.2f} %")
    return lines
