"""The public weight files of these nets: their URLs, hashes and preprocessing.

D and E of Oxford are the paper's own; jcjohnson's, Keras's and MatConvNet's are ports of them; torchvision's, timm's
and mmpretrain's are nets of the same architecture, trained independently. Hashes are as published: some publishers give
only the first 8 digits of the SHA-256, and only those are compared. All have ILSVRC's 1000 classes, by sorted WNIDs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..core.errors import VerydeepError
from ..core.nearest import nearest
from ..data.class_names import names_in
from ..models.architectures import BY_LAYERS

CC_BY = "CC BY 4.0, Visual Geometry Group, Oxford"
BSD = "BSD-3-Clause, torchvision; trained on ILSVRC, whose own terms hold"
APACHE = "Apache-2.0, OpenMMLab; trained on ILSVRC, whose own terms hold"


@dataclass(frozen=True)
class Released:
    """A public weight file.

    ``pixels`` names its preprocessing in `verydeep.checkpoints.preprocessing.KNOWN`; ``size`` is in bytes, 0 where
    unpublished; ``digest`` is ``sha256:…``, ``sha1:…`` or ``md5:…``; ``errors`` are the publisher's top-1 and top-5
    error of one centre crop in percent, where published; files that are not ``full`` have no FC layers.
    """

    name: str
    net: str
    pixels: str
    licence: str
    address: str
    digest: str
    size: int = 0
    errors: tuple[float, float] | None = None
    full: bool = True

    @property
    def file_name(self) -> str:
        """The publisher's file name."""
        return self.address.rpartition("/")[2]

    def holds(self, digests: Digests) -> bool:
        """Whether a file has this content, by its hash."""
        kind, _, digits = self.digest.partition(":")
        return digests.of(kind).startswith(digits)


