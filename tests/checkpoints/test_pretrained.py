"""Sect. 1: public weight files, from independent writers; wrong preprocessing must change the scores."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import weight_files as made
from conftest import SHARED, http_server
from verydeep.checkpoints import registry
from verydeep.checkpoints.download import cached, fetch, first_of
from verydeep.checkpoints.formats.caffe import looks_like_caffe
from verydeep.checkpoints.formats.tf_slim import read_tensorflow
from verydeep.checkpoints.preprocessing import KNOWN
from verydeep.checkpoints.pretrained import Weights, read_weights
from verydeep.checkpoints.registry import Digests, Released, ilsvrc_classes, known_file, released_named
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Silent
from verydeep.data.image_io import read_image
from verydeep.data.transforms import rescale
from verydeep.models.vgg import Net
from verydeep.training.recipes import RELEASED_NETS

CROP, WIDTH, CLASSES = 64, 1 / 16, 7  # fc6 covers 2x2 cells, so the order of its inputs matters
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_layers(net: str = "D", classes: int = CLASSES) -> made.Layers:
    """Asymmetric random weights whose maps neither vanish nor grow."""
    rng = np.random.default_rng(42)
    layers: made.Layers = {}
    inputs = 3

    def draw(name: str, outputs: int, kernel: int) -> None:
        nonlocal inputs
        std = (2 / (inputs * kernel**2)) ** 0.5
        weight = rng.normal(0, std, (outputs, inputs, kernel, kernel)).astype(np.float32)
        layers[name] = (weight, rng.normal(0, 0.5, outputs).astype(np.float32))
        inputs = outputs

    for stage, number in made.conv_names(net):
        draw(f"conv{stage}_{number}", round(min(512, 32 * 2**stage) * WIDTH), 3)
    for name, outputs, kernel in (
        ("fc6", round(4096 * WIDTH), 2),
        ("fc7", round(4096 * WIDTH), 1),
        ("fc8", classes, 1),
    ):
        draw(name, outputs, kernel)
    return layers


def scores(net: str, layers: made.Layers, x: Tensor) -> Tensor:
    """The net in plain PyTorch, on pixels as the layers take them: (B,K)."""
    before = 1
    for stage, number in made.conv_names(net):
        if stage != before:
            x, before = F.max_pool2d(x, 2), stage
        weight, bias = layers[f"conv{stage}_{number}"]
        x = F.relu(F.conv2d(x, torch.tensor(weight), torch.tensor(bias), padding=1))
    x = F.max_pool2d(x, 2).flatten(1)
    for name in ("fc6", "fc7", "fc8"):
        weight, bias = layers[name]
        x = F.linear(x, torch.tensor(weight.reshape(len(weight), -1)), torch.tensor(bias))
        x = F.relu(x) if name != "fc8" else x
    return x


def photo() -> Tensor:
    return torch.randint(0, 256, (3, 3, CROP, CROP), generator=torch.Generator().manual_seed(1)).float()


def ours(found: Weights) -> Tensor:
    """Scores of what was read, on RGB 0-255 minus its mean."""
    net = Net(found.net, CLASSES, CROP, WIDTH).eval()
    net.load_state_dict(found.tensors)
    with torch.inference_mode():
        return net.mean_scores(photo() - torch.tensor(found.mean)[:, None, None])


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest score."""
    return float((one - other).abs().max() / other.abs().max())


