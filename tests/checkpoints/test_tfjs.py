"""TensorFlow.js's layers models: every way of storing weights, and manifests that are broken or hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pretrained import random_layers

import weight_files as made
from conftest import run_command
from verydeep.checkpoints.formats.tfjs import read_tfjs
from verydeep.checkpoints.pretrained import read_weights
from verydeep.core.errors import VerydeepError
from verydeep.models.vgg import Net

TRUE = Path(__file__).parents[1] / "files" / "tfjs"
# The answer of TensorFlow.js 4.22 to this model, a narrow net A that it wrote, here with 8 bits a weight.
POSTERIORS = (3.949509482481517e-05, 0.9999576807022095, 2.8404970180417877e-06)


def test_the_posteriors_are_those_of_tensorflow_js() -> None:
    found = read_weights(str(TRUE / "model.json"), "caffe")
    net = Net(found.net, len(POSTERIORS), found.crop, found.width).eval()
    net.load_state_dict(found.tensors)
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.float32)
    pixels = torch.tensor(rgb).permute(2, 0, 1)[None] - torch.tensor(found.mean)[:, None, None]
    with torch.inference_mode():
        posteriors = torch.softmax(net.mean_scores(pixels), 1)[0]
    assert posteriors.tolist() == pytest.approx(POSTERIORS, rel=1e-4)


@pytest.mark.parametrize("store", ["float32", "float16", "uint8", "uint16"])
def test_quantised_weights_are_within_half_a_step(tmp_path: Path, store: str) -> None:
    """Of the file's own scale: float16 rounds by 2**-11 of a value, n bits by half of the range over 2**n - 1."""
    layers = random_layers()
    made.tfjs(tmp_path / "model.json", layers, store)
    found = read_weights(str(tmp_path / "model.json"), "caffe")
    assert found.origin["format"] == "TensorFlow.js"
    for name, (weight, bias) in layers.items():
        for part, true in (("weight", weight), ("bias", bias)):
            value = found.tensors[f"{name}.{part}"].numpy().reshape(true.shape)
            if store == "float32":
                assert np.array_equal(value, true)
            elif store == "float16":
                assert np.all(np.abs(value - true) <= np.abs(true) * 2.0**-11 + 2.0**-25)
            else:
                step = (true.max() - true.min()) / np.iinfo(store).max
                assert np.abs(value - true).max() <= 0.5 * step + 1e-6


