"""Files that once raised something else than a sentence, or took all memory or time, or read other files.

Found by changed bytes (tests/fuzz/fuzzing.py), and by reading the parsers for what such changes do not reach.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import torch

import verydeep
from conftest import Command, make_photos, save_sealed
from verydeep.checkpoints.checkpoint import METADATA_KEY, load_checkpoint, read_header
from verydeep.checkpoints.formats.protobuf import field_bytes, number_bytes
from verydeep.checkpoints.formats.tf_slim import MAGIC
from verydeep.checkpoints.pretrained import read_weights
from verydeep.checkpoints.run_dir import RunLog
from verydeep.core.config import from_json
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.data.annotations import read_boxes, read_xml
from verydeep.data.open import open_data
from verydeep.data.pack_writer import Packing, pack_data
from verydeep.deploy.export import export
from verydeep.evaluation.scores import Scores, load_scores, save_scores
from verydeep.models.architectures import check_net_name
from weight_files import block, shape_proto, table

HALF = "\\ud800"  # of a pair of surrogates, as JSON can tell it and no file can hold it
DEEP = "[" * 100_000


def test_text_that_no_file_can_hold_is_refused_where_json_tells_it(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, which Python gives as other surrogates, are well."""
    lines = "".join(f'{{"path": "{number}.jpg", "label": "{number % 2}"}}\n' for number in range(20))
    (tmp_path / "x.jsonl").write_text(lines.replace('"3.jpg"', '"\\udcff.jpg"'))
    open_data(DataSettings(str(tmp_path / "x.jsonl"))).fingerprint()
    (tmp_path / "x.jsonl").write_text(lines.replace('"3.jpg"', f'"{HALF}"'))
    with pytest.raises(VerydeepError, match=r"x\.jsonl, line 4: the image is"):
        open_data(DataSettings(str(tmp_path / "x.jsonl")))
    coco = {"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "HALF"}]}
    told = json.dumps({**coco, "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]})
    (tmp_path / "x.json").write_text(told.replace("HALF", HALF))
    with pytest.raises(VerydeepError, match="is not COCO JSON"):
        read_boxes(tmp_path / "x.json")
    with pytest.raises(VerydeepError, match="start must be text, not"):
        from_json(TrainSettings, {"start": "\ud800"})


def test_lists_of_ilsvrc_that_are_no_lists(tmp_path: Path, command: Command) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "v_1.jpg").touch()
    name = f"imagenet:{tmp_path}"
    truth, solution = (tmp_path / name for name in ("ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"))
    told = {truth: "each line must be an ILSVRC2012_ID", solution: "each line must be an image, a WNID and boxes"}
    for path, contents in ((truth, (b"nan", b"\xff")), (solution, (b"v_1\n", b"v_1,\n", b"\xff,1\n"))):
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(VerydeepError, match=told[path]):
                open_data(DataSettings(name))
        assert f"{path} is corrupted: {told[path]}." in command("data", "check", name).mistake()


def test_an_annotation_longer_than_any(tmp_path: Path) -> None:
    """Elements within elements without end, which took seconds to read and to forget."""
    (tmp_path / "x.xml").write_text("<a>" * 400_000)
    with pytest.raises(VerydeepError, match=r"x\.xml is not a PASCAL VOC XML annotation.*more than 1,048,576 bytes"):
        read_xml(tmp_path / "x.xml")


def tar(path: Path, kind: bytes, size: bytes) -> None:
    """One header, whose length of 12 bytes is as wished, with a checksum that fits."""
    head = bytearray(tarfile.TarInfo("a/1.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136], head[156:157], head[148:156] = size, kind, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    path.write_bytes(bytes(head) + bytes(2048))


@pytest.mark.parametrize(
    ("kind", "size", "told"),
    [
        (b"L", b"\x80" + b"\0" * 6 + b"\x10" + b"\0" * 4, "a header has an invalid length"),  # a name of 64 GB
        (b"x", b"\x80" + b"\0" * 6 + b"\x10" + b"\0" * 4, "a header has an invalid length"),
        (tarfile.REGTYPE, b"\xff" * 10 + b"\0\0", "has a negative length"),
    ],
)
def test_a_tar_file_with_a_length_that_none_has(
    tmp_path: Path, command: Command, kind: bytes, size: bytes, told: str
) -> None:
    tar(tmp_path / "x.tar", kind, size)
    with pytest.raises(VerydeepError, match=rf"x\.tar is a corrupted tar file \(.*{told}"):
        open_data(DataSettings(f"webdataset:{tmp_path}"))
    if kind != b"L":
        assert told in command("data", "check", f"webdataset:{tmp_path}").mistake()


def test_a_pack_whose_index_leads_nowhere(tmp_path: Path, command: Command) -> None:
    pack = tmp_path / "pack"
    pack_data(DataSettings(str(make_photos(tmp_path / "photos", 4))), pack, Packing(32))
    index = np.load(pack / "train.index.npy")
    for column, value, told in (("shard", 7, "is in none of its files"), ("height", 5, "is corrupt")):
        changed = index.copy()
        changed[0][column] = value
        np.save(pack / "train.index.npy", changed)
        shown = command("data", "check", pack)
        assert (shown.status, shown.stderr) == (2, "")
        assert f"image blue/002.png of the packed dataset {pack} {told}" in shown.stdout
    changed = index.copy()
    changed[0]["label"] = 99
    np.save(pack / "train.index.npy", changed)
    with pytest.raises(VerydeepError, match=r"is a corrupted packed dataset \(train has an unknown class or form"):
        open_data(DataSettings(str(pack)))
    header = (pack / "train.index.npy").read_bytes().replace(b"}", b"(", 1)
    (pack / "train.index.npy").write_bytes(header)
    with pytest.raises(VerydeepError, match="is a corrupted packed dataset"):
        open_data(DataSettings(str(pack)))


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def test_a_scores_file_of_names_without_number(tmp_path: Path) -> None:
    """A hundred thousand million empty texts, which take no bytes in the file and all memory as Python's."""
    save_scores(tmp_path / "scores.npz", some_scores())
    with np.load(tmp_path / "scores.npz") as stored:
        members = {name: npy(stored[name]) for name in stored.files}
    for name in ("ids", "classes"):
        many = npy(np.array([b""] * 5)).replace(b"|S1", b"|S0").replace(b"(5,), }" + b" " * 10, b"(99999999999,), }")
        assert b"99999999999" in many
        with zipfile.ZipFile(tmp_path / "scores.npz", "w") as archive:
            for member, data in {**members, name: many}.items():
                archive.writestr(f"{member}.npy", data)
        with pytest.raises(VerydeepError, match="is not a scores file, or corrupted"):
            load_scores(tmp_path / "scores.npz")


def some_scores() -> Scores:
    return Scores(
        ids=tuple("abcde"),
        labels=np.zeros(5, np.int64),
        subjects=np.arange(5),
        classes=("x", "y"),
        posteriors=np.full((5, 2), 0.5, np.float32),
        set_name="x",
        data="x",
        run="x",
        protocol="x",
        checkpoint="x",
    )


@pytest.mark.parametrize("broken", [b"no array", npy([0, 1]).replace(b"}", b"("), npy(["a"]).replace(b"<U1", b"<U9")])
def test_a_scores_file_with_a_member_that_is_no_array(tmp_path: Path, broken: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "scores.npz", "w") as archive:
        for name in ("set", "data", "run", "protocol", "checkpoint"):
            archive.writestr(f"{name}.npy", npy("x"))
        for name in ("ids", "classes", "labels", "subjects", "posteriors"):
            archive.writestr(f"{name}.npy", broken)
    with pytest.raises(VerydeepError, match=r"is not a scores file, or corrupted|of inconsistent shapes"):
        load_scores(tmp_path / "scores.npz")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "crop",
            2**40,
            "does not contain the net A that its metadata names: fc6.weight differs",
        ),  # terabytes, were it built first
        ("net", {}, "has metadata that this version cannot read"),
        ("net", "\x1b]0;Q\x07", "has metadata that this version cannot read"),
        ("classes", ["\ud800", "b", "c"], "has metadata that this version cannot read"),
        ("width", 1e308, "up to 16"),
    ],
)
def test_a_checkpoint_whose_card_tells_what_no_net_is(
    trained: Path, tmp_path: Path, name: str, value: Any, told: str
) -> None:
    path = trained / "best.safetensors"
    metadata = {**json.loads(read_header(path)[0][METADATA_KEY]), name: value}
    save_sealed(load_checkpoint(path).weights, tmp_path / "x.safetensors", {METADATA_KEY: json.dumps(metadata)})
    with pytest.raises(VerydeepError, match=told):
        load_checkpoint(tmp_path / "x.safetensors").net()


def test_json_within_json_without_end(tmp_path: Path) -> None:
    save_sealed({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {METADATA_KEY: DEEP})
    with pytest.raises(VerydeepError, match="has metadata that this version cannot read"):
        load_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "log.jsonl").write_text(f'{{"epoch": 1}}\n{DEEP}\n')
    RunLog(tmp_path, keep_epochs=1)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"epoch": 1}


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"takes": "float"}, "is corrupted: (ONNX Runtime cannot run it|its output is)"),
        ({"takes": "both"}, "it has no metadata"),
        ({"classes": ["a", "b"]}, r"its output is \(\d, 3\), but its metadata says 2 classes"),
    ],
)
def test_an_onnx_file_that_is_not_what_it_tells(
    trained: Path, tmp_path: Path, command: Command, change: dict[str, Any], told: str
) -> None:
    export(trained, "onnx", tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    for entry in model.metadata_props:
        if entry.key in change:
            entry.value = change[entry.key]
        elif entry.key == METADATA_KEY:
            entry.value = json.dumps({**json.loads(entry.value), **{k: v for k, v in change.items() if k != "takes"}})
    onnx.save(model, tmp_path / "x.onnx")
    photo = trained.parent / "photos" / "red" / "000.png"
    with pytest.raises(VerydeepError, match=told):
        verydeep.predict(tmp_path / "x.onnx", photo)
    if change.get("takes") != "both":
        assert re.search(told, command("predict", tmp_path / "x.onnx", photo).mistake())


@pytest.mark.usefixtures("runtime")
def test_an_onnx_file_reads_nothing_outside_its_folder(trained: Path, tmp_path: Path) -> None:
    """ONNX lets weights lie in other files; `verydeep export` never does that, and a stranger's file may name any."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_bytes(bytes(10**6))
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "secret")
    export(trained, "onnx", tmp_path / "x.onnx")
    for place in ("../secret", str(tmp_path / "secret"), "link"):
        model = onnx.load(tmp_path / "x.onnx")
        weight = next(one for one in model.graph.initializer if one.name == "conv1_1.weight")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", place), ("offset", "0"), ("length", str(len(weight.raw_data)))):
            weight.external_data.add(key=key, value=value)
        weight.ClearField("raw_data")
        (tmp_path / "inside" / "x.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(VerydeepError, match="refused by its runtime"):
            verydeep.predict(tmp_path / "inside" / "x.onnx", trained.parent / "photos" / "red" / "000.png")


def yolo(folder: Path, names: str) -> Path:
    (folder / "data.yaml").write_text(names)
    (folder / "a.txt").write_text("0 .5 .5 .2 .3\n")
    return folder


def test_lists_of_names_that_are_none(tmp_path: Path) -> None:
    """An infinite index, which is no integer; a list that PyYAML would read for minutes."""
    with pytest.raises(VerydeepError, match=r"data\.yaml does not name the classes"):
        read_boxes(yolo(tmp_path, "names: {.inf: a}"))
    with pytest.raises(VerydeepError, match=r"data\.yaml: it has more than 262,144 bytes"):
        read_boxes(yolo(tmp_path, f"names: [{'a,' * 150_000}]"))


def test_a_table_of_via_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('filename,region_shape_attributes\na.jpg,"{""name"": ""rect"", ""x"": 1}"\n')
    with pytest.raises(VerydeepError, match=r"contains no boxes; .* 1 without a class"):
        read_boxes(tmp_path / "x.csv")


def test_weights_with_more_sides_than_any(tmp_path: Path) -> None:
    """Their product would have millions of digits."""
    many = field_bytes(1, number_bytes(2**62) * 200_000)
    blob = field_bytes(7, field_bytes(7, many) + field_bytes(5, bytes(4)))
    (tmp_path / "x.caffemodel").write_bytes(field_bytes(100, field_bytes(1, b"conv1_1") + blob))
    with pytest.raises(VerydeepError, match=r"not a complete \.caffemodel \(a shape of 200000 dimensions"):
        read_weights(str(tmp_path / "x.caffemodel"), "caffe")
    table(tmp_path / "x.index", [(b"", bundle()), (b"a", bundle(shape=(2**40,) * 9))])
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(VerydeepError, match="a shape of 9 dimensions"):
        read_weights(str(tmp_path / "x"), "caffe")


def bundle(start: int = 0, size: int = 0, shape: tuple[int, ...] = ()) -> bytes:
    """The entry of a tensor in TensorFlow's index."""
    numbers = b"".join(number_bytes(key << 3) + number_bytes(value) for key, value in ((1, 1), (4, start), (5, size)))
    return numbers + field_bytes(2, shape_proto(shape))


def test_checkpoints_of_tensorflow_whose_parts_overlap(tmp_path: Path) -> None:
    """A tensor, a block or a name that a small file repeats without number, each a copy in memory."""
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(400))
    tensors = [(b"layer/%03d" % number, bundle(0, 400, (100,))) for number in range(9)]
    table(tmp_path / "x.index", [(b"", bundle()), *tensors])
    with pytest.raises(VerydeepError, match="its tensors overlap"):
        read_weights(str(tmp_path / "x"), "caffe")
    table(tmp_path / "x.index", [(b"", bundle()), (b"n" * 5000, bundle())])
    with pytest.raises(VerydeepError, match="a name of more than 4,096 bytes"):
        read_weights(str(tmp_path / "x"), "caffe")
    rows = block([(b"%d" % number, b"") for number in range(100)])
    index = block([(b"%03d" % number, number_bytes(0) + number_bytes(len(rows))) for number in range(100)])
    places = b"".join(map(number_bytes, (0, 0, len(rows) + 5, len(index))))
    footer = places.ljust(40, b"\0") + MAGIC
    (tmp_path / "x.index").write_bytes(rows + bytes(5) + index + bytes(5) + footer)
    with pytest.raises(VerydeepError, match="its blocks overlap"):
        read_weights(str(tmp_path / "x"), "caffe")