def pixels(kind: str) -> Tensor:
    """The input of files of a kind, computed without our code."""
    if kind == "minus mean":
        return photo() - torch.tensor(made.MEAN)[:, None, None]
    mean, std = (TORCH_MEAN, TORCH_STD) if kind == "torchvision" else ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
    return (photo() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def pth(path: Path, layers: made.Layers, net: str = "D", wrap: Any = lambda found: found, **how: Any) -> None:
    torch.save(wrap(made.state_dict(net, layers, **how)), path)


def next_number(name: str) -> str:
    head, number = name.split(".")
    return f"{head}.{int(number) + 1}"


def mm_norm(name: str) -> str:
    return name.replace("conv", "bn")


OLD_HEAD = ("classifier.1", "classifier.4", "classifier.6")
TIMM_HEAD = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
Writer = Callable[[Path, made.Layers], Any]
MM: dict[str, Any] = {"conv": "features.{}.conv", "spread": (1, 1)}


def prefixed(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in found.items()}


def jcjohnson(path: Path, layers: made.Layers) -> None:
    torch.save(made.state_dict("D", made.bgr(layers), OLD_HEAD), path, _use_new_zipfile_serialization=False)


def timm(path: Path, layers: made.Layers, **how: Any) -> None:
    save_file(made.state_dict("D", layers, TIMM_HEAD, fc_as_conv=True, **how), path, metadata={"format": "pt"})


def parallel(found: dict[str, Tensor]) -> dict[str, Any]:
    """As PyTorch's example of ImageNet wraps a VGG net."""
    return {"epoch": 3, "state_dict": {key.replace("features.", "features.module."): found[key] for key in found}}


# Name: (writer, pixels the file takes, what to say of them, a wrong guess).
FORMATS: dict[str, tuple[Writer, str, str, str]] = {
    "Caffe, version 1": (made.caffe_v1, "minus mean", "caffe", "rgb-mean"),
    "Caffe, version 2": (made.caffe_v2, "minus mean", "caffe", "rgb-mean"),
    "MatConvNet": (made.matconvnet, "minus mean", "recorded", "caffe"),
    "MatConvNet, old": (partial(made.matconvnet, old=True), "minus mean", "recorded", "caffe"),
    "Keras 1": (made.keras_old, "minus mean", "caffe", "rgb-mean"),
    "Keras 3": (made.keras_new, "minus mean", "caffe", "rgb-mean"),
    "Keras 3, unnamed": (partial(made.keras_new, named=False), "minus mean", "caffe", "rgb-mean"),
    ".keras": (made.keras_archive, "minus mean", "caffe", "rgb-mean"),
    "TensorFlow.js": (made.tfjs, "minus mean", "caffe", "rgb-mean"),
    "TensorFlow.js, numbered": (partial(made.tfjs, named=False), "minus mean", "caffe", "rgb-mean"),
    "TF-Slim": (made.slim_first, "minus mean", "rgb-mean", "caffe"),
    "torchvision": (pth, "torchvision", "torchvision", "rgb-mean"),
    "torchvision, old": (partial(pth, fc=OLD_HEAD), "torchvision", "torchvision", "torchvision-features"),
    "torchvision, parallel": (partial(pth, wrap=parallel), "torchvision", "torchvision", "rgb-mean"),
    "torchvision, normalised": (
        *(partial(pth, spread=(3, 1), norm=next_number), "torchvision", "torchvision", "rgb-mean"),
    ),
    "jcjohnson": (jcjohnson, "minus mean", "caffe", "rgb-mean"),
    "timm": (timm, "torchvision", "torchvision", "rgb-mean"),
    "timm, normalised": (partial(timm, spread=(3, 1), norm=next_number), "torchvision", "torchvision", "rgb-mean"),
    "mmpretrain": (
        *(partial(pth, wrap=lambda found: {"meta": {}, "state_dict": prefixed("backbone.", found)}, **MM),),
        *("torchvision", "torchvision", "rgb-mean"),
    ),
    "mmpretrain, normalised": (
        *(partial(pth, wrap=lambda found: prefixed("backbone.", found), norm=mm_norm, **MM),),
        *("torchvision", "torchvision", "rgb-mean"),
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_equal_scores_and_wrong_preprocessing_does_not(tmp_path: Path, kind: str) -> None:
    write, taken, named, wrong = FORMATS[kind]
    layers = random_layers()
    path = tmp_path / "file of any name"
    write(path, layers)
    expected = scores("D", layers, pixels(taken))
    found = read_weights(str(path), named)
    assert found.net == "D"
    assert far(ours(found), expected) < 1e-4
    assert far(ours(read_weights(str(path), wrong)), expected) > 1e-2


@pytest.mark.parametrize(
    "kind", [kind for kind in FORMATS if any(name in kind for name in ("Caffe", "Keras", "torch", "Flow"))]
)
def test_another_order_of_the_inputs_of_fc6_would_change_the_scores(tmp_path: Path, kind: str) -> None:
    """Row, column, channel in place of channel, row, column, and the other way round."""
    write, taken, named, _ = FORMATS[kind]
    layers = random_layers()
    weight, bias = layers["fc6"]
    mixed = weight.transpose(0, 2, 3, 1).reshape(weight.shape)
    write(tmp_path / "x", {**layers, "fc6": (np.ascontiguousarray(mixed), bias)})
    assert far(ours(read_weights(str(tmp_path / "x"), named)), scores("D", layers, pixels(taken))) > 1e-2


@pytest.mark.parametrize("net", ["A", "B", "D", "E"])
@pytest.mark.parametrize("kind", ["torchvision", "torchvision, normalised", "mmpretrain", "Keras 3, unnamed"])
def test_each_published_net_is_recognised(tmp_path: Path, net: str, kind: str) -> None:
    layers = random_layers(net)
    if "Keras" in kind:
        made.keras_new(tmp_path / "x", layers, named=False)
        named, taken = "caffe", "minus mean"
    else:
        named = taken = "torchvision"
        ways = {"torchvision, normalised": {"spread": (3, 1), "norm": next_number}, "mmpretrain": MM}
        pth(tmp_path / "x", layers, net, **ways.get(kind, {}))
    found = read_weights(str(tmp_path / "x"), named)
    assert found.net == net
    assert far(ours(found), scores(net, layers, pixels(taken))) < 1e-4


def test_a_slim_checkpoint_of_several_files_is_named_by_its_prefix(tmp_path: Path) -> None:
    layers = random_layers()
    made.slim_second(tmp_path / "vgg_16.ckpt", layers)
    found = read_weights(str(tmp_path / "vgg_16.ckpt"), "rgb-mean")
    assert far(ours(found), scores("D", layers, pixels("minus mean"))) < 1e-4


@pytest.mark.parametrize("name", ["slim_v1.ckpt", "slim_v2.ckpt.index"])
def test_checkpoints_that_tensorflow_itself_wrote(name: str) -> None:
    """Some layers of TF-Slim's names, written by TensorFlow 2.21's Saver in both forms."""
    place = Path(__file__).parents[1] / "files"
    found, true = read_tensorflow(place / name), np.load(place / "slim_true.npz")
    wanted = [key for key in true.files if key.startswith("vgg_16|conv") or key.startswith("vgg_16|fc")]
    assert len(wanted) == 12
    for key in wanted:
        layer, _, part = key.removeprefix("vgg_16|").replace("|", "/").rpartition("/")
        value = true[key].transpose(3, 2, 0, 1) if part == "weights" else true[key]
        assert np.array_equal(found[layer][{"weights": "weight", "biases": "bias"}[part]].numpy(), value)


def test_the_features_of_torchvision_have_no_fc_layers(tmp_path: Path) -> None:
    """IMAGENET1K_FEATURES: Oxford's convolutions, the classifier NaN; elsewhere NaN is a fault."""
    layers = random_layers()
    nan = {name: tuple(np.full_like(part, np.nan) for part in layers[name]) for name in ("fc6", "fc7", "fc8")}
    pth(tmp_path / "x.pth", {**layers, **nan})  # type: ignore[dict-item]
    found = read_weights(str(tmp_path / "x.pth"), "torchvision-features")
    assert not [name for name in found.tensors if name.startswith("fc")]
    weight = torch.tensor(layers["conv1_1"][0])
    theirs = torch.conv2d(pixels("features"), weight, padding=1)
    mine = torch.conv2d(photo() - torch.tensor(found.mean)[:, None, None], found.tensors["conv1_1.weight"], padding=1)
    assert far(mine, theirs) < 1e-5
    with pytest.raises(VerydeepError, match=r"NaN or infinite values in fc6\.weight"):
        read_weights(str(tmp_path / "x.pth"), "torchvision")


def test_a_net_without_fc_layers_and_one_with_lrn(tmp_path: Path) -> None:
    layers = {name: value for name, value in random_layers("A").items() if not name.startswith("fc")}
    for write in (made.caffe_v1, made.caffe_v2):
        write(tmp_path / "x", layers)
        assert read_weights(str(tmp_path / "x"), "caffe").net == "A"
        write(tmp_path / "x", layers, lrn=True)
        assert read_weights(str(tmp_path / "x"), "caffe").net == "A-LRN"


def test_a_file_that_crashes_scipy_is_refused() -> None:
    """A few changed bytes of a MATLAB file, found by tests/fuzz/fuzzing.py: scipy follows a pointer to nowhere."""
    with pytest.raises(
        VerydeepError,
        match=r"crash\.mat is corrupted: reading it as a MATLAB file crashed, "
        "or took too",
    ):
        read_weights(str(Path(__file__).parents[1] / "files" / "crash.mat"), "rgb-mean")


def test_metadata_of_matconvnet_is_read(tmp_path: Path) -> None:
    made.matconvnet(tmp_path / "x.mat", random_layers())
    found = read_weights(str(tmp_path / "x.mat"))
    assert found.mean == pytest.approx(made.MEAN)
    assert found.classes is not None
    assert found.classes[:2] == ("n00000000 thing n00000000", "n00000001 thing n00000001")
    assert found.origin["format"] == "MatConvNet"


def test_unknown_preprocessing_is_an_error(tmp_path: Path) -> None:
    for write in (made.caffe_v1, made.keras_old, made.slim_first, pth):
        write(tmp_path / "x", random_layers())
        with pytest.raises(VerydeepError, match=r"pass --preprocessing caffe .*, rgb-mean .*, torchvision"):
            read_weights(str(tmp_path / "x"))


# Bad files: what is written, and what is said.
def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.01, 0.3, 0.999])
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "TF-Slim"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    write, _, named, _ = FORMATS[kind]
    write(tmp_path / "x", random_layers())
    cut(tmp_path / "x", share)
    with pytest.raises(
        VerydeepError, match=r"x (is corrupted|was not loaded|would unpack|has no|has layers|is missing)"
    ):
        read_weights(str(tmp_path / "x"), named)


def dictionary(change: Callable[[dict[str, Tensor]], object], step: int = 2) -> Writer:
    def write(path: Path, layers: made.Layers) -> None:
        found = made.state_dict("D", layers, spread=(step, 1), norm=next_number if step == 3 else None)
        change(found)
        torch.save(found, path)

    return write


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("hostile-was-here"),))