@pytest.mark.parametrize("shard", [1000, 4096, 10**9])
@pytest.mark.parametrize("group", [1, 1000])
def test_groups_and_shards_do_not_matter(tmp_path: Path, shard: int, group: int) -> None:
    layers = {name: value for name, value in random_layers("A").items() if name.startswith("conv")}
    made.tfjs(tmp_path / "m.json", layers, group=group, shard=shard)
    found = read_tfjs(tmp_path / "m.json")
    assert np.array_equal(found["block5_conv2"]["weight"].numpy(), layers["conv5_2"][0])


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def entry(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["weightsManifest"][0]["weights"][0].update(values)


def first_path(name: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["weightsManifest"][0]["paths"].__setitem__(0, name)


QUANTISED = {"dtype": "uint8", "scale": 1.0, "min": 0.0}
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no manifest": (lambda content: content.pop("weightsManifest"), "JSON of another kind than a TensorFlow.js layers"),
    "a manifest of texts": (lambda content: content.update(weightsManifest=["x"]), "JSON of another kind"),
    "a graph model": (lambda content: content.update(format="graph-model"), "graph model of TensorFlow.js, which is"),
    "a graph, old": (
        lambda content: (content.pop("format"), content.update(modelTopology={"node": []})),
        "graph model of TensorFlow.js, which is",
    ),
    "another folder": (first_path("../x.bin"), "names weights outside its folder, '../x.bin', and is not loaded"),
    "an absolute path": (first_path("/etc/passwd"), "names weights outside its folder"),
    "a path of Windows": (first_path("..\\x.bin"), "names weights outside its folder"),
    "a number for a path": (first_path(7), "names weights outside its folder"),
    "an address": (first_path("https://host/x.bin"), "is incomplete: its weights .* are missing"),
    "a folder": (first_path("."), "is incomplete: its weights .* are missing"),
    "too many values": (entry(shape=[3, 3, 3, 2**40]), "have .* bytes, and 118,747,256,433,152 in the manifest"),
    "a long name": (first_path("x" * 5000), "is incomplete: its weights .* are missing"),
    "a side of 4,000 digits": (entry(shape=[10**4000, 10**4000]), "has an invalid weight"),
    "a layer's number of 5,000 digits": (
        entry(name=f"vgg16/conv_{'9' * 5000}/kernel"),
        "has no layers of these nets|conv_9",
    ),
    "one shard many times": (
        lambda content: [
            group.update(paths=["./" + path for path in group["paths"]] * 9) for group in content["weightsManifest"]
        ],
        "names a file of weights twice",
    ),
    "a negative side": (entry(shape=[-3, 3]), "has an invalid weight"),
    "half a side": (entry(shape=[1.5]), "has an invalid weight"),
    "many sides": (entry(shape=[1] * 40), "stores .*block1_conv1/kernel as float32 of the shape"),
    "no scale": (entry(quantization={"dtype": "uint8"}), "has an invalid weight .*'scale'"),
    "integers": (entry(dtype="int32"), "stores .*block1_conv1/kernel as int32"),
    "texts": (entry(dtype="string"), "stores .*block1_conv1/kernel as string"),
    "an unknown type": (entry(quantization={"dtype": "int4"}), "stores .*block1_conv1/kernel as int4"),
    "a scale beyond all": (lambda content: None, "NaN or infinite values in conv1_1.weight"),
    "another shape": (entry(shape=[27, 4]), r"has block1_conv1 of the shape .*does not take RGB images"),
    "twice": (entry(name="vgg16/block1_conv1/bias"), "has the weight vgg16/block1_conv1/bias twice"),
    "another layer": (
        entry(name="vgg16/block9_conv1/kernel"),
        "is missing the weight of the layer block1_conv1|block9",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_manifests_are_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.json"
    made.tfjs(path, random_layers(), "uint8" if "scale" in kind else "float32", group=100, shard=10**9)
    change, sentence = BROKEN[kind]
    changed(path, change)
    if kind == "a scale beyond all":
        changed(path, entry(quantization={"dtype": "uint8", "scale": 1e300, "min": -1e308}))
    with pytest.raises(VerydeepError, match=sentence):
        read_weights(str(path), "caffe")


def test_shards_of_another_size_are_refused(tmp_path: Path) -> None:
    made.tfjs(tmp_path / "model.json", random_layers())
    shard = sorted(tmp_path.glob("*.bin"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(VerydeepError, match=r"corrupted or incomplete: the weights model\.json-group1-shard1of1\.bin"):
        read_weights(str(tmp_path / "model.json"), "caffe")


def test_the_command_makes_a_run_of_it(tmp_path: Path) -> None:
    made.tfjs(tmp_path / "model.json", random_layers(), "uint8")
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(len(random_layers()["fc8"][1]))))
    converted = run_command(
        *("convert", tmp_path / "model.json", tmp_path / "run", "--preprocessing", "caffe", "--class-names", names)
    )
    assert converted.status == 0, converted.stderr
    refused = run_command("convert", tmp_path / "model.json", tmp_path / "other", "--class-names", names)
    assert "pass --preprocessing" in refused.mistake()
    sorted(tmp_path.glob("*.bin"))[-1].unlink()
    broken = run_command(
        *("convert", tmp_path / "model.json", tmp_path / "other", "--preprocessing", "caffe", "--class-names", names)
    )
    assert "is incomplete: its weights" in broken.mistake()