def keras(path: Path, add: Callable[[h5py.Group], object], names: int = 1) -> Path:
    """A file of one layer, whose weight ``k`` is added by a function."""
    with h5py.File(path, "w") as file:
        group = file.create_group("fc1")
        file.attrs["layer_names"], group.attrs["weight_names"] = [b"fc1"], [b"k"] * names
        add(group)
    return path


def test_a_keras_file_reads_nothing_but_itself(tmp_path: Path, command: Command) -> None:
    """HDF5 lets tensors lie in other files, of any kind, and a downloaded file may name any of this machine."""
    (tmp_path / "secret").write_bytes(bytes(16))
    keras(tmp_path / "other.h5", lambda group: group.create_dataset("k", data=np.ones((2, 2), np.float32)))
    layout = h5py.VirtualLayout((2, 2), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "fc1/k", (2, 2))
    ways: dict[str, Callable[[h5py.Group], object]] = {
        "/fc1/k": lambda group: group.create_dataset("k", (2, 2), "<f4", external=[(str(tmp_path / "secret"), 0, 16)]),
        "k": lambda group: group.__setitem__("k", h5py.ExternalLink(str(tmp_path / "other.h5"), "/fc1/k")),
        "/fc1/k ": lambda group: group.create_virtual_dataset("k", layout),
        "k ": lambda group: group.__setitem__("k", h5py.SoftLink("/fc1")),
    }
    for named, add in ways.items():
        keras(tmp_path / "x.h5", add)
        with pytest.raises(VerydeepError, match=rf"x\.h5 refers to another place for {named.strip()}, which Keras"):
            read_weights(str(tmp_path / "x.h5"), "caffe")
    assert "refers to another place" in command("convert", tmp_path / "x.h5", tmp_path / "run").mistake()