def hostile(path: Path, _: made.Layers) -> None:
    path.write_bytes(pickle.dumps({"features.0.weight": Hostile()}, protocol=2))


def packed_zip(path: Path, _: made.Layers) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10**7))


def huge_hdf5(path: Path, _: made.Layers) -> None:
    """A few kilobytes that unpack to 8 GB."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.create_dataset("0", (3, 3, 3, 2**28), dtype="f4", chunks=(3, 3, 3, 1024), compression="gzip", fillvalue=1)


def huge_mat(path: Path, _: made.Layers) -> None:
    import zlib

    squeeze = zlib.compressobj(9)
    head = squeeze.compress(b"x") + squeeze.flush(zlib.Z_FULL_FLUSH)
    part = squeeze.compress(bytes(2**26)) + squeeze.flush(zlib.Z_FULL_FLUSH)  # may follow itself
    packed = head + 50 * part
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)


def drop(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda found: [found.pop(f"{key}.{part}") for part in ("weight", "bias")]


def npz(path: Path, layers: made.Layers) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: weight.astype(np.int8) for name, (weight, _) in layers.items()})  # type: ignore[arg-type]


BAD: dict[str, tuple[Writer, str]] = {
    "missing layer": (dictionary(drop("features.7")), r"has layers of net D, but features\.7 \(conv2_2\) is missing"),
    "missing fc": (dictionary(drop("classifier.3")), r"has layers of net D, but classifier\.3 \(fc7\) is missing"),
    "missing bias": (
        dictionary(lambda found: found.pop("features.5.bias")),
        r"is missing the bias of the layer features\.5",
    ),
    "extra layer": (
        *(dictionary(lambda found: found.update({"aux.0.weight": torch.ones(2)})), r"has the layer aux\.0, which"),
    ),
    "extra part": (
        *(
            dictionary(lambda found: found.update({"features.5.scale": torch.ones(2)})),
            r"has features\.5\.scale, which",
        ),
    ),
    "wrong shape": (
        *(
            dictionary(lambda found: found.update({"features.10.weight": torch.ones(16, 9, 3, 3)})),
            r"features\.10's weight of the shape \(16, 9, 3, 3\), where net D has \(16, 8, 3, 3\)",
        ),
    ),
    "NaN": (*(dictionary(lambda found: found["features.2.weight"].fill_(float("nan"))), r"NaN .* in conv1_2\.weight"),),
    "wrong shape, normalised": (
        *(dictionary(lambda found: found.update({"features.3.weight": torch.ones(9, 4, 3, 3)}), 3), "does not fit"),
    ),
    "a number": (*(dictionary(lambda found: found.update({"classifier.0.weight": torch.tensor(3.0)})), "a scalar in"),),
    "infinite": (dictionary(lambda found: found["classifier.6.bias"].fill_(float("inf"))), r"in fc8\.bias"),
    "grey pixels": (
        *(
            dictionary(lambda found: found.update({"features.0.weight": torch.ones(4, 1, 3, 3)})),
            "not take RGB images",
        ),
    ),
    "no tensors": (lambda path, layers: torch.save({"features.0.weight": 3}, path), "other things than named tensors"),
    "no names": (lambda path, layers: torch.save([torch.ones(3)], path), "other things than named tensors"),
    "another net": (
        *(lambda path, layers: torch.save({"layer1.0.conv1.weight": torch.ones(2)}, path), "has no layers of these"),
    ),
    "hostile pickle": (hostile, "was not loaded: it would run code"),
    "packed zip": (packed_zip, "would unpack to .* bytes, more than the size of the file"),
    "HDF5 bomb": (huge_hdf5, "unpack /layers/conv2d/vars/0 to 28,991,029,248 bytes"),
    "MATLAB bomb": (huge_mat, "would unpack to more than 3,221,225,472 bytes"),
    "MATLAB 7.3": (lambda path, layers: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512)), "save it again with -v7"),
    "Theano's backend": (partial(made.keras_old, backend=b"theano"), "in Theano's order"),
    "Theano's kernels": (partial(made.keras_old, theano=True), "in Theano's order"),
    "NumPy's arrays": (npz, r"is a NumPy \.npz file, which is not supported"),
    "packed blocks": (partial(made.slim_first, packed=1), "its blocks are compressed"),
    "text": (lambda path, layers: path.write_text("hello, this is a text\n" * 50), "not of a supported format"),
    "nothing": (lambda path, layers: path.write_bytes(b""), "not of a supported format"),
}


@pytest.mark.parametrize("kind", BAD)
def test_invalid_files_are_refused_in_one_sentence(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, says = BAD[kind]
    write(tmp_path / "x", random_layers())
    named = {"Theano's backend": "caffe", "Theano's kernels": "caffe", "HDF5 bomb": "caffe"}.get(kind, "torchvision")
    with pytest.raises(VerydeepError, match=says):
        read_weights(str(tmp_path / "x"), named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_texts_and_images_are_not_caffemodels() -> None:
    assert not looks_like_caffe(b"\n" * 100)
    assert not looks_like_caffe(b"\xff\xd8\xff\xe0" + bytes(200))
    assert looks_like_caffe(made.chunk(1, b"VGG") + made.chunk(2, b"x" * 10**4)[:50])


# Public files, known by their hashes.
@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Released]:
    """A narrow net D in Caffe's layout, as if it had been published, in a cache of its own."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    made.caffe_v1(tmp_path / "theirs.caffemodel", random_layers(classes=1000))
    digest = f"sha1:{Digests(tmp_path / 'theirs.caffemodel').of('sha1')}"
    size = (tmp_path / "theirs.caffemodel").stat().st_size
    entry = Released("tiny-D", "D", "caffe", "CC BY 4.0", "http://127.0.0.1:9/theirs.caffemodel", digest, size)
    monkeypatch.setattr(registry, "RELEASED", (entry, *registry.RELEASED))
    return tmp_path / "theirs.caffemodel", entry


