"""Export to ONNX, int8 ONNX and safetensors.

Every file contains the net's metadata. A float file is compared with its net, at the crop and at a larger, non-square
size, before it gets its name, one that takes photos on two of them; int8 is compared on real images that were not used
for calibration, and the difference is reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.checkpoint import METADATA_KEY, Checkpoint, Metadata, save_checkpoint
from ..checkpoints.exported import INPUTS, NO_PT2, PHOTO, TAKES_KEY, UINT8, open_exported
from ..checkpoints.load import load_model
from ..checkpoints.model_card import export_usage, write_model_card
from ..checkpoints.onnx_runtimes import open_onnx
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import check_place, write_atomically
from ..core.progress import Reporter
from ..core.settings import DataSettings, MachineSettings
from ..core.terminal import default_reporter
from ..data.class_names import places_in
from ..data.dataloader import each_photo
from ..data.image_io import Pixels
from ..data.open import Dataset, open_data, relabel
from ..data.workers import Fault
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.inference import InferenceModel, ResizeToScales, model_input
from ..evaluation.predict import Classifier
from ..evaluation.protocols import check_protocol, parse_protocol
from ..models.vgg import Net
from .example import read_example, write_example
from .onnx import build
from .quantise import quantise

ENDING = {"onnx": ".onnx", "onnx-int8": ".int8.onnx", "safetensors": ".safetensors"}
TOLERANCE = 1e-4  # of a posterior
CALIBRATION, COMPARISON = 64, 200  # images


def export(
    run: str | Path,
    form: str = "onnx",
    out: str | Path | None = None,
    takes: str = UINT8,
    photos: str | None = None,
    last: bool = False,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    calibration: bool = True,
    example: str | Path | None = None,
) -> dict[str, Any]:
    """Writes a net in a format for other runtimes, and its model card beside it.

    Args:
        run: a run directory, a checkpoint, released weights or a weight file with all its layers.
        form: ``onnx``, ``onnx-int8`` or ``safetensors``.
        out: the file; by default beside the run's checkpoint, or in the current directory.
        takes: ``uint8``: images (B,H,W,3) to posteriors (B,K); ``photo``: one image (H,W,3) of any size, whose central
            crop at Q it classifies, to a posterior (1,K); ``float``: pixels (B,3,H,W) minus the mean to scores (B,K)
            before softmax.
        photos: for int8, data to calibrate with and to compare on; by default the run's own.
        last: the last checkpoint instead of the best.
        calibration: whether the file's metadata keep the temperatures of `verydeep.calibrate`; its outputs are without.
        example: a photo, which is written in a folder beside an ONNX file with its pixels, its posteriors and programs
            in Python, JavaScript and C++ that reproduce them.

    Returns:
        The file, its input, and the largest difference of its posteriors; for int8 the comparison on images.

    Raises:
        VerydeepError: no such net or format, the file exists, a missing library, missing images, or an exported file
            whose output differs from the net's.
    """
    _check_form(form, takes, example is not None)
    loaded = _loaded_net(run, last, calibration)
    path = Path(out) if out else _default_path(loaded, run, form)
    _check_free(path, form)
    pixels = _checked_example(path, loaded.metadata, takes, example)
    machine, reporter = machine or MachineSettings(), reporter or default_reporter()
    if form == "onnx-int8":
        facts = _export_int8(loaded, path, photos, machine, reporter)
    else:
        facts = _export_float(loaded, path, form, takes, reporter)
    return _written(path, loaded, form, facts, pixels)


def _loaded_net(run: str | Path, last: bool, calibration: bool) -> Checkpoint:
    loaded = load_model(run, last, calibration=calibration)
    if not isinstance(loaded, Checkpoint):
        raise VerydeepError(f"{run} is already an exported file: export the run it was made from.")
    return loaded


def _checked_example(path: Path, metadata: Metadata, takes: str, example: str | Path | None) -> Pixels | None:
    """The example's photo, if any, read before anything is written."""
    if takes == PHOTO or example is not None:  # both use the central crop
        check_protocol(parse_protocol(f"centre@{metadata.test_scale}"), metadata.crop)
    return None if example is None else read_example(path, example)


