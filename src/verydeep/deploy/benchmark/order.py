"""The runtimes that `benchmark` compares with, and what a process of one runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...core.errors import VerydeepError

TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
# The Python modules of the runtimes that predict with an ONNX file, directly or converted.
RUNTIMES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",), "mnn": ("MNN",), "ncnn": ("ncnn", "pnnx")}
PEERS = ("torchvision", *RUNTIMES)
IN_BF16 = ("torchvision", "openvino")  # the peers that have bf16 for these nets on a CPU
IMAGES, WEIGHTS, ONNX = "images.npy", "weights.safetensors", "net.onnx"  # files of an order's folder


@dataclass(frozen=True)
class Order:
    """What a peer runs: a net's prediction of ``count`` images of a size, or a training step on them (``trains``).

    For prediction ``folder`` has the images, minus whose ``mean`` is the net's input, and its weights; the peer writes
    its posteriors there. A training step has random images and weights.
    """

    peer: str
    net: str
    classes: int
    count: int
    size: int
    trains: bool
    device: str
    threads: int
    crop: int = 224
    width: float = 1.0
    mean: tuple[float, ...] = ()
    folder: str = ""
    precision: str = "float32"  # or bf16

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return Path(self.folder) / name

    @property
    def posteriors(self) -> Path:
        """Where the peer writes what it predicts."""
        return self.file(f"{self.peer}.npy")


def check_peer(name: str, net: str) -> None:
    """Raises VerydeepError where there is no such peer, or it has no such net."""
    if name not in PEERS:
        raise VerydeepError(f"there is no peer {name!r} to compare with: use {', '.join(PEERS)}.")
    if name == "torchvision" and net not in TORCHVISION:
        raise VerydeepError(f"{name} has no net {net}: compare {', '.join(TORCHVISION)}.")
