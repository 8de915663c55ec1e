"""Weights from public files into a checkpoint of ours, and from ours into the layouts that other programs read.

torchvision's, Keras's and Caffe's layouts are written so that reading them back gives bitwise equal weights, which is
checked before a file takes its name: conv1_1 takes 0-255 pixels minus the mean. The model card, the sidecar and Caffe's
prototxt say how the file is used.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ..core.errors import VerydeepError
from ..core.files import check_place, write_atomically, write_json
from ..core.paths import names_a_folder
from ..models.architectures import has_lrn
from .checkpoint import Metadata, save_checkpoint
from .formats.caffe import caffe_bytes, prototxt
from .formats.keras import keras_bytes
from .key_maps import TORCHVISION
from .load import pretrained_checkpoint
from .model_card import OURS, usage, write_model_card
from .preprocessing import Preprocessing, our_pixels, to_our_pixels, triple
from .pretrained import Weights, read_layers, read_weights
from .registry import named_classes
from .run_dir import BEST, LAST
from .sidecar import write_sidecar

ENDINGS = {".safetensors": OURS, ".pth": "torchvision", ".pt": "torchvision", ".h5": "keras"}
ENDINGS |= {".caffemodel": "caffe"}
Tensors = dict[str, Tensor]


def convert_weights(
    source: str,
    out: str | Path,
    to: str | None = None,
    preprocessing: str = "recorded",
    class_names: str | None = None,
) -> dict[str, Any]:
    """Writes a net's weights in another layout, with a sidecar and a model card beside them.

    Arguments and errors are those of `verydeep.convert`.
    """
    file, form = _output(out, to)
    weights = read_weights(source, preprocessing)
    names = named_classes(class_names)
    metadata = pretrained_checkpoint(weights, names).metadata if "fc8.weight" in weights.tensors else None
    if form == OURS:
        _write_ours(file, weights, metadata)
        page = write_model_card(file, metadata) if metadata else None
    else:
        page = _write_foreign(file, form, weights, metadata)
    layers = [name for name in weights.tensors if name.endswith(".weight")]
    return {
        **{"file": str(file), "format": form, "net": weights.net, "width": weights.width, "layers": len(layers)},
        "origin": weights.origin,
        "classes": len(metadata.classes) if metadata else None,
        "boxes": metadata is not None and metadata.is_localiser,
        "card": str(page) if page else None,
    }


def _output(out: str | Path, to: str | None) -> tuple[Path, str]:
    """The file to write and its layout."""
    path = Path(out)
    is_run = to in (None, OURS) and names_a_folder(out)
    form = to or (OURS if is_run else ENDINGS.get(path.suffix.lower(), ""))
    if form not in ENDINGS.values():
        raise VerydeepError(
            f"{path} does not name a layout: end it in .safetensors, .pth, .h5 or .caffemodel, or in / for a run "
            "directory, or pass --to."
        )
    file = path / BEST if is_run else path
    if file.exists() or (file.parent / LAST).exists():
        raise VerydeepError(f"{path} exists: choose another output.")
    check_place(file.parent)
    return file, form


def _write_ours(file: Path, weights: Weights, metadata: Metadata | None) -> None:
    if metadata is None:
        mean = ",".join(map(repr, weights.mean))
        header = {"net": weights.net, "channel_order": "RGB", "mean_rgb": mean, "input_range": "0-255"}
        data = save(weights.tensors, metadata=header)
        write_atomically(file, lambda opened: opened.write(data))
        return
    net = metadata.empty_net()
    net.load_state_dict(weights.tensors)
    save_checkpoint(file, net, replace(metadata, state={}))
    if file.name == BEST:
        run, pixels = file.absolute().parent.name, our_pixels(metadata.mean).to_json()
        write_json(file.with_name("config.json"), {"run": run, "pixels": pixels, "converted": weights.origin})


def _write_foreign(file: Path, form: str, weights: Weights, metadata: Metadata | None) -> Path:
    """Writes a file, read back before it takes its name, and what belongs beside it; returns its model card."""
    if metadata is None:
        raise VerydeepError(f"{weights.source} has no FC layers, which {form} files need: convert it to .safetensors.")
    if metadata.is_localiser or has_lrn(metadata.net):
        what = "is a localisation model" if metadata.is_localiser else "has local response normalisation"
        raise VerydeepError(
            f"{weights.source} {what}, which {form} files cannot represent: convert it to .safetensors."
        )
    pixels = _pixels_of(form, metadata)
    content = _content(form, metadata.net, weights.tensors)
    write_atomically(
        file, lambda opened: opened.writelines(content), lambda written: _check_same(written, file, pixels, weights)
    )
    if form == "caffe":
        text = prototxt(metadata.net, weights.tensors, metadata.crop, usage(metadata, form, pixels))
        write_atomically(file.with_suffix(".prototxt"), lambda opened: opened.write(text.encode()))
    write_sidecar(file, form, pixels, replace(metadata, state={}))
    return write_model_card(file, metadata, use=usage(metadata, form, pixels))


def _pixels_of(form: str, metadata: Metadata) -> Preprocessing:
    """The preprocessing that a file in a foreign layout is written for."""
    if form == "torchvision":
        return Preprocessing("RGB", triple(np.array(metadata.mean) / 255), 1 / 255, (1 / 255, 1 / 255, 1 / 255))
    return Preprocessing("BGR", triple(metadata.mean[::-1]))


def _check_same(written: Path, file: Path, pixels: Preprocessing, weights: Weights) -> None:
    """Raises VerydeepError where reading the file with its stated preprocessing does not give the net's weights."""
    stored = read_layers(written)
    first, _ = to_our_pixels(stored.tensors["conv1_1.weight"], pixels)
    tensors = {**stored.tensors, "conv1_1.weight": first}
    wanted = weights.tensors
    if tensors.keys() != wanted.keys() or not all(torch.equal(tensors[name], wanted[name]) for name in wanted):
        raise VerydeepError(
            f"{file} does not have the weights of {weights.source} when read back, and was removed: report "
            "this as a bug."
        )


def _content(form: str, net: str, tensors: Tensors) -> Iterable[Any]:
    """The bytes of a file, in pieces."""
    if form == "torchvision":
        return [_torchvision_bytes(net, tensors)]
    bgr = {**tensors, "conv1_1.weight": tensors["conv1_1.weight"].flip(1)}
    return [keras_bytes(net, bgr)] if form == "keras" else caffe_bytes(net, bgr)


def _torchvision_bytes(net: str, tensors: Tensors) -> Any:
    state = {}
    for ours, theirs in TORCHVISION.names(net).items():
        weight = tensors[f"{ours}.weight"]
        state[f"{theirs}.weight"] = weight.flatten(1) if ours.startswith("fc") else weight
        state[f"{theirs}.bias"] = tensors[f"{ours}.bias"]
    content = io.BytesIO()
    torch.save({name: value.contiguous() for name, value in state.items()}, content)
    return content.getbuffer()