def _written(path: Path, loaded: Checkpoint, form: str, facts: dict[str, Any], photo: Pixels | None) -> dict[str, Any]:
    """Writes the model card and the example of a file, and says what was written."""
    use = None if form == "safetensors" else export_usage(loaded.metadata, facts["takes"])
    card = write_model_card(path, loaded.metadata, facts, use)
    written = {"file": str(path), "form": form, **facts, "bytes": path.stat().st_size, "card": str(card)}
    if photo is not None:
        net = open_exported(path).net() if form == "onnx-int8" else loaded.net()
        written["example"] = str(write_example(path, Classifier(net, loaded.metadata, _cpu()), facts["takes"], photo))
    return written


def _cpu() -> Machine:
    return resolve_device(MachineSettings(device="cpu"), 0)


def _check_form(form: str, takes: str, example: bool) -> None:
    if form == "pt2":
        raise VerydeepError(f"cannot export to .pt2: {NO_PT2}")
    if form not in ENDING or takes not in INPUTS:
        kinds = f"{', '.join(ENDING)} with uint8, photo or float input"
        raise VerydeepError(f"nets are exported to {kinds}, not to {form!r} with {takes!r}.")
    if form == "onnx-int8" and takes != UINT8:
        raise VerydeepError(f"int8 models take uint8 images: leave out --takes {takes}.")
    if form == "safetensors" and (takes == PHOTO or example):
        flag = "--example" if example else "--takes photo"
        raise VerydeepError(f"a safetensors file has weights only, no program to run: leave out {flag}.")


def _check_free(path: Path, form: str) -> None:
    if path.exists():
        raise VerydeepError(f"{path} already exists: remove it, or use another --out.")
    if path.suffix.lower() != f".{ENDING[form].rpartition('.')[2]}":
        raise VerydeepError(f"{path} must end in {ENDING[form]} for {form}.")
    check_place(path.parent)


def _default_path(loaded: Checkpoint, run: str | Path, form: str) -> Path:
    """A file in the run directory; for released weights, which are in a cache, in the current directory."""
    if Path(run).is_dir():
        return Path(run) / f"net{ENDING[form]}"
    name = Path(str(run)).name.removesuffix(".safetensors")
    return (loaded.path.parent if Path(run).exists() else Path()) / f"{name}{ENDING[form]}"


def _export_float(loaded: Checkpoint, out: Path, form: str, takes: str, reporter: Reporter) -> dict[str, Any]:
    net, metadata = loaded.net(), loaded.metadata
    if form == "safetensors":
        save_checkpoint(out, net, replace(metadata, state={}))
        return {"takes": "float"}
    reporter.say(f"writing {out}")
    unverified = out.with_name(f".unverified.{out.name}")
    try:
        write_atomically(unverified, lambda file: file.write(_onnx_bytes(net, metadata, takes)))
        difference = (_photo_difference if takes == PHOTO else _largest_difference)(net, metadata, unverified)
        if not difference <= TOLERANCE:
            raise VerydeepError(f"the exported file's posteriors differ from the net's by {difference:.1e}: removed.")
        unverified.replace(out)
    finally:
        unverified.unlink(missing_ok=True)
    return {"takes": takes, "largest_difference": difference}


def _onnx_bytes(net: Net, metadata: Metadata, takes: str) -> bytes:
    return _with_metadata(build(net, metadata, takes), metadata, takes)


def _with_metadata(model: Any, metadata: Metadata, takes: str) -> bytes:
    """An ONNX model's bytes with our metadata in place of what it has."""
    del model.metadata_props[:]
    for key, value in ((METADATA_KEY, json.dumps(replace(metadata, state={}).to_json())), (TAKES_KEY, takes)):
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def _largest_difference(net: Net, metadata: Metadata, out: Path) -> float:
    """The largest difference between an exported file's posteriors and the net's, on random images of two sizes."""
    nets: tuple[InferenceModel, InferenceModel] = (net, open_exported(out).net())
    machine, shift, largest = _cpu(), -torch.tensor(metadata.mean)[None], 0.0
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for shape in ((1, net.crop, net.crop, 3), (2, net.crop + 33, net.crop + 70, 3)):
            images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            pair = [torch.softmax(model.mean_scores(model_input(model, images, machine, shift)), 1) for model in nets]
            largest = max(largest, float((pair[0] - pair[1]).abs().max()))
    return largest


