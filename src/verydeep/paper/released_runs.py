"""Sect. 1: turns weight files of the released models into runs that can be tested.

A released model has all its layers. The order of its outputs is that of the classes that the file, its metadata or its
hash record; where none are recorded, it is that of sorted WNIDs, as in all public files and in
`verydeep.data.datasets.imagenet`, and a message says so. The run's outputs are in that order, so that several nets can
be fused.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints.checkpoint import Metadata, load_checkpoint, read_metadata, save_checkpoint
from ..checkpoints.load import read_documented_weights
from ..checkpoints.model_card import write_model_card
from ..checkpoints.pretrained import locate_weights
from ..checkpoints.registry import ilsvrc_classes
from ..checkpoints.run_dir import BEST
from ..core.config import LARGEST_SIDE, STRIDE, flag, to_json
from ..core.errors import VerydeepError
from ..core.files import file_sha256, write_json
from ..core.progress import Reporter
from ..core.settings import DataSettings
from ..data.class_names import class_key, distinct
from ..data.datasets.imagenet import holds_synsets
from ..data.open import NAMES, Data, lasting_name
from ..models.vgg import Net
from ..training.initialise import start_from
from .rows.row import Row, runs_of

TEST_SCALE = 256
SETTINGS = ("pooling", "resampling", "other_side")  # settings of a net that is not trained


def released_data(data: str) -> str:
    """The data to test on; a folder of ILSVRC's images, or of a part of them, is ``imagenet:DIR``."""
    named = data.partition(":")[0] in NAMES
    return f"imagenet:{data}" if not named and holds_synsets(Path(data)) else data


def take_released(
    root: Path,
    runs: dict[str, str],
    files: dict[str, str],
    settings: DataSettings,
    opened: Data,
    given: dict[str, Any],
    reporter: Reporter,
) -> None:
    """Makes a run's folder of each weight file that is needed; existing ones are kept.

    Args:
        runs: the run of each net, as `check_files` returns them.
        files: weight files by net.
        opened: data of all the nets' classes, or of a part of them.
        given: values of `SETTINGS`.
        reporter: gets a message on the order of each net's outputs.

    Raises:
        VerydeepError: a file is not given, lacks layers, or is of another net or other classes; a setting that
            only training uses.
    """
    wrong = [name for name in given if name not in (*SETTINGS, "bad_images")]
    if wrong:
        raise VerydeepError(f"{flag(wrong[0])} is for training, and the released models are not trained.")
    shown = {**to_json(settings), "data": lasting_name(settings.data)}
    choice = {**{name: given[name] for name in SETTINGS if name in given}, "data": shown}
    for net, run in runs.items():
        _take(root / run, run, net, files.get(net), opened, choice, reporter)


def check_files(rows: tuple[Row, ...], files: dict[str, str]) -> dict[str, str]:
    """The run of each net that the rows need; raises VerydeepError for a file of another net, or a missing file."""
    needed = {run.partition("/")[0]: run for run in runs_of(rows)}
    unknown = [net for net in files if net not in needed]
    if unknown:
        raise VerydeepError(f"--weights names net {unknown[0]}; these rows need {', '.join(needed)}.")
    for file in files.values():
        locate_weights(file)
    return needed


def _take(
    folder: Path, run: str, net: str, file: str | None, opened: Data, choice: dict[str, Any], reporter: Reporter
) -> None:
    """Writes the run's folder from the weight file, or with other settings from itself; keeps one that is the same."""
    best = folder / BEST
    old = read_metadata(best) if best.exists() else None
    if file is not None:
        metadata, tensors = _from_file(file, net, run, opened, choice, reporter)
    elif old is None:
        raise VerydeepError(f"{run} needs its weight file: add --weights {net}=FILE.")
    else:
        metadata = replace(old, **{"pooling": "up", "resampling": "bilinear", "other_side": "round", **choice})
        metadata = replace(metadata, classes=_titled(str(best), old.classes, opened))
        tensors = load_checkpoint(best).weights
    metadata = replace(metadata, data_fingerprint=opened.fingerprint())
    if old is not None and asdict(metadata) == asdict(old):
        return
    save_checkpoint(best, _whole_net(metadata, tensors, file or str(best)), metadata)
    write_json(folder / "config.json", {"run": run, **metadata.settings})
    write_model_card(best, metadata)