class Digests:
    """A file's hashes, each computed on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}

    def of(self, kind: str) -> str:
        """The hexadecimal hash by an algorithm (``sha256``)."""
        if kind not in self._known:
            with self.path.open("rb") as file:
                self._known[kind] = hashlib.file_digest(file, kind).hexdigest()
        return self._known[kind]


OXFORD = "https://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_"
MATCONVNET = "https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-"
JUSTIN = "https://web.eecs.umich.edu/~justincj/models/vgg"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/vgg"
KERAS_END = "_weights_tf_dim_ordering_tf_kernels"
TORCH = "https://download.pytorch.org/models/vgg"
MM = "https://download.openmmlab.com/mmclassification/v0/vgg/vgg"
LAYERS = {"A": 11, "B": 13, "D": 16, "E": 19}


def _torchvision(net: str, digits: str, errors: tuple[float, float], size: int = 0) -> Released:
    kind = "_bn" if net.endswith("-bn") else ""
    plain = net.removesuffix("-bn")
    address = f"{TORCH}{LAYERS[plain]}{kind}-{digits[:8]}.pth"
    return Released(f"torchvision-{net}", plain, "torchvision", BSD, address, f"sha256:{digits}", size, errors)


def _timm(net: str, digits: str, errors: tuple[float, float]) -> Released:
    kind = "_bn" if net.endswith("-bn") else ""
    plain = net.removesuffix("-bn")
    address = f"https://huggingface.co/timm/vgg{LAYERS[plain]}{kind}.tv_in1k/resolve/main/model.safetensors"
    return Released(f"timm-{net}", plain, "torchvision", BSD, address, f"sha256:{digits}", 0, errors)


def _mmpretrain(net: str, digits: str, errors: tuple[float, float]) -> Released:
    kind, day = ("_bn", "20210208" if net in ("D-bn", "E-bn") else "20210207") if "-bn" in net else ("", "20210208")
    plain = net.removesuffix("-bn")
    address = f"{MM}{LAYERS[plain]}{kind}_batch256_imagenet_{day}-{digits}.pth"
    return Released(f"mmpretrain-{net}", plain, "torchvision", APACHE, address, f"sha256:{digits}", 0, errors)


def _keras(net: str, digits: str, size: int, full: bool) -> Released:
    layers, end = LAYERS[net], "" if full else "_notop"
    address = f"{KERAS}{layers}/vgg{layers}{KERAS_END}{end}.h5"
    name = f"keras-{net}" + ("" if full else "-conv")
    return Released(name, net, "caffe", CC_BY, address, f"md5:{digits}", size, None, full)


RELEASED: tuple[Released, ...] = (
    Released(
        *("oxford-D", "D", "caffe", CC_BY, f"{OXFORD}16_layers.caffemodel"),
        *("sha256:a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197", 553432081, (28.5, 9.9)),
    ),
    Released(
        *("oxford-E", "E", "caffe", CC_BY, f"{OXFORD}19_layers.caffemodel"),
        *("sha1:239785e7862442717d831f682bb824055e51e9ba", 574671192, (28.7, 9.9)),
    ),
    Released(
        *("matconvnet-D", "D", "rgb-mean", CC_BY, f"{MATCONVNET}16.mat", "md5:f72d927587ca4c97fbd165ec9cb9997f", 0),
        (28.5, 9.9),
    ),
    Released(
        *("matconvnet-E", "E", "rgb-mean", CC_BY, f"{MATCONVNET}19.mat"),
        *("md5:106118b7cf60435e6d8e04f6a6dc3657", 534904783, (28.7, 9.9)),
    ),
    Released("jcjohnson-D", "D", "caffe", CC_BY, f"{JUSTIN}16-00b39a1b.pth", "sha256:00b39a1b"),
    Released("jcjohnson-E", "E", "caffe", CC_BY, f"{JUSTIN}19-d01eb7cb.pth", "sha256:d01eb7cb"),
    _keras("D", "64373286793e3c8b2b4e3219cbf3544b", 553467096, full=True),
    _keras("D", "6d6bbae143d832006294945121d1f1fc", 58889256, full=False),
    _keras("E", "cbe5617147190e668d6c5d5026f83318", 574710816, full=True),
    _keras("E", "253f8cb515780f3b799900260a226db6", 80134624, full=False),
    _torchvision("A", "8a719046", (30.98, 11.372)),
    _torchvision("A-bn", "6002323d", (29.63, 10.19)),
    _torchvision("B", "19584684", (30.072, 10.754)),
    _torchvision("B-bn", "abd245e5", (28.414, 9.626)),
    _torchvision("D", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", (28.408, 9.618), 553433881),
    _torchvision("D-bn", "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a", (26.64, 8.484), 553507836),
    _torchvision("E", "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44", (27.624, 9.124), 574673361),
    _torchvision(
        "E-bn", "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6", (25.782, 8.158), 574769405
    ),
    Released(
        *("torchvision-D-conv", "D", "torchvision-features", CC_BY, f"{TORCH}16_features-amdegroot-88682ab5.pth"),
        *("sha256:88682ab5", 0, None, False),
    ),
    _timm("A", "682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5", (30.95, 11.37)),
    _timm("B-bn", "7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861", (28.44, 9.628)),
    _timm("D", "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8", (28.406, 9.602)),
    _timm("D-bn", "88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129", (26.646, 8.51)),
    _timm("E", "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669", (27.6, 9.122)),
    _timm("E-bn", "f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312", (25.77, 8.152)),
    _mmpretrain("A", "4271cd6c", (31.25, 11.13)),
    _mmpretrain("A-bn", "f244902c", (29.33, 9.84)),
    _mmpretrain("B", "4d1d6080", (29.98, 10.54)),
    _mmpretrain("B-bn", "1a8b7864", (27.88, 9.34)),
    _mmpretrain("D", "db26f1a5", (28.38, 9.51)),
    _mmpretrain("D-bn", "7e55cd29", (26.26, 8.34)),
    _mmpretrain("E", "e6920e4a", (27.59, 9.2)),
    _mmpretrain("E-bn", "da620c4f", (25.32, 7.73)),
)


def all_released() -> tuple[Released, ...]:
    """All public files; the first of a net is the one to start from."""
    return RELEASED


def released_named(name: str) -> Released:
    """The public file of a name (``oxford-D``); raises VerydeepError where there is none."""
    by_name = {entry.name: entry for entry in all_released()}
    if name not in by_name:
        near = nearest_released(name)
        hint = f": did you mean {near}?" if near else "."
        raise VerydeepError(f"there are no released weights {name!r}{hint} `verydeep weights list` lists them.")
    return by_name[name]


def nearest_released(name: str) -> str | None:
    """The released weights nearest to a name, which may be that of a net only (D, vgg16)."""
    others = {f"vgg{layers}": net for layers, net in BY_LAYERS.items()}
    net = others.get(name.lower().replace("-", "").replace("_", ""), name.upper())
    of_net = next((entry.name for entry in all_released() if entry.net == net), None)
    return of_net or nearest(name, (entry.name for entry in all_released()))


def known_file(digests: Digests) -> Released | None:
    """The public file with a file's content, or None; files smaller than any public one are not hashed."""
    size = digests.path.stat().st_size
    if size < min(entry.size for entry in all_released() if entry.size):
        return None
    return next((entry for entry in all_released() if entry.size in (0, size) and entry.holds(digests)), None)


@cache
def ilsvrc_classes() -> tuple[str, ...]:
    """ILSVRC's 1000 classes in the order of sorted WNIDs, as Caffe's synset_words.txt writes them."""
    text = files(__package__).joinpath("ilsvrc.txt").read_text(encoding="utf8")
    return names_in(text)
