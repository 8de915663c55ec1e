"""The released models by the real commands: convert, weights, export, benchmark, cards, the hub; good and bad input."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_pretrained import BAD, random_layers, scores
from torch.nn import functional as F

import weight_files as made
from conftest import Command, make_photos
from verydeep import Classifier, read_image, train
from verydeep import load as load_any
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.checkpoints.exported import open_exported
from verydeep.checkpoints.pretrained import read_weights
from verydeep.core.errors import VerydeepError
from verydeep.evaluation.evaluate import prepare_evaluation


def load(run: str | Path) -> Classifier:
    found = load_any(run)
    assert isinstance(found, Classifier)
    return found


def names_file(path: Path, count: int) -> Path:
    path.write_text("".join(f"thing {number}\n" for number in range(count)))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """A narrow net D of seven classes in Caffe's layout, and a trained run beside its photos."""
    place = tmp_path_factory.mktemp("released")
    made.caffe_v1(place / "d.caffemodel", random_layers())
    names_file(place / "names.txt", 7)
    (place / "run").symlink_to(trained)
    make_photos(place / "photos")
    return place


def test_a_public_file_is_converted_to_a_run(home: Path, tmp_path: Path, command: Command) -> None:
    words = ["--preprocessing", "caffe", "--class-names", home / "names.txt"]
    told = command("convert", home / "d.caffemodel", "runs/d", *words, "--json", cwd=tmp_path)
    assert told.status == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["net"], found["layers"], found["classes"]) == ("D", 16, 7)
    photo = home / "photos" / "red" / "000.png"
    asked = command("predict", "runs/d", photo, "--protocol", "centre@64", "--top", 7, "--json", cwd=tmp_path)
    assert asked.status == 0, asked.stderr
    rows = {row["class"]: row["probability"] for row in json.loads(asked.stdout)[0]["predictions"]}
    net = load(tmp_path / "runs" / "d")
    expected = net.posteriors(photo, "centre@64")[0]
    assert [rows[f"thing {number}"] for number in range(7)] == pytest.approx(expected, abs=1e-5)
    page = (tmp_path / "runs" / "d" / "README.md").read_text()
    assert "# Net D: classification of 7 classes" in page
    assert "The weights are d.caffemodel: see its publisher for the licence." in page
    assert "net = verydeep.load('runs/d')" in page


def test_class_names_from_a_file(home: Path, tmp_path: Path, command: Command) -> None:
    """A byte order mark is not part of a name, U+2028 does not end a line, and equal names are numbered."""
    names = ["tench", "crane", "a\u2028b", "dog", "crane", "caf\u00e9", "maillot"]
    (tmp_path / "names.txt").write_text("\ufeff" + "\r\n".join(names) + "\r\n\r\n", encoding="utf8", newline="")
    words = ["convert", home / "d.caffemodel", "r", "--preprocessing", "caffe", "--class-names", "names.txt"]
    told = command(*words, cwd=tmp_path)
    assert told.status == 0, told.stderr
    names[1], names[4] = "crane (1)", "crane (4)"
    assert load(tmp_path / "r").classes == tuple(names)
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="latin1", errors="replace")
    words[2] = "other"
    assert "looks like latin1" in command(*words, cwd=tmp_path).mistake()


def test_the_scores_of_a_converted_net_are_those_of_plain_pytorch(home: Path, tmp_path: Path, command: Command) -> None:
    words = ["--preprocessing", "caffe", "--class-names", home / "names.txt"]
    assert command("convert", home / "d.caffemodel", tmp_path / "r", *words).status == 0
    pixels = read_image(home / "photos" / "red" / "000.png")
    big = np.asarray(torch.tensor(pixels.copy()).repeat_interleave(2, 0).repeat_interleave(2, 1))[:64, :64]
    shown = torch.tensor(big).permute(2, 0, 1)[None].float() - torch.tensor(made.MEAN)[:, None, None]
    expected = F.softmax(scores("D", random_layers(), shown), dim=1)
    found = load(tmp_path / "r").posteriors(big, "centre@64")
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "h5", "caffemodel"])
def test_a_round_trip_is_bitwise_equal(home: Path, tmp_path: Path, command: Command, ending: str) -> None:
    """To a layout and back: weights and metadata are equal, for any mean."""
    there, back = tmp_path / f"there.{ending}", tmp_path / "back.safetensors"
    assert command("convert", home / "run", there).status == 0
    assert command("convert", there, back).status == 0
    first, last = load_checkpoint(home / "run" / "best.safetensors"), load_checkpoint(back)
    assert first.weights.keys() == last.weights.keys()
    assert all(torch.equal(first.weights[name], last.weights[name]) for name in first.weights)
    for part in ("net", "crop", "width", "classes", "mean", "test_scale", "pooling", "data", "settings"):
        assert getattr(first.metadata, part) == getattr(last.metadata, part)
    assert (tmp_path / f"there.{ending}.card.md").is_file()
    if ending == "caffemodel":
        text = (tmp_path / "there.prototxt").read_text()
        assert 'name: "fc8" type: "InnerProduct" bottom: "fc7"' in text
        assert text.count('type: "Pooling"') == 5
    if ending != "safetensors":
        beside = tmp_path / f"there.{ending}.card.json"
        told = json.loads(beside.read_text())
        for change, says in (({"card": {"x": 1}}, "is corrupted: remove it"), ({"sha256": "0"}, "does not match")):
            beside.write_text(json.dumps({**told, **change}))
            assert says in command("convert", there, tmp_path / "no.safetensors").mistake()
        (tmp_path / f"there.{ending}.card.json").unlink()
        with pytest.raises(VerydeepError, match="pass --preprocessing caffe"):
            read_weights(str(there))


