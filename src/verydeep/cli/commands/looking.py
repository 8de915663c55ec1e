"""Verbs before anything is trained: nets, data check, data pack, data show, completion."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...core.config import STRIDE, typed
from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ..arguments import given_settings
from ..output import Terminal, show, show_note, show_raw, show_table
from ..setting_flags import READING
from .common import MISTAKE, OK, answer_json

MOST_KINDS = 8  # of what is skipped, named on the screen


def nets(options: argparse.Namespace) -> int:
    """What is known of the nets without building one."""
    from ...models.architectures import NET_NAMES, net_facts

    given = typed(TrainSettings, given_settings(options))
    size = {"classes": options.classes, "crop": given.get("crop", 224), "width": given.get("width", 1.0)}
    names = [options.name] if options.name else list(NET_NAMES)
    facts = [net_facts(name, **size) for name in names]
    if options.json:
        documents = [{**asdict(net), "layers": [asdict(layer) for layer in net.layers]} for net in facts]
        answer_json(documents[0] if options.name else documents)
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


def data_check(options: argparse.Namespace) -> int:
    """Every photo of some data, read once; status 2 where one, or its format, is not read."""
    from ...core.device import LoaderSettings
    from ...core.processors import cores
    from ...data.check import check_data

    reporter = Terminal(options.quiet)
    asked = {name: text for name, text in given_settings(options).items() if name not in READING}
    given = typed(DataSettings, asked)
    found = check_data(options.data, readers=LoaderSettings(cores()), reporter=reporter, **given)
    if options.json:
        answer_json(found)
    else:
        _show_check(found)
    return MISTAKE if any(found[key] for key in ("faults", "box_faults", "unread")) else OK


def _show_check(found: dict[str, Any]) -> None:
    from ...data.dataset import first_names

    rows = []
    for name, part in found["sets"].items():
        counts = sorted(part["balance"].values())
        spread = f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"
        sides = " / ".join(map(str, part["smallest_side"] or ["-"]))
        rows.append((name, part["photos"], spread, sides))
    show_note(f"{found['data']}: {len(found['classes'])} classes")
    show_note(f"classes: {first_names(found['classes'])}")
    show_note(f"split: {found['split']}")
    for note in found["notes"]:
        show_note(f"note: {note}")
    show_table(
        "",
        ["set", "photos", "a class (least/median/most)", "smallest side (same)"],
        rows,
    )
    for photos in found["duplicates"]:
        show(f"the same picture: {'; '.join(photos)}")
    _show_skipped(found)
    for sentence in found["unread"]:
        show(sentence)
    for fault in found["faults"]:
        show(f"unreadable: {fault['fault']}")
    for line in found["boxes_skipped"]:
        show(f"boxes: {line}")
    for line in found["box_faults"]:
        show(f"boxes: {line}")
    for box in found["boxes"]:
        corners = ", ".join(f"{side} {box[side]:g}" for side in ("xmin", "ymin", "xmax", "ymax"))
        show(f"as read: {box['image']}, {box['class']}, {corners}")
    show(f"{len(found['faults'])} unreadable photos, {len(found['duplicates'])} pictures more than once")


def _show_skipped(found: dict[str, Any]) -> None:
    """What is not read and why, on a line."""
    told = []
    for name, kind in found["skipped"].items():
        first = kind["first"].removeprefix(f"{found['data']}/")
        told.append(f"{kind['count']} {name} ({first}{', …' if kind['count'] > 1 else ''})")
    more = f", {len(told) - MOST_KINDS} more kinds" if len(told) > MOST_KINDS else ""
    show_note(f"skipped: {', '.join(told[:MOST_KINDS]) or 'nothing'}{more}")


def data_pack(options: argparse.Namespace) -> int:
    """Photos into a pack."""
    from ...core.device import resolve_device
    from ...data.pack_writer import Packing, pack_data

    given = given_settings(options)
    ways = typed(TrainSettings, {key: given.pop(key) for key in ("resampling", "other_side") if key in given})
    wish = MachineSettings(**typed(MachineSettings, {key: given.pop(key) for key in READING if key in given}))
    settings = DataSettings(**typed(DataSettings, {**given, "data": options.data}))
    packing = Packing(options.size, options.form, options.quality, **ways)
    readers, reporter = resolve_device(wish, 0).readers, Terminal(options.quiet)
    told = pack_data(settings, options.out, packing, readers, options.bad_images, reporter=reporter)
    if options.json:
        answer_json(told)
        return OK
    photos = sum(found["photos"] for found in told["sets"].values())
    size = sum(shard["bytes"] for found in told["sets"].values() for shard in found["shards"])
    show(f"{told['folder']}: {photos} photos of smallest side {told['size']}, {told['form']}, {size / 1e6:.1f} MB")
    crop = "" if told["size"] >= TrainSettings.crop else f" --crop {told['size'] // STRIDE * STRIDE}"
    show(f"train from it: verydeep train D --data {shlex.quote(str(told['folder']))} --S {told['size']}{crop}")
    return OK


def data_show(options: argparse.Namespace) -> int:
    """A picture of training crops."""
    from ...data.check import sample_crops
    from ...reports.figures import photo_grid, save_figure
    from ...training.recipes import settings_of_run

    given = {name: text for name, text in given_settings(options).items() if name not in READING}
    mine = {name: given.pop(name) for name in ("classes", "folders") if name in given}
    if options.photos < 1:
        raise VerydeepError(f"photos must be 1 or more, not {options.photos}.")
    settings = settings_of_run("D", {**given, "batch": options.photos})
    crops = sample_crops(options.data, settings, options.photos, **mine)
    path = save_figure(photo_grid(crops), Path(options.out))
    if options.json:
        answer_json({"picture": str(path), "photos": len(crops), "S": str(settings.S), "crop": settings.crop})
    else:
        show(f"{path}: {len(crops)} training crops of {settings.crop} pixels at S = {settings.S}")
    return OK


def completion(options: argparse.Namespace) -> int:
    """A script for a shell."""
    from ..completion import completion_script

    script = completion_script(options.shell)
    if options.json:
        answer_json({"shell": options.shell, "script": script})
    else:
        show_raw(script)
    return OK