def _photo_difference(net: Net, metadata: Metadata, out: Path) -> float:
    """The same of a file that takes photos, which Pillow resizes for the net: one is enlarged, one reduced."""
    rng, q = np.random.default_rng(0), metadata.test_scale
    photos = [rng.integers(0, 256, (*sides, 3), dtype=np.uint8) for sides in ((q - q // 4, q), (q + 70, 2 * q + 33))]
    expected, run = Classifier(net, metadata, _cpu()).posteriors(photos, f"centre@{q}"), open_onnx(out, resizes=True)
    found = [run(photo) for photo in photos]
    return float(np.abs(np.concatenate(found) - expected).max())


def _export_int8(
    loaded: Checkpoint, out: Path, photos: str | None, wanted: MachineSettings, reporter: Reporter
) -> dict[str, Any]:
    """Calibrated on images of the dev part, compared on the reported part."""
    import onnx

    metadata, net = loaded.metadata, loaded.net()
    machine = resolve_device(replace(wanted, compile=False), metadata.multiply_adds)
    calibration, comparison = _two_sets(metadata, photos)
    float_file, int8_file = (out.with_name(f".{out.name}{end}") for end in (".float.tmp", ".tmp"))
    try:
        write_atomically(float_file, lambda file: file.write(_onnx_bytes(net, metadata, UINT8)))
        with machine.running():
            images = _rescaled_images(calibration, metadata, machine)
            quantise(float_file, int8_file, images, len(calibration), reporter)
        int8_file.write_bytes(_with_metadata(onnx.load(int8_file), metadata, UINT8))  # which ONNX Runtime drops
        int8_file.replace(out)
    finally:
        for path in (float_file, int8_file):
            path.unlink(missing_ok=True)
    machine.place_model(net)
    float_model = Classifier(net, metadata, machine)
    agreement = _compare_int8(float_model, open_exported(out).net(), comparison, reporter)
    return {"takes": UINT8, "calibration_photos": len(calibration), **agreement}


def _two_sets(metadata: Metadata, photos: str | None) -> tuple[Dataset, Dataset]:
    """Images for calibration and for comparison, spread evenly over their sets; none is in both."""
    if photos is None and not metadata.data:
        raise VerydeepError("int8 needs images for calibration, and this net records no dataset: pass --photos.")
    settings = metadata.data_settings if photos is None else DataSettings(data=photos)
    opened = open_data(settings)
    calibration = opened.sets.get("dev") or opened.sets.get("train") or opened.set(opened.reported)
    comparison = opened.set(opened.reported)
    if opened.sets.get("dev") is None and calibration is comparison:
        half = len(comparison) // 2
        calibration, comparison = comparison.take(np.arange(half)), comparison.take(np.arange(half, len(comparison)))
    return calibration.evenly(CALIBRATION), comparison.evenly(COMPARISON)


def _rescaled_images(dataset: Dataset, metadata: Metadata, machine: Machine) -> Iterator[Pixels]:
    """Images of a set at the net's Q, one by one."""
    views = ResizeToScales.for_net(metadata, parse_protocol(f"dense@{metadata.test_scale}"))
    for _, views_of_one in each_photo(dataset, views, machine.readers):
        if isinstance(views_of_one, Fault):
            raise VerydeepError(views_of_one.message)
        yield views_of_one[0]


def _compare_int8(classifier: Classifier, int8: InferenceModel, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Compares int8 with float on real images, by dense evaluation at one scale."""
    metadata, machine = classifier.metadata, classifier.machine
    protocol = parse_protocol(f"dense@{metadata.test_scale}")
    nets = {"float": classifier, "8 bits": Classifier(int8, metadata, machine)}
    with machine.running():
        posteriors = [
            dataset_posteriors(model, dataset, protocol, reporter, f"comparing, {name}").posteriors
            for name, model in nets.items()
        ]
    best = [rows.argmax(1) for rows in posteriors]
    facts: dict[str, Any] = {
        "compared_photos": len(dataset),
        "top1_agreement": 100 * float((best[0] == best[1]).mean()),
        "mean_posterior_difference": float(np.abs(posteriors[0] - posteriors[1]).mean()),
    }
    if dataset.labelled and (places_in(metadata.classes, dataset.classes) >= 0).all():
        labels = relabel(dataset, metadata.classes).labels
        errors = (100 * float((predicted != labels).mean()) for predicted in best)
        facts["top1_error"] = dict(zip(nets, errors, strict=True))
    return facts
