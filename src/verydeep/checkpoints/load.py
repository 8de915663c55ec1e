"""A net that tells classes, from wherever it is: a run, a checkpoint, an exported file, a public weight file."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..core.errors import VerydeepError
from ..data.class_names import distinct
from .checkpoint import Checkpoint, Metadata, load_classifier, metadata_of
from .exported import ExportedFile, is_exported, open_exported
from .pretrained import NAMES_FILE, PixelsUnknown, Weights, has_metadata, names_flag, place_of, read_weights
from .run_dir import checkpoint_of

Loaded = Checkpoint | ExportedFile
USUAL_SCALE = 256  # Q of released nets, at the crop of 224: the paper's smallest


def open_classifier(source: str | Path, last: bool = False) -> Loaded:
    """A net that tells classes.

    Args:
        source: a run's folder (its best, or ``last``), a checkpoint, an exported file, the name of released weights, or
            any public weight file with all its layers that records or is known for its pixels and classes.

    Raises:
        VerydeepError: not there, broken, a box net, layers or class names are missing, pixels unknown.
    """
    path = Path(source)
    if path.is_dir() or (not path.exists() and last):
        return load_classifier(checkpoint_of(path, last))
    if is_exported(path):
        return open_exported(path)
    path = place_of(str(source))
    if has_metadata(path):
        return load_classifier(path)
    return released_checkpoint(read_recorded(str(source)))


def read_recorded(source: str) -> Weights:
    """Weights from a file that must tell its pixels itself; raises VerydeepError as
    `verydeep.checkpoints.pretrained.read_weights`."""
    try:
        return read_weights(source)
    except PixelsUnknown as fault:
        if not fault.outputs:
            raise VerydeepError(no_classifier(str(fault.path), "fc8")) from None
        raise fault.converted_first() from None


def no_classifier(source: str, lacking: str) -> str:
    """The sentence of weights without FC layers."""
    return (
        f"{source} lacks {lacking}, so it tells no classes: describe photos with it (`verydeep probe`), or train from "
        "it (`verydeep train … --start`)."
    )


def released_checkpoint(weights: Weights, class_names: tuple[str, ...] = ()) -> Checkpoint:
    """Weights from outside as a checkpoint of ours.

    Raises:
        VerydeepError: FC layers are missing, or names of the classes, or they are not as many as the outputs.
    """
    lacking = [name for name in ("fc6", "fc7", "fc8") if f"{name}.weight" not in weights.tensors]
    if lacking:
        raise VerydeepError(no_classifier(weights.source, ", ".join(lacking)))
    outputs = weights.tensors["fc8.weight"].shape[0]
    classes = class_names or weights.classes
    if classes is None:
        raise VerydeepError(
            f"{weights.source} does not record its {outputs} classes: `verydeep convert {shlex.quote(weights.source)} "
            f"runs/NAME {names_flag(outputs)}` makes a run that does; {NAMES_FILE}."
        )
    if len(classes) != outputs:
        raise VerydeepError(f"{weights.source} has {outputs} outputs, and {len(classes)} class names were given.")
    metadata = metadata_of(weights.metadata) if weights.metadata else _metadata(weights, distinct(classes))
    return Checkpoint(Path(weights.source), metadata, weights.tensors, {}, weights.origin.get("sha256", ""))


def _metadata(weights: Weights, classes: tuple[str, ...]) -> Metadata:
    return Metadata(
        net=weights.net,
        crop=weights.crop,
        width=weights.width,
        classes=classes,
        mean=weights.mean,
        test_scale=round(USUAL_SCALE * weights.crop / 224),
        origin=weights.origin,
    )