def test_tensors_that_share_their_values_take_no_more_memory(tmp_path: Path) -> None:
    keras(tmp_path / "x.h5", lambda group: group.create_dataset("k", data=np.ones((99, 99), np.float32)), names=99)
    with pytest.raises(VerydeepError, match=r"would unpack /fc1/k to 39,204 bytes, and is not loaded"):
        read_weights(str(tmp_path / "x.h5"), "caffe")
    torch.save({"features.0.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.pth")
    with pytest.raises(VerydeepError, match="has tensors of more bytes than the file: they overlap"):
        read_weights(str(tmp_path / "x.pth"), "caffe")


def test_a_torch_file_whose_tensors_are_only_numbered(tmp_path: Path) -> None:
    """As the state of an optimizer is."""
    torch.save({0: torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(VerydeepError, match="contains other things than named tensors"):
        read_weights(str(tmp_path / "x.pth"), "caffe")


def test_a_pack_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_data(DataSettings(str(make_photos(tmp_path / "photos", 4))), pack, Packing(32))
    card = pack / "pack.json"
    told = json.loads(card.read_text())
    shard = told["sets"]["train"]["shards"][0]
    (pack / shard["file"]).rename(tmp_path / "outside")
    for place in ("../outside", str(tmp_path / "outside")):
        shard["file"] = place
        card.write_text(json.dumps(told))
        with pytest.raises(VerydeepError, match="is not in its folder"):
            open_data(DataSettings(str(pack)))


def test_a_net_named_by_a_number_of_5000_digits() -> None:
    with pytest.raises(VerydeepError, match="there is no net 'vgg999"):
        check_net_name(f"vgg{'9' * 5000}")