def _from_file(
    file: str, net: str, run: str, opened: Data, choice: dict[str, Any], reporter: Reporter
) -> tuple[Metadata, dict[str, Tensor]]:
    """A weight file's metadata and layers, its outputs in the order of sorted WNIDs."""
    weights = read_documented_weights(file)
    if weights.net != net:
        raise VerydeepError(f"{file} contains net {weights.net}, not {net}.")
    outputs, crop, width = _sizes(file, weights.tensors)
    classes = _output_classes(file, outputs, weights.classes, opened)
    titles = _titled(file, classes, opened)
    order_of = "of its recorded classes" if weights.classes else "of sorted WNIDs, as it records no classes"
    reporter.say(f"{run}: the {outputs} outputs of {file} are in the order {order_of}")
    order = sorted(range(outputs), key=lambda number: class_key(titles[number]))
    moved = order != list(range(outputs))
    tensors = {
        name: value[order] if moved and name.startswith("fc8.") else value for name, value in weights.tensors.items()
    }
    source = {"weights": str(locate_weights(file).absolute()), "weights_sha256": file_sha256(locate_weights(file))}
    metadata = Metadata(
        net=net,
        crop=crop,
        width=width,
        classes=tuple(titles[number] for number in order),
        mean=weights.mean,
        test_scale=TEST_SCALE,
        origin=weights.origin,
        settings={**source, **({"outputs_moved": True} if moved else {})},
        **choice,
    )
    return metadata, tensors


def _output_classes(file: str, outputs: int, recorded: tuple[str, ...] | None, opened: Data) -> tuple[str, ...]:
    """The class of each output; raises VerydeepError where it is not known."""
    if recorded:
        keys = list(map(class_key, distinct(recorded)))
        twice = next((name for name, key in zip(recorded, keys, strict=True) if keys.count(key) > 1), None)
        if twice is not None or len(keys) != outputs:
            what = f"has the class {twice!r} twice" if twice else f"has {len(keys)} classes for {outputs} outputs"
            raise VerydeepError(f"{file} {what}, so its outputs cannot be matched to classes.")
        return distinct(recorded)
    if outputs == len(opened.classes):
        return opened.classes
    if outputs == len(ilsvrc_classes()):
        return ilsvrc_classes()
    count = len(opened.classes)
    raise VerydeepError(
        f"{file} has {outputs} outputs, but {opened.name} has {count} classes, and the file does not record "
        "its class names."
    )


def _titled(file: str, classes: tuple[str, ...], opened: Data) -> tuple[str, ...]:
    """A net's classes, each as spelled in the data; raises VerydeepError for a class of the data that it lacks."""
    keys = [class_key(name) for name in classes]
    known = {class_key(name): name for name in opened.classes}
    unknown = [name for key, name in known.items() if key not in set(keys)]
    if unknown:
        shown = f"{', '.join(classes[:3])}{', …' if len(classes) > 3 else ''}"
        raise VerydeepError(
            f"{opened.name} has the class {unknown[0]!r}, which is none of the {len(classes)} of {file} ({shown})."
        )
    return tuple(known.get(key, name) for key, name in zip(keys, classes, strict=True))


def _sizes(file: str, tensors: dict[str, Tensor]) -> tuple[int, int, float]:
    """Outputs, crop and width of a net, from its layers' shapes."""
    lacking = [name for name in ("conv1_1", "fc6", "fc7", "fc8") if f"{name}.weight" not in tensors]
    if lacking:
        raise VerydeepError(f"{file} is missing {', '.join(lacking)}: use a file with all layers of a released model.")
    first, fc6, fc8 = (tuple(tensors[f"{name}.weight"].shape) for name in ("conv1_1", "fc6", "fc8"))
    if len(fc6) != 4 or fc6[2] != fc6[3] or not 1 <= fc6[3] <= LARGEST_SIDE // STRIDE:
        raise VerydeepError(f"{file} has fc6 of the shape {fc6}: it must be outputs, inputs, and a square kernel.")
    return fc8[0], STRIDE * fc6[3], first[0] / 64


def _whole_net(metadata: Metadata, tensors: dict[str, Tensor], source: str) -> Net:
    """The net whose every layer the tensors hold."""
    net = metadata.empty_net()
    copied = start_from(net, tensors, metadata.net, classes_equal=True)
    if copied.random:
        raise VerydeepError(
            f"{source} is missing {', '.join(copied.random)}, or their shapes differ from those of the net."
        )
    return net.eval()
