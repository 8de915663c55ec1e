"""A classification model from any source: a run, a checkpoint, an exported file, a public weight file."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from ..core.errors import VerydeepError
from ..data.class_names import distinct
from .checkpoint import Checkpoint, Metadata, load_classifier
from .exported import ExportedFile, is_exported, open_exported
from .pretrained import PixelsUnknown, Weights, has_metadata, locate_weights, names_flag, read_weights
from .registry import NAMES_FILE
from .run_dir import checkpoint_of

Loaded = Checkpoint | ExportedFile
USUAL_SCALE = 256  # Q of released nets, at the crop of 224: the paper's smallest


def load_model(source: str | Path, last: bool = False, hashed: bool = True, calibration: bool = True) -> Loaded:
    """Loads a classification model.

    Args:
        source: a run directory (its best checkpoint, or ``last``), a checkpoint, an exported file, the name of released
            weights, or a public weight file with all layers whose preprocessing and classes are recorded or known.
        hashed: as in `verydeep.checkpoints.checkpoint.load_checkpoint`.
        calibration: False leaves out the temperatures of `verydeep calibrate`.

    Raises:
        VerydeepError: no such file, a broken one, a localisation model; layers, class names or preprocessing missing.
    """
    loaded = _load(source, last, hashed)
    return loaded if calibration else replace(loaded, metadata=replace(loaded.metadata, calibration={}))


def _load(source: str | Path, last: bool, hashed: bool) -> Loaded:
    path = Path(source)
    if path.is_dir() or (not path.exists() and last):
        return load_classifier(checkpoint_of(path, last), hashed)
    if is_exported(path):
        return open_exported(path)
    path = locate_weights(str(source))
    if has_metadata(path):
        return load_classifier(path, hashed)
    return pretrained_checkpoint(read_documented_weights(str(source)))


def read_documented_weights(source: str) -> Weights:
    """`verydeep.checkpoints.pretrained.read_weights` of a file whose preprocessing is recorded or known."""
    try:
        return read_weights(source)
    except PixelsUnknown as fault:
        if not fault.outputs:
            raise VerydeepError(cannot_classify(str(fault.path), "fc8")) from None
        raise fault.converted_first() from None


def cannot_classify(source: str, missing: str) -> str:
    """The message for weights without FC layers."""
    return (
        f"{source} has no {missing} weights, so it cannot classify: use it for feature extraction (`verydeep probe`), "
        "or as the start of a training (`verydeep train … --start`)."
    )


def pretrained_checkpoint(weights: Weights, class_names: tuple[str, ...] = ()) -> Checkpoint:
    """Pretrained weights as a checkpoint.

    Args:
        class_names: in the order of the outputs; by default those that the weights record.

    Raises:
        VerydeepError: FC layers or class names are missing, or the names are not as many as the outputs.
    """
    missing = [name for name in ("fc6", "fc7", "fc8") if f"{name}.weight" not in weights.tensors]
    if missing:
        raise VerydeepError(cannot_classify(weights.source, ", ".join(missing)))
    outputs = weights.tensors["fc8.weight"].shape[0]
    classes = class_names or weights.classes
    if classes is not None and len(classes) != outputs:
        raise VerydeepError(f"{weights.source} has {outputs} outputs, but there are {len(classes)} class names.")
    if classes is None and weights.metadata is None:
        raise VerydeepError(
            f"{weights.source} does not record its {outputs} class names: `verydeep convert "
            f"{shlex.quote(weights.source)} runs/NAME {names_flag(outputs)}` makes a run that does; {NAMES_FILE}."
        )
    metadata = weights.metadata or Metadata(
        net=weights.net,
        crop=weights.crop,
        width=weights.width,
        classes=distinct(classes or ()),
        mean=weights.mean,
        test_scale=round(USUAL_SCALE * weights.crop / 224),
        origin=weights.origin,
    )
    return Checkpoint(Path(weights.source), metadata, weights.tensors, {}, weights.origin.get("sha256", ""))
