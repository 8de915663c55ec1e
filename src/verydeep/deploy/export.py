"""Out to where people run nets: ONNX, ONNX in 8 bits, PyTorch's ``.pt2``, safetensors.

Every file carries the net's card. In float it is compared with the net it was made from, at the crop and at a larger,
oblong size, before it takes its name; 8 bits are compared on real photos, which calibration never saw, and the
difference is told.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.as_written import described_export
from ..checkpoints.checkpoint import METADATA_KEY, Checkpoint, Metadata, save_checkpoint
from ..checkpoints.exported import FLOAT, TAKES_KEY, UINT8, open_exported
from ..checkpoints.load import open_classifier
from ..checkpoints.model_card import write_model_card
from ..checkpoints.preprocessing import Triple
from ..core.config import from_json
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import check_place, write_atomically
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, MachineSettings
from ..data.class_names import places_in
from ..data.dataloader import each_photo
from ..data.open import Dataset, open_data, relabel
from ..data.workers import Fault
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.inference import InferenceModel, ResizeToScales, shown_to
from ..evaluation.protocols import parse_protocol
from ..models.vgg import Net
from .onnx import build
from .quantise import quantise
from .traced import trace

ENDING = {"onnx": ".onnx", "onnx-int8": ".int8.onnx", "pt2": ".pt2", "safetensors": ".safetensors"}
TOLERANCE = 1e-4  # of a posterior
CALIBRATION, COMPARISON = 64, 200  # photos


@dataclass(frozen=True)
class Order:
    """What is to be exported, and to where."""

    loaded: Checkpoint
    form: str
    takes: str
    out: Path
    reporter: Reporter


def export(
    run: str | Path,
    form: str = "onnx",
    out: str | Path | None = None,
    takes: str = UINT8,
    photos: str | None = None,
    last: bool = False,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Writes a net in a form that others run, and its model card beside it.

    Args:
        run: a run's folder, a checkpoint, released weights or a weight file with all its layers.
        form: ``onnx``, ``onnx-int8``, ``pt2`` or ``safetensors``.
        out: the file; by default beside the run's checkpoint, or here.
        takes: ``uint8``, photos (B,H,W,3) to posteriors (B,K); or ``float``, pixels (B,3,H,W) minus the mean to
            scores (B,K) before soft-max.
        photos: for 8 bits, data to calibrate with and to compare on; by default the run's own.
        last: the last checkpoint instead of the best.

    Returns:
        The file, what it takes and gives, how far its scores are from the net's; of 8 bits the comparison on photos.

    Raises:
        VerydeepError: no such net or form, a place that is taken, a missing library, photos that are not there, an
            exported file that does not answer as the net does.
    """
    if form not in ENDING or takes not in (UINT8, FLOAT):
        raise VerydeepError(
            f"nets are exported to {', '.join(ENDING)}, taking uint8 or float; not {form!r}, {takes!r}."
        )
    if form == "onnx-int8" and takes != UINT8:
        raise VerydeepError("8 bits take uint8 photos: leave out --takes float.")
    loaded = open_classifier(run, last)
    if not isinstance(loaded, Checkpoint):
        raise VerydeepError(f"{run} is an exported file already: export the run it was made from.")
    place = Path(out) if out else _usual_place(loaded, run, form)
    _check_free(place, form)
    order = Order(loaded, form, takes, place, reporter or Silent())
    told = _in_8_bits(order, photos, machine or MachineSettings()) if form == "onnx-int8" else _in_float(order)
    use = None if form == "safetensors" else described_export(loaded.metadata, told["takes"])
    card_path = write_model_card(place, loaded.metadata, told, use)
    return {"file": str(place), "form": form, **told, "bytes": place.stat().st_size, "card": str(card_path)}


def _check_free(place: Path, form: str) -> None:
    if place.exists():
        raise VerydeepError(f"{place} is there already: remove it, or give another --out.")
    if place.suffix.lower() != f".{ENDING[form].rpartition('.')[2]}":
        raise VerydeepError(f"{place} must end in {ENDING[form]}, as it is to hold {form}.")
    check_place(place.parent)


def _usual_place(loaded: Checkpoint, run: str | Path, form: str) -> Path:
    """In the run's folder; of released weights, which lie in a cache, in the current one."""
    if Path(run).is_dir():
        return Path(run) / f"net{ENDING[form]}"
    name = Path(str(run)).name.removesuffix(".safetensors")
    return (loaded.path.parent if Path(run).exists() else Path()) / f"{name}{ENDING[form]}"


def _in_float(order: Order) -> dict[str, Any]:
    net, metadata = order.loaded.net(), order.loaded.metadata
    if order.form == "safetensors":
        save_checkpoint(order.out, net, replace(metadata, state={}))
        return {"takes": "float"}
    order.reporter.say(f"writing {order.out}")
    untried = order.out.with_name(f".untried.{order.out.name}")
    try:
        if order.form == "onnx":
            write_atomically(untried, lambda file: file.write(_onnx_bytes(net, metadata, order.takes)))
        else:
            _write_traced(net, metadata, order.takes, untried)
        difference = _difference(net, metadata.mean, untried)
        if not difference <= TOLERANCE:
            raise VerydeepError(f"the exported net answers {difference:.1e} apart from the net: it is not kept.")
        untried.replace(order.out)
    finally:
        untried.unlink(missing_ok=True)
    return {"takes": order.takes, "largest_difference": difference}