def test_public_files_are_recognised_by_content(catalogue: tuple[Path, Released], tmp_path: Path) -> None:
    path, entry = catalogue
    path.rename(tmp_path / "whatever")
    found = read_weights(str(tmp_path / "whatever"))
    assert found.classes == ilsvrc_classes()
    assert found.origin["name"] == "tiny-D"
    assert found.origin["licence"] == "CC BY 4.0"
    data = bytearray((tmp_path / "whatever").read_bytes())
    data[-3] ^= 1
    (tmp_path / "whatever").write_bytes(data)
    assert known_file(Digests(tmp_path / "whatever")) is None
    assert entry.holds(Digests(tmp_path / "whatever")) is False


def test_the_list_of_public_files() -> None:
    names = [one.name for one in registry.RELEASED]
    assert len(set(names)) == len(names)
    assert {one.net for one in registry.RELEASED} == set(RELEASED_NETS)
    lengths = {"sha256": (8, 64), "sha1": (40, 40), "md5": (32, 32)}
    for one in registry.RELEASED:
        kind, _, digits = one.digest.partition(":")
        assert len(digits) in lengths[kind]
        assert set(digits) <= set("0123456789abcdef")
        assert one.pixels in KNOWN
        assert one.address.startswith("https://")
    first = [first_of(net) for net in RELEASED_NETS]
    assert [one.name for one in first if one] == ["torchvision-A", "torchvision-B", "oxford-D", "oxford-E"]
    assert first_of("C") is None


