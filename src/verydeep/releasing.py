"""Sect. 1: the released models made runs that can be tested, from their weight files.

A released model has all its layers and 1000 outputs in the order of sorted WNIDs, which is the order of
`verydeep.data.imagenet`; a file that is not such a one is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .checkpoints import Card, save_checkpoint, start_from
from .config import DataSettings, to_json
from .configurations import STRIDE
from .data import Data, lasting_name
from .errors import VerydeepError
from .experiments import Row, runs_of
from .files import file_sha256, read_json, write_json
from .nets import Net
from .runs import BEST
from .weights import Weights, read_weights

TEST_SCALE = 256


def take_released(
    root: Path, rows: tuple[Row, ...], files: dict[str, str], settings: DataSettings, opened: Data
) -> None:
    """Makes a run's folder of each weight file that some rows need; those made before are kept.

    Args:
        files: weight files by net.

    Raises:
        VerydeepError: a file is not given, lacks layers, or is of another net or other classes.
    """
    for run in runs_of(rows):
        net = run.partition("/")[0]
        folder = root / run
        if net in files:
            _take(folder, run, net, Path(files[net]), settings, opened)
        elif not (folder / BEST).exists():
            raise VerydeepError(f"{run} needs its weight file: say --weights {net}=FILE.")


def _take(folder: Path, run: str, name: str, file: Path, settings: DataSettings, opened: Data) -> None:
    if not file.is_file():
        raise VerydeepError(f"there is no weight file {file}, given for net {name}.")
    digest = file_sha256(file)
    if (folder / BEST).exists() and read_json(folder / "config.json").get("sha256") == digest:
        return
    weights = read_weights(str(file))
    if weights.net != name:
        raise VerydeepError(f"{file} holds net {weights.net}, not {name}.")
    net = _whole_net(weights)
    classes = opened.sets["train"].classes
    if net.classes != len(classes):
        raise VerydeepError(f"{file} has {net.classes} outputs for the {len(classes)} classes of {opened.name}.")
    data = to_json(replace(settings, data=lasting_name(settings.data)))
    card = Card(
        net=name,
        crop=net.crop,
        width=net.width,
        classes=classes,
        mean=weights.mean,
        test_scale=TEST_SCALE,
        data=data,
        data_fingerprint=opened.fingerprint(),
    )
    save_checkpoint(folder / BEST, net.eval(), card)
    write_json(folder / "config.json", {"run": run, "weights": str(file.absolute()), "sha256": digest})


def _whole_net(weights: Weights) -> Net:
    """The net whose every layer the weights hold, its crop and width read from their shapes."""
    lacking = [name for name in ("conv1_1", "fc6", "fc7", "fc8") if f"{name}.weight" not in weights.tensors]
    if lacking:
        raise VerydeepError(f"{weights.source} lacks {', '.join(lacking)}: the released models have all their layers.")
    shapes = {name: tuple(weights.tensors[f"{name}.weight"].shape) for name in ("conv1_1", "fc6", "fc8")}
    net = Net(weights.net, shapes["fc8"][0], STRIDE * shapes["fc6"][-1], shapes["conv1_1"][0] / 64)
    copied = start_from(net, weights.tensors, weights.net, classes_equal=True)
    if copied.random:
        raise VerydeepError(f"{weights.source} lacks {', '.join(copied.random)}, or their shapes are of another net.")
    return net