def _onnx_bytes(net: Net, metadata: Metadata, takes: str) -> bytes:
    model = build(net, metadata, takes)
    for key, value in ((METADATA_KEY, json.dumps(asdict(replace(metadata, state={})))), (TAKES_KEY, takes)):
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def _write_traced(net: Net, metadata: Metadata, takes: str, out: Path) -> None:
    told = {METADATA_KEY: json.dumps(asdict(replace(metadata, state={}))), TAKES_KEY: takes}
    content = io.BytesIO()
    torch.export.save(trace(net, metadata.mean, takes), content, extra_files=told)
    write_atomically(out, lambda file: file.write(content.getbuffer()))


def _difference(net: Net, mean: Triple, out: Path) -> float:
    """How far an exported file's posteriors are from the net's: the largest, at two sizes of random photos."""
    nets: tuple[InferenceModel, InferenceModel] = (net, open_exported(out).net())
    here, shift, largest = resolve_device(MachineSettings(device="cpu"), 0), -torch.tensor(mean)[None], 0.0
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for sides in ((1, net.crop, net.crop, 3), (2, net.crop + 33, net.crop + 70, 3)):
            photos = torch.randint(0, 256, sides, generator=generator, dtype=torch.uint8)
            pair = [torch.softmax(one.mean_scores(shown_to(one, photos, here, shift)), 1) for one in nets]
            largest = max(largest, float((pair[0] - pair[1]).abs().max()))
    return largest


def _in_8_bits(order: Order, photos: str | None, wish: MachineSettings) -> dict[str, Any]:
    """Calibrated on photos of the part that decides, compared on those that are reported."""
    metadata, net = order.loaded.metadata, order.loaded.net()
    machine = resolve_device(replace(wish, compile=False), metadata.multiply_adds)
    calibration, comparison = _two_sets(metadata, photos)
    whole = order.out.with_name(f".{order.out.name}.float.tmp")
    small = order.out.with_name(f".{order.out.name}.tmp")
    try:
        write_atomically(whole, lambda file: file.write(_onnx_bytes(net, metadata, UINT8)))
        with machine.running():
            quantise(whole, small, _shown(calibration, metadata, machine), len(calibration), order.reporter)
        _add_metadata(small, metadata)
        small.replace(order.out)
    finally:
        for path in (whole, small):
            path.unlink(missing_ok=True)
    machine.place_model(net)
    told = _compared(net, order.out, metadata, comparison, machine, order.reporter)
    return {"takes": UINT8, "calibration_photos": len(calibration), **told}


def _add_metadata(path: Path, metadata: Metadata) -> None:
    """The card into a file that ONNX Runtime wrote, which drops it."""
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    for key, value in ((METADATA_KEY, json.dumps(asdict(replace(metadata, state={})))), (TAKES_KEY, UINT8)):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _two_sets(metadata: Metadata, photos: str | None) -> tuple[Dataset, Dataset]:
    """Photos to calibrate with and photos to compare on, spread evenly over their sets; none is in both."""
    if photos is None and not metadata.data:
        raise VerydeepError("8 bits need photos, and this net names no data: say --photos.")
    settings = from_json(DataSettings, metadata.data) if photos is None else DataSettings(data=photos)
    opened = open_data(settings)
    calibration = opened.sets.get("dev") or opened.sets.get("train") or opened.set(opened.reported)
    comparison = opened.set(opened.reported)
    if opened.sets.get("dev") is None and calibration is comparison:
        half = len(comparison) // 2
        calibration, comparison = comparison.take(np.arange(half)), comparison.take(np.arange(half, len(comparison)))
    return _spread(calibration, CALIBRATION), _spread(comparison, COMPARISON)


def _spread(dataset: Dataset, most: int) -> Dataset:
    """At most so many photos, evenly over a set."""
    return dataset.take(np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(np.int64)))


def _shown(dataset: Dataset, metadata: Metadata, machine: Machine) -> Any:
    """Photos of a set at the net's Q, one by one."""
    views = ResizeToScales(
        parse_protocol(f"dense@{metadata.test_scale}"), metadata.crop, metadata.resampling, metadata.other_side
    )
    for _, found in each_photo(dataset, views, machine.readers):
        if isinstance(found, Fault):
            raise VerydeepError(found.message)
        yield found[0]


def _compared(
    net: Net, out: Path, metadata: Metadata, dataset: Dataset, machine: Machine, reporter: Reporter
) -> dict[str, Any]:
    """8 bits beside float on real photos, by the dense procedure at one scale."""
    protocol = parse_protocol(f"dense@{metadata.test_scale}")
    nets: list[tuple[str, InferenceModel]] = [("float", net), ("8 bits", open_exported(out).net())]
    with machine.running():
        found = [
            dataset_posteriors(one, metadata, dataset, protocol, machine, reporter, f"comparing, {name}").posteriors
            for name, one in nets
        ]
    best = [posteriors.argmax(1) for posteriors in found]
    told: dict[str, Any] = {
        "compared_photos": len(dataset),
        "top1_agreement": 100 * float((best[0] == best[1]).mean()),
        "mean_posterior_difference": float(np.abs(found[0] - found[1]).mean()),
    }
    if dataset.labelled and (places_in(metadata.classes, dataset.classes) >= 0).all():
        labels = relabel(dataset, metadata.classes).labels
        told["top1_error"] = {name: _error(one, labels) for (name, _), one in zip(nets, best, strict=True)}
    return told


def _error(best: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    return 100 * float((best != labels).mean())
