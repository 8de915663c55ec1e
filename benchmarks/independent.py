r"""Sect. 3.2 and App. B once more, in plain PyTorch: no line of `verydeep` runs here.

    verydeep predict runs/E photos --protocol dense@256 --top 1000 --json > dense.json
    verydeep evaluate runs/E centre@224 --data photos --out scores    # scores.npz names its protocol
    verydeep features runs/E --data photos --classes 'n01*' --scales 256,384,512 --out fc7.safetensors
    python benchmarks/independent.py runs/E/best.safetensors photos \
        dense@256=dense.json scores/scores.npz fc7.safetensors

Computes what is in these files anew from the images and the weights, prints the largest difference of each file, and
ends with status 1 where one is above 1e-4. Posteriors are dense, averaged over the image and its mirror image, or of
the centre crop; descriptors are averaged over the map, both mirror images and, as vectors of length 1, over Q.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 1e-4


def read(path: str, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, and the JSON under a key of its header."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}, json.loads(file.metadata()[key])  # noqa: SIM118


def fc7(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The map of fc7 (1,D,h,w) of an image (1,3,H,W); FC layers are convolutions."""
    for stage in "12345":
        for name in sorted(name for name in weights if name.startswith(f"conv{stage}") and name.endswith(".weight")):
            kernel, bias = weights[name], weights[name.replace("weight", "bias")]
            x = F.relu(F.conv2d(x, kernel, bias, padding=kernel.shape[2] // 2))
        x = F.max_pool2d(x, 2, ceil_mode=True)
    for name in ("fc6", "fc7"):
        x = F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return x


def views(photo: Path, scales: list[int], net: dict[str, Any], method: str) -> Iterator[list[Tensor]]:
    """At each Q, what the net is applied to: the image and its mirror image, or its centre crop, (1,3,H,W)."""
    image, crop = ImageOps.exif_transpose(Image.open(photo)).convert("RGB"), net["crop"]
    for scale in scales:
        width, height = (int(side * scale / min(image.size) + 0.5) for side in image.size)
        rgb = np.array(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
        x = torch.from_numpy(rgb - np.float32(net["mean"])).permute(2, 0, 1)[None]
        top, left = (height - crop) // 2, (width - crop) // 2
        yield [x, x.flip(3)] if method == "dense" else [x[:, :, top : top + crop, left : left + crop]]


def posterior(weights: dict[str, Tensor], several: Iterator[list[Tensor]]) -> Tensor:
    """The mean posterior (K,) over scales and views: the soft-max of each view's mean score map."""
    maps = [F.conv2d(fc7(weights, x), weights["fc8.weight"], weights["fc8.bias"]) for scale in several for x in scale]
    return torch.stack([F.softmax(scores.mean((2, 3))[0], dim=0) for scores in maps]).mean(0)


def unit_mean(rows: list[Tensor]) -> list[Tensor]:
    """The unit vectors (D,) of each scale, and their average."""
    units = [F.normalize(row, dim=0) for row in rows]
    return [*units, torch.stack(units).mean(0)]


def of_descriptors(weights: dict[str, Tensor], net: dict[str, Any], photos: Path, file: str) -> Iterator[float]:
    """The length of the largest difference of each image of a features file."""
    stored, header = read(file, "verydeep-features")
    scales = sorted(int(name[1:]) for name in stored if name.startswith("Q"))
    for place, image in enumerate(header["ids"]):
        pairs = views(photos / image, scales, net, "dense")
        ours = unit_mean([torch.stack([fc7(weights, x).mean((2, 3))[0] for x in pair]).mean(0) for pair in pairs])
        theirs = unit_mean([stored[f"Q{scale}"][place] for scale in scales])
        yield max(float((one - other).norm()) for one, other in zip(ours, theirs, strict=True))


def of_posteriors(weights: dict[str, Tensor], net: dict[str, Any], photos: Path, name: str) -> Iterator[float]:
    """The largest difference of each image of a scores file, or of PROTOCOL=FILE of `predict`."""
    protocol, _, file = name.rpartition("=")
    if file.endswith(".npz"):
        scores = np.load(file)
        protocol, rows = str(scores["protocol"]), list(zip(scores["ids"].tolist(), scores["posteriors"], strict=True))
    else:
        lines = json.loads(Path(file).read_text())
        known = [{row["class"]: row["probability"] for row in line["predictions"]} for line in lines]
        every = [np.array([row[label] for label in net["classes"]], dtype=np.float32) for row in known]
        rows = [(Path(line["image"]).resolve(), row) for line, row in zip(lines, every, strict=True)]
    method, _, scales = protocol.partition("@")
    if method not in ("dense", "centre"):
        raise SystemExit(f"{name}: only dense and centre are computed here")
    for image, row in rows:
        ours = posterior(weights, views(photos / image, list(map(int, scales.split(","))), net, method))
        yield float((ours - torch.from_numpy(row)).abs().max())


def main(weight_file: str, photos: str, *files: str) -> int:
    """Prints the largest difference of each file; 1 where one has none or is above the tolerance."""
    weights, net = read(weight_file, "verydeep")
    agree = bool(files)
    for name in files:
        differences = of_descriptors if name.endswith(".safetensors") else of_posteriors
        with torch.inference_mode():
            found = list(differences(weights, net, Path(photos), name))
        print(f"{name}: {len(found)} images, largest difference {np.max(found, initial=0):.1e}")
        agree &= bool(found) and bool(np.max(found) <= TOLERANCE)  # NaN is not
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