def test_converted_files_have_the_names_and_layouts_of_their_format(
    home: Path, tmp_path: Path, command: Command
) -> None:
    import h5py

    for ending in ("pth", "h5"):
        assert command("convert", home / "run", tmp_path / f"x.{ending}").status == 0
    ours = load_checkpoint(home / "run" / "best.safetensors").weights
    theirs = torch.load(tmp_path / "x.pth", weights_only=True)
    assert torch.equal(theirs["features.3.weight"], ours["conv2_1.weight"])
    assert torch.equal(theirs["classifier.0.weight"], ours["fc6.weight"].flatten(1))
    with h5py.File(tmp_path / "x.h5") as file:
        kernel = np.asarray(file["block1_conv1/block1_conv1/kernel:0"])
        assert kernel == pytest.approx(ours["conv1_1.weight"].numpy()[:, ::-1].transpose(2, 3, 1, 0))
        assert [str(np.bytes_(name), "utf8") for name in file.attrs["layer_names"]][-3:] == [
            "fc1",
            "fc2",
            "predictions",
        ]


def test_weights_without_fc_layers_are_a_start_only(home: Path, tmp_path: Path, command: Command) -> None:
    layers = {name: value for name, value in random_layers().items() if not name.startswith("fc")}
    made.caffe_v2(tmp_path / "conv.caffemodel", layers)
    told = command("convert", tmp_path / "conv.caffemodel", tmp_path / "c.safetensors", "--preprocessing", "caffe")
    assert "convolutions only" in told.stdout
    found = read_weights(str(tmp_path / "c.safetensors"))
    assert found.mean == made.MEAN
    assert torch.equal(found.tensors["conv1_1.weight"], torch.tensor(layers["conv1_1"][0]))
    no = command("convert", tmp_path / "c.safetensors", tmp_path / "c.h5").mistake()
    assert "has no FC layers, which keras files need" in no
    asked = command("predict", tmp_path / "c.safetensors", home / "photos").mistake()
    assert "has no fc6, fc7, fc8 weights, so it cannot classify" in asked


@pytest.mark.parametrize("takes", ["uint8", "float"])
def test_an_exported_net_predicts_as_the_net_does(home: Path, tmp_path: Path, command: Command, takes: str) -> None:
    path = tmp_path / "net.onnx"
    told = command("export", home / "run", "--takes", takes, "--out", path, "--json")
    assert told.status == 0, told.stderr
    assert json.loads(told.stdout)["largest_difference"] < 1e-4
    photos = sorted((home / "photos").rglob("*.png"))[:6]
    for protocol in ("dense@36,48", "centre@36", "both@40"):
        expected = load(home / "run").posteriors(photos, protocol)
        assert load(path).posteriors(photos, protocol) == pytest.approx(expected, abs=1e-4)
    assert open_exported(path).metadata.classes == load_checkpoint(home / "run" / "best.safetensors").metadata.classes
    with pytest.raises(VerydeepError, match="returns only the mean of the scores"):
        load(path).posteriors(photos, "dense@36:softmax-first")