def test_ilsvrcs_classes_are_in_the_order_of_sorted_wnids() -> None:
    classes = ilsvrc_classes()
    wnids = [name.split()[0] for name in classes]
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert classes[0] == "n01440764 tench, Tinca tinca"
    assert classes[281].startswith("n02123045 tabby")
    assert classes[999].startswith("n15075141 toilet tissue")


# Fetching, from a server of our own.
class Server(BaseHTTPRequestHandler):
    content = b""
    ranges = True
    asked: list[str]  # of the test

    def do_GET(self) -> None:
        begin = self.headers.get("Range", "")
        self.asked.append(begin)
        start = int(begin.removeprefix("bytes=").rstrip("-")) if begin and self.ranges else 0
        if self.path == "/missing":
            self.send_error(404)
            return
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = len(body) // 2 if self.path == "/broken" else len(body)
        self.wfile.write(body[:stop])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    kind = type("Handler", (Server,), {"asked": []})
    with http_server(kind) as address:
        yield address, kind


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_resumes(
    catalogue: tuple[Path, Released], server: tuple[str, type[Server]], ranges: bool
) -> None:
    path, entry = catalogue
    address, kind = server
    kind.content, kind.ranges = path.read_bytes(), ranges
    with pytest.raises(VerydeepError, match="the download was interrupted; run the same command to resume it"):
        fetch("tiny-D", f"{address}/broken", Silent())
    part = cached(entry).with_name(cached(entry).name + ".part")
    half = part.stat().st_size
    assert half == len(kind.content) // 2
    found = fetch("tiny-D", f"{address}/whole", Silent())
    assert found == cached(entry)
    assert found.read_bytes() == kind.content
    assert kind.asked == ["", f"bytes={half}-"]
    assert not part.exists()
    assert fetch("tiny-D", None, Silent()) == found  # no address is asked again
    assert read_weights("tiny-D").net == "D"


