"""A page beside every saved net: what it is, how its file is used, by which recipe, its errors, licence, classes.

In a run's folder it is ``README.md``, which hubs show; beside a single file ``FILE.card.md``. It is written anew
after a training, after each test and by `convert` and `export`; a page that we did not write is left alone.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import file_sha256, read_json, short_name, write_atomically
from ..models.architectures import net_facts
from .as_written import OURS, described, our_pixels
from .checkpoint import Metadata
from .run_dir import BEST, EVALUATIONS, LAST

MARK = "<!-- a model card, written by verydeep; what is added here is lost when it is written anew -->"
PAGE, ENDING = "README.md", ".card.md"
RECIPE = ("S", "batch", "lr", "weight_decay", "learn", "initialise", "seed")
OF_PHOTOS = "The photos' own terms hold."


def write_model_card(
    path: Path, metadata: Metadata, told: dict[str, Any] | None = None, use: dict[str, str] | None = None
) -> Path:
    """The page of a net's file; where one that we did not write is in its place, that one is left.

    Args:
        path: of the net: in a run's folder the page is the folder's.
        told: more facts, such as of an export.
        use: how the file is used where it is none of our checkpoints (`verydeep.checkpoints.as_written`).

    Raises:
        VerydeepError: it cannot be written.
    """
    of_run = path.name in (BEST, LAST)
    page = path.with_name(PAGE if of_run else short_name(path.name, ENDING))
    if page.exists() and MARK not in page.read_text(encoding="utf8", errors="replace"):
        return page
    use = use or described(metadata, OURS, our_pixels(metadata))
    lines = [MARK, *_facts(path, metadata, use, told or {}), *_errors(path.parent if of_run else None)]
    lines += [*_licence(metadata), *_loading(path.parent if of_run else path, metadata), *_classes(metadata)]
    write_atomically(page, lambda file: file.write(("\n".join(lines) + "\n").encode("utf8", "backslashreplace")))
    return page


def _facts(path: Path, metadata: Metadata, use: dict[str, str], told: dict[str, Any]) -> list[str]:
    facts = net_facts(metadata.net, max(1, metadata.outputs), metadata.crop, metadata.width)
    kind = f"a box net ({metadata.box_settings['regression']}) of" if metadata.is_localiser else "tells"
    shown = ", ".join(metadata.classes[:8]) + (", …" if len(metadata.classes) > 8 else "")
    rows = {
        "net": f"{metadata.net} of Table 1 in Simonyan & Zisserman, ICLR 2015; {facts.weight_layers} weight layers, "
        f"{facts.parameters:,} parameters, crop {metadata.crop}, width {metadata.width:g}",
        "classes": f"{len(metadata.classes)}: {shown}",
        **use,
        "test scale Q": str(metadata.test_scale),
        "data": _data(metadata),
        "recipe": ", ".join(f"{name} {metadata.settings[name]}" for name in RECIPE if name in metadata.settings),
        "file": f"{path.name}, SHA-256 {file_sha256(path)}",
        **{name.replace("_", " "): _value(value) for name, value in told.items()},
    }
    table = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items() if value]
    return [f"# Net {metadata.net}: {kind} {len(metadata.classes)} classes", "", "| | |", "| --- | --- |", *table, ""]


def _cell(text: str) -> str:
    """Text from outside as a table's cell."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _data(metadata: Metadata) -> str:
    if metadata.data:
        return f"{metadata.data.get('data', '')} (fingerprint {metadata.data_fingerprint[:12]})"
    return "ILSVRC-2012's training set, as its publisher tells" if metadata.origin.get("name") else ""


def _errors(folder: Path | None) -> list[str]:
    """Of each stored test of the run; of a box net those are elsewhere."""
    rows = []
    for path in sorted((folder / EVALUATIONS).glob("**/result.json")) if folder else []:
        with contextlib.suppress(VerydeepError, KeyError, TypeError, ValueError):
            found = read_json(path)
            low, high = found["top1_error_interval"]
            five = "" if found.get("top5_error") is None else f"{found['top5_error']:.2f}"
            told = f"{found['top1_error']:.2f} ({low:.2f}–{high:.2f})"
            of = f"{_cell(str(found['data']))}, {found['set']}"
            rows.append(f"| {found['protocol']} | {of} | {found['images']} | {told} | {five} |")
    if not rows:
        return []
    head = "| test | photos of | photos | top-1 error % (95 % interval) | top-5 error % |"
    return ["## Errors", "", head, "| --- | --- | --- | --- | --- |", *rows, ""]


def _licence(metadata: Metadata) -> list[str]:
    first = metadata.origin.get("started_from", metadata.origin)
    licence = first.get("licence")
    called = first.get("name") or first.get("file")
    if "started_from" not in metadata.origin and called:
        text = f"The weights are {called}: {licence or 'its publisher tells the licence'}."
    elif called:
        text = f"Trained from {called}: {licence or 'its publisher tells the licence'}. {OF_PHOTOS}"
    else:
        text = f"The licence is its owner's to choose. {OF_PHOTOS}"
    return ["## Licence", "", text, ""]


def _loading(place: Path, metadata: Metadata) -> list[str]:
    load = "load_localiser" if metadata.is_localiser else "load"
    return [
        *("## Use", "", "```python", "import verydeep", "", f"net = verydeep.{load}({str(place)!r})"),
        *('for answer in net.predict(["photo.jpg"]):', "    print(answer)", "```"),
    ]


def _classes(metadata: Metadata) -> list[str]:
    """All of them, as the outputs count them."""
    rows = [f"| {number} | {_cell(name)} |" for number, name in enumerate(metadata.classes)]
    return ["", "## Classes, in the order of the outputs", "", "| output | class |", "| --- | --- |", *rows]