def test_onnx_runtime_runs_an_exported_file_on_images_of_any_size(home: Path, tmp_path: Path, command: Command) -> None:
    import onnxruntime

    assert command("export", home / "run", "--out", tmp_path / "n.onnx").status == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    assert [tuple(one.shape) for one in session.get_inputs()] == [("batch", "height", "width", 3)]
    net = load_checkpoint(home / "run" / "best.safetensors").net()
    mean = torch.tensor(load_checkpoint(home / "run" / "best.safetensors").metadata.mean)[:, None, None]
    rng = np.random.default_rng(0)
    for sides in ((1, 32, 32), (4, 33, 70), (2, 95, 64)):
        photos = rng.integers(0, 256, (*sides, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = F.softmax(net.mean_scores(torch.tensor(photos).permute(0, 3, 1, 2) - mean), dim=1)
        assert session.run(None, {"photos": photos})[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_exported_files_are_evaluated_and_benchmarked_like_runs(home: Path, tmp_path: Path, command: Command) -> None:
    assert command("export", home / "run", "--out", tmp_path / "n.onnx").status == 0
    words = ["dense@36,44", "--workers", 0, "--json"]
    whole = json.loads(command("evaluate", home / "run", *words, "--out", tmp_path / "e").stdout)
    tested = command("evaluate", tmp_path / "n.onnx", *words)
    assert tested.status == 0, tested.stderr
    assert json.loads(tested.stdout)["top1_error"] == whole["top1_error"]
    assert (tmp_path / "evaluations-of-n.onnx").is_dir()
    timed = command("benchmark", home / "run", tmp_path / "n.onnx", "--batch", 2, "--repeats", 3, "--json")
    assert timed.status == 0, timed.stderr
    found = json.loads(timed.stdout)
    assert (found["batch"], found["size"], found["repeats"]) == (2, 32, 3)
    assert [row["name"] for row in found["rows"]] == [str(home / "run"), str(tmp_path / "n.onnx")]
    assert found["rows"][0]["ratio_to_first"] == 1
    assert all(0 < row["least"] <= row["images_per_second"] <= row["most"] for row in found["rows"])
    assert "ratio" in command("benchmark", home / "run", "--batch", 1, "--repeats", 1).stdout


def test_int8_is_calibrated_and_compared_on_other_images(home: Path, tmp_path: Path, command: Command) -> None:
    import onnx

    told = command("export", home / "run", "--to", "onnx-int8", "--out", tmp_path / "n.int8.onnx", "--json")
    assert told.status == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["calibration_photos"], found["compared_photos"]) == (3, 6)  # the dev and the test part
    assert found["top1_agreement"] >= 80
    assert found["top1_error"]["8 bits"] - found["top1_error"]["float"] <= 20
    float_bytes = (home / "run" / "best.safetensors").stat().st_size
    assert found["bytes"] < float_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.int8.onnx", "n.int8.onnx.card.md"]
    stored = onnx.load(tmp_path / "n.int8.onnx").graph.initializer
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in stored if tensor.data_type == onnx.TensorProto.INT8]
    largest = [abs(array.astype(int)).max() for array in weights if array.ndim == 4]
    assert largest == [64] * 10  # net A to fc7; pairs of products of 255 and 64 fit into 16 bits
    photos = sorted((home / "photos").rglob("*.png"))[:6]
    difference = load(tmp_path / "n.int8.onnx").posteriors(photos) - load(home / "run").posteriors(photos)
    assert 0 < np.abs(difference).max() < 0.2


def test_training_starts_from_released_weights_only_if_downloaded(
    tmp_path: Path, command: Command, photos: Path
) -> None:
    words = ["train", "E", "--data", photos, "--crop", 32, "--out", tmp_path / "r"]
    told = command(*words, VERYDEEP_CACHE=str(tmp_path / "cache")).mistake()
    assert "no released weights of net E are on this machine: `verydeep weights fetch oxford-E` downloads" in told
    assert "or --start none" in told
    assert not (tmp_path / "r").exists()
    place = tmp_path / "cache" / "oxford-E-VGG_ILSVRC_19_layers.caffemodel"
    place.parent.mkdir()
    place.write_bytes(b"not what it should be")  # taken by its name in the cache, and then read
    told = command(*words, VERYDEEP_CACHE=str(tmp_path / "cache")).mistake()
    assert "VGG_ILSVRC_19_layers.caffemodel is corrupted, or not of a supported format" in told


def test_a_run_records_the_weights_it_started_from(home: Path, tmp_path: Path, photos: Path) -> None:
    settings: dict[str, Any] = {"crop": 64, "width": 1 / 16, "S": "64", "batch": 8, "workers": 0, "threads": 1}
    start: dict[str, Any] = {"start": str(home / "d.caffemodel"), "preprocessing": "caffe", "max_epochs": 1}
    train("D", out=tmp_path / "one", data=str(photos), **settings, **start)
    train("D", out=tmp_path / "two", data=str(photos), start=str(tmp_path / "one"), max_epochs=1, **settings)
    for run in ("one", "two"):
        metadata = load_checkpoint(tmp_path / run / "best.safetensors").metadata
        assert metadata.origin["started_from"]["file"] == "d.caffemodel"
        assert metadata.mean == made.MEAN
        assert "Trained from d.caffemodel" in (tmp_path / run / "README.md").read_text()


def test_weights_list_and_fetch(tmp_path: Path, command: Command) -> None:
    here = {"VERYDEEP_CACHE": str(tmp_path / "cache")}
    rows = json.loads(command("weights", "list", "--json", **here).stdout)
    assert rows[0]["name"] == "oxford-D"
    assert not any(row["here"] for row in rows)
    text = command("weights", "list", **here).stdout
    assert "oxford-E" in text
    (tmp_path / "wrong").write_bytes(b"something else")
    told = command("weights", "fetch", "oxford-D", "--from", tmp_path / "wrong", **here).mistake()
    assert "is not oxford-D: its sha256 is not the published one; the download was removed" in told
    offline = command("weights", "fetch", "oxford-D", "--from", "http://127.0.0.1:9/x", **here).mistake()
    assert "cannot reach http://127.0.0.1:9/x" in offline
    assert "check the network" in offline
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_page_by_another_author_is_kept(tmp_path: Path, trained: Path, command: Command) -> None:
    assert command("convert", trained, tmp_path / "r").status == 0
    (tmp_path / "r" / "README.md").write_text("my own notes")
    words = ["centre@36", "--data", trained.parent / "photos", "--workers", 0]
    assert command("evaluate", tmp_path / "r", *words).status == 0
    assert (tmp_path / "r" / "README.md").read_text() == "my own notes"


def test_the_hub_mixin_with_a_local_directory(home: Path, tmp_path: Path) -> None:
    from verydeep.deploy.hub import SharedNet

    SharedNet.of(home / "run").save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").is_file()
    found = SharedNet.from_pretrained(str(tmp_path / "saved")).classifier()
    photo = home / "photos" / "red" / "000.png"
    assert found.posteriors(photo) == pytest.approx(load(home / "run").posteriors(photo))
    assert load(f"hub:{tmp_path / 'saved'}").posteriors(photo) == pytest.approx(found.posteriors(photo))


def test_the_hub_without_a_network_is_one_sentence(tmp_path: Path, command: Command) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    told = command("predict", "hub:nobody/nothing", tmp_path, **offline)
    assert told.status == 2
    assert "Traceback" not in told.stderr


def test_classes_of_ilsvrc_are_matched_by_wnid() -> None:
    from verydeep.data.dataset import Dataset, FolderSource, relabel

    labels = np.array([1, 0, 1], dtype=np.int64)
    named = Dataset("x", "val", ("n01440764", "n01443537 gold-fish"), ("a", "b", "c"), labels, FolderSource(Path()))
    found = relabel(named, ("n01443537 goldfish, Carassius auratus", "n01440764 tench, Tinca tinca"), strict=True)
    assert found.labels.tolist() == [0, 1, 0]


MISTAKES = [
    ("convert {home}/d.caffemodel x.safetensors", r"pass --preprocessing caffe"),
    (
        "convert {home}/d.caffemodel x.safetensors --preprocessing caffe",
        r"does not record its 7 class names: .*--class-names",
    ),
    (
        "convert {home}/d.caffemodel x --preprocessing caffe --class-names ilsvrc",
        r"has 7 outputs, but there are 1000 class names",
    ),
    (
        "convert {home}/d.caffemodel x --preprocessing caffe --class-names no",
        r"no file no: --class-names is ilsvrc, or",
    ),
    (
        "convert {home}/run x.tar",
        r"x\.tar does not name a layout: end it in \.safetensors, \.pth, \.h5 or \.caffemodel",
    ),
    ("convert {home}/run {home}/names.txt --to keras", r"names\.txt exists: choose another output"),
    ("convert {home}/run {home}/run", r"exists: choose another output"),
    ("convert nowhere x.h5", r"there is no run or weight file nowhere"),
    ("convert oxford-D x", r"oxford-D is not on this machine: `verydeep weights fetch oxford-D`"),
    ("convert {home}/names.txt x", r"names\.txt is corrupted, or not of a supported format"),
    ("export {home}/run --to tflite", r"--to cannot be 'tflite'; use onnx"),
    ("export {home}/run --out x.txt", r"x\.txt must end in \.onnx"),
    ("export {home}/run --out {home}/names.txt", r"names\.txt already exists: remove it, or use another --out"),
    ("export {home}/run --to onnx-int8 --takes float --out x.onnx", r"int8 models take uint8 images"),
    ("export {home}/run --to onnx-int8 --photos nowhere --out x.onnx", r"nowhere does not exist"),
    ("export {torn} --out x.onnx", r"is already an exported file|corrupted"),
    ("export {home}/run --to pt2", r"cannot export to \.pt2: version 0\.2\.0 dropped \.pt2 files; .* to ONNX instead"),
    (
        "predict {torn} {home}/photos",
        r"torn\.onnx is corrupted or truncated: not a complete ONNX file|it "
        "has no metadata",
    ),
    (
        "predict {torn2} {home}/photos",
        r"cannot open \S+torn\.pt2: version 0\.2\.0 dropped \.pt2 files; .* to ONNX instead",
    ),
    (
        "evaluate {home}/d.caffemodel dense@64",
        r"`verydeep convert \S+/d\.caffemodel runs/NAME --preprocessing caffe --class-names FILE` makes a run",
    ),
    ("benchmark {home}/run --size 16", r"size 16 is below a net's crop: use 32 or more"),
    ("benchmark {home}/run --batch 0", r"batch and photos must be 1 or more"),
    ("weights fetch oxfordD", r"no released weights 'oxfordD': did you mean oxford-D\?"),
    ("weights fetch oxford-D --from nowhere", r"there is no file nowhere: pass a file, or a URL"),
    ("weights fetch oxford-D --from ftp://x/y", r"is not a URL: it must begin with https"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    home: Path, tmp_path: Path, command: Command, words: str, says: str
) -> None:
    places = {"home": str(home), "torn": str(tmp_path / "torn.onnx"), "torn2": str(tmp_path / "torn.pt2")}
    if "{torn}" in words:
        (tmp_path / "torn.onnx").write_bytes(made.tag(1, 0) + b"\x08" + made.chunk(7, b"x" * 900)[:500])
    (tmp_path / "torn.pt2").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "w").mkdir()
    asked = [word.format(**places) for word in words.split()]
    told = command(*asked, cwd=tmp_path / "w", VERYDEEP_CACHE=str(tmp_path / "cache")).mistake()
    assert re.search(says, told), told
    assert os.listdir(tmp_path / "w") == []


@pytest.mark.parametrize(
    "kind",
    [
        *("missing layer", "extra layer", "wrong shape", "NaN", "no tensors", "hostile pickle", "packed zip"),
        *("HDF5 bomb", "Theano's kernels", "packed blocks", "text", "nothing"),
    ],
)
def test_a_bad_weight_file_by_the_real_command(tmp_path: Path, command: Command, kind: str) -> None:
    write, says = BAD[kind]
    write(tmp_path / "x", random_layers())
    words = ["convert", "x", "runs/x", "--preprocessing", "caffe", "--class-names", "ilsvrc"]
    assert re.search(says, command(*words, cwd=tmp_path).mistake())
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_probe_of_a_public_file_uses_its_last_feature_layer(home: Path, tmp_path: Path, command: Command) -> None:
    words = ["--data", home / "photos", "--scales", 64, "--splits", 1, "--workers", 0, "--json"]
    told = command("probe", "--weights", home / "d.caffemodel", "--preprocessing", "caffe", *words, cwd=tmp_path)
    assert told.status == 0, told.stderr
    assert "extracting fc7 descriptors" in told.stderr


def test_a_full_disk_leaves_no_partial_export(home: Path, tmp_path: Path, command: Command) -> None:
    for words in (
        ["convert", home / "run", tmp_path / "x.pth"],
        ["export", home / "run", "--out", tmp_path / "x.onnx"],
    ):
        told = command(*words, file_limit=50_000).mistake()
        assert "cannot write" in told
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_of_an_exported_file_in_python(home: Path, tmp_path: Path, command: Command) -> None:
    assert command("export", home / "run", "--to", "safetensors", "--out", tmp_path / "n.safetensors").status == 0
    found = prepare_evaluation(tmp_path / "n.safetensors", "centre@36", out=tmp_path / "e").run()
    assert found.summary["images"] == 6
    assert "momentum" not in "".join(load_file(tmp_path / "n.safetensors"))