def test_a_download_with_another_hash_is_removed(
    catalogue: tuple[Path, Released], server: tuple[str, type[Server]]
) -> None:
    path, entry = catalogue
    address, kind = server
    kind.content = path.read_bytes()[:-1] + b"?"
    with pytest.raises(VerydeepError, match="is not tiny-D: its sha1 is not the published one; the download was"):
        fetch("tiny-D", f"{address}/x", Silent())
    kind.content += b"more"
    with pytest.raises(VerydeepError, match=r"has .* bytes, so it is not tiny-D: nothing was downloaded"):
        fetch("tiny-D", f"{address}/x", Silent())
    with pytest.raises(VerydeepError, match="returns 404"):
        fetch("tiny-D", f"{address}/missing", Silent())
    with pytest.raises(VerydeepError, match=r"cannot reach http://127\.0\.0\.1:9/theirs"):
        fetch("tiny-D", None, Silent())
    assert list(cached(entry).parent.iterdir()) == []


@pytest.mark.usefixtures("catalogue")
def test_missing_released_weights_name_the_download_command() -> None:
    with pytest.raises(VerydeepError, match=r"oxford-D is not on this machine: `verydeep weights fetch oxford-D`"):
        read_weights("oxford-D")
    with pytest.raises(VerydeepError, match="did you mean oxford-D"):
        released_named("oxford_D")


