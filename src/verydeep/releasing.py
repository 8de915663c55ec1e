"""Sect. 1: the released models made runs that can be tested, from their weight files.

A released model has all its layers, and its outputs are taken to be in the order of sorted WNIDs, which is that of
all released files and of `verydeep.data.imagenet`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoints import Card, load_checkpoint, read_card, save_checkpoint, start_from
from .config import DataSettings, flag, to_json
from .configurations import LARGEST_SIDE, STRIDE
from .data import Data, lasting_name
from .errors import VerydeepError
from .experiments import Row, runs_of
from .files import file_sha256, write_json
from .model_card import write_model_card
from .nets import Net
from .runs import BEST
from .weights import place_of, read_weights

TEST_SCALE = 256
SETTINGS = ("pooling", "resampling", "other_side")  # what can be chosen for a net that is not trained


def take_released(
    root: Path,
    rows: tuple[Row, ...],
    files: dict[str, str],
    settings: DataSettings,
    opened: Data,
    given: dict[str, Any],
) -> None:
    """Makes a run's folder of each weight file that some rows need; those made before are kept.

    Args:
        files: weight files by net.
        given: `SETTINGS` that were chosen.

    Raises:
        VerydeepError: a file is not given, lacks layers, or is of another net or other classes; a setting that
            only training reads.
    """
    needed = {run.partition("/")[0]: run for run in runs_of(rows)}
    unknown = [net for net in files if net not in needed]
    if unknown:
        raise VerydeepError(f"--weights names net {unknown[0]}; these rows need {', '.join(needed)}.")
    wrong = [name for name in given if name not in (*SETTINGS, "bad_images")]
    if wrong:
        raise VerydeepError(f"{flag(wrong[0])} is for training, and the released models are not trained.")
    shown = {**to_json(settings), "data": lasting_name(settings.data)}
    choice = {**{name: given[name] for name in SETTINGS if name in given}, "data": shown}
    for net, run in needed.items():
        _take(root / run, run, net, files.get(net), opened, choice)


def _take(folder: Path, run: str, net: str, file: str | None, opened: Data, choice: dict[str, Any]) -> None:
    """Leaves the folder as it is where it holds just this; else writes it from the weight file, or from itself."""
    best = folder / BEST
    old = read_card(best) if best.exists() else None
    if file is None and old is None:
        raise VerydeepError(f"{run} needs its weight file: say --weights {net}=FILE.")
    digest = file_sha256(place_of(file)) if file is not None else None
    if old is not None and (digest is None or old.settings.get("weights_sha256") == digest):
        card = replace(old, **{"pooling": "up", "resampling": "bilinear", "other_side": "round", **choice})
        card = replace(card, data_fingerprint=opened.fingerprint(), classes=opened.classes)
        if asdict(card) == asdict(old):
            return
        tensors = load_checkpoint(best).weights
    else:
        assert file is not None
        weights = read_weights(file)
        if weights.net != net:
            raise VerydeepError(f"{file} holds net {weights.net}, not {net}.")
        tensors = weights.tensors
        outputs, crop, width = _sizes(file, tensors)
        if outputs != len(opened.classes):
            raise VerydeepError(f"{file} has {outputs} outputs for the {len(opened.classes)} classes of {opened.name}.")
        card = Card(net, crop, width, opened.classes, weights.mean, TEST_SCALE, origin=weights.origin, **choice)
        recorded = {"weights": str(place_of(file).absolute()), "weights_sha256": digest}
        card = replace(card, data_fingerprint=opened.fingerprint(), settings=recorded)
    save_checkpoint(best, _whole_net(card, tensors, file or str(best)), card)
    write_json(folder / "config.json", {"run": run, **card.settings})
    write_model_card(best, card)


def _sizes(file: str, tensors: dict[str, Tensor]) -> tuple[int, int, float]:
    """Outputs, crop and width of a net, from its layers' shapes."""
    lacking = [name for name in ("conv1_1", "fc6", "fc7", "fc8") if f"{name}.weight" not in tensors]
    if lacking:
        raise VerydeepError(f"{file} lacks {', '.join(lacking)}: the released models have all their layers.")
    first, fc6, fc8 = (tuple(tensors[f"{name}.weight"].shape) for name in ("conv1_1", "fc6", "fc8"))
    if len(fc6) != 4 or fc6[2] != fc6[3] or not 1 <= fc6[3] <= LARGEST_SIDE // STRIDE:
        raise VerydeepError(f"{file} has fc6 of the shape {fc6}: it must be outputs, inputs, and a square kernel.")
    return fc8[0], STRIDE * fc6[3], first[0] / 64


def _whole_net(card: Card, tensors: dict[str, Tensor], source: str) -> Net:
    """The net whose every layer the tensors hold."""
    net = card.empty_net()
    copied = start_from(net, tensors, card.net, classes_equal=True)
    if copied.random:
        raise VerydeepError(f"{source} lacks {', '.join(copied.random)}, or their shapes are of another net.")
    return net.eval()