# The real thing, where it is.
def pool5(found: Weights, photos: Path, order: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Descriptors and labels of 20 photos of each of ten classes, at Q = 64, with the colours in some order."""
    net = Net(found.net, 1, 224, 1.0).eval()
    net.cut_after("pool5")
    net.load_state_dict(found.tensors)
    mean = torch.tensor(found.mean)[:, None, None]
    rows, labels = [], []
    for label, folder in enumerate(sorted(place for place in photos.iterdir() if place.is_dir())[1::10][:10]):
        for path in sorted(folder.glob("*.jpg"))[:20]:
            shown = torch.from_numpy(rescale(read_image(path), 64).copy()).permute(2, 0, 1)[order].float()
            with torch.inference_mode():
                row = net.activations((shown - mean)[None], "pool5").mean((2, 3))[0].numpy()
            rows.append(row / np.linalg.norm(row))
            labels.append(label)
    return np.array(rows), np.array(labels)


@pytest.mark.slow
def test_bgr_is_handled_for_the_shared_layers_of_ilsvrc() -> None:
    """On ten Caltech classes a probe on pool5 beats the same probe with the channels swapped."""
    path, photos = SHARED / "weights" / "net_d_conv_ilsvrc.safetensors", SHARED / "data" / "caltech101"
    if not path.is_file() or not photos.is_dir():
        pytest.skip("the ILSVRC layers and Caltech-101 are not on this machine")
    from sklearn.svm import LinearSVC

    found = read_weights(str(path))
    assert found.net == "D"
    errors = []
    for order in ([0, 1, 2], [2, 1, 0]):
        rows, labels = pool5(found, photos, order)
        halves = [np.arange(len(rows)) % 2 == half for half in (0, 1)]
        wrong = [LinearSVC(C=10).fit(rows[~half], labels[~half]).predict(rows[half]) != labels[half] for half in halves]
        errors.append(sum(int(found.sum()) for found in wrong))
    assert errors[0] < 0.7 * errors[1], errors  # 16 and 32 of 200 photos when this was written


# Kinds of numbers: what was written in others than floats is no weight without its scale, which no file here records.
def stored_as(kind: Callable[[Tensor], Tensor], layer: str = "features.5.weight") -> Callable[[Path, str], Any]:
    def write(path: Path, form: str) -> None:
        found = made.state_dict("D", random_layers())
        found[layer] = kind(found[layer])
        torch.save(found, path) if form == "pth" else save_file(found, path)

    return write


def fewer_bits(path: Path, form: str) -> None:
    """Keras's int8 kernels, or MATLAB's: whole numbers where the floats were."""
    layers = random_layers()
    small: Any = {name: ((30 * weight).astype(np.int8), bias) for name, (weight, bias) in layers.items()}
    made.keras_new(path, small) if form == "h5" else made.matconvnet(path, small)


def whole(kind: torch.dtype) -> Callable[[Path, str], Any]:
    return stored_as(lambda found: (30 * found).to(kind))


KINDS = {torch.int8: "int8", torch.uint8: "uint8", torch.int32: "int32", torch.bool: "bool"}
NO_WEIGHTS = {
    **{f"{name} in pth": (whole(kind), "pth", rf"5\.weight as {name}: ") for kind, name in KINDS.items()},
    **{f"{name}, safetensors": (whole(kind), "safetensors", rf"5\.weight as {name}: ") for kind, name in KINDS.items()},
    "float8": (stored_as(lambda found: found.to(torch.float8_e4m3fn)), "safetensors", r"as float8_e4m3fn: "),
    "complex": (stored_as(lambda found: found.to(torch.complex64)), "pth", r"as complex64: "),
    "a bias in int64": (stored_as(lambda found: found.long(), "classifier.6.bias"), "safetensors", r"6\.bias as int64"),
    "sparse": (stored_as(lambda found: found.to_sparse()), "pth", r"features\.5\.weight as a sparse tensor\."),
    "without values": (stored_as(lambda found: found.to("meta")), "pth", r"features\.5\.weight without its values\."),
    "no outputs": (stored_as(lambda found: found[:0]), "pth", r"features\.5's weight of the shape \(0, 4, 3, 3\)"),
    "half floats too large": (
        stored_as(lambda found: found.double() * 1e300),
        "pth",
        r"NaN or infinite values in conv2_1",
    ),
    "Keras": (fewer_bits, "h5", r"stores .*vars/0 as int8: weights must be float16"),
    "MatConvNet": (fewer_bits, "mat", r"stores conv1_1 as int8: weights must be single or double"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_unsupported_dtypes_are_refused(tmp_path: Path, kind: str) -> None:
    write, form, says = NO_WEIGHTS[kind]
    write(tmp_path / "x", form)
    with pytest.raises(VerydeepError, match=says):
        read_weights(str(tmp_path / "x"), "torchvision")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_all_float_dtypes_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    stored_as(lambda found: found.to(kind))(tmp_path / "x", "safetensors")
    found = read_weights(str(tmp_path / "x"), "torchvision").tensors["conv2_1.weight"]
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(random_layers()["conv2_1"][0], rel=1e-2)


def test_whole_doubles_of_matlab_are_weights(tmp_path: Path) -> None:
    """MATLAB stores them in fewer bytes: biases of 0 are doubles all the same."""
    layers = {name: (weight, np.zeros_like(bias)) for name, (weight, bias) in random_layers().items()}
    made.matconvnet(tmp_path / "x.mat", layers)
    assert not read_weights(str(tmp_path / "x.mat")).tensors["conv1_1.bias"].any()
