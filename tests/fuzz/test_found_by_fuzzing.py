"""Files that changed bytes were found in (tests/fuzz/fuzzing.py), which once raised something else than a sentence."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import verydeep
from conftest import Command, make_photos, save_sealed
from verydeep.checkpoints.checkpoint import METADATA_KEY, load_checkpoint, read_header
from verydeep.checkpoints.run_dir import RunLog
from verydeep.core.config import from_json
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.data.annotations import read_boxes, read_xml
from verydeep.data.open import open_data
from verydeep.data.pack_writer import Packing, pack_data
from verydeep.deploy.export import export
from verydeep.evaluation.scores import Scores, load_scores, save_scores

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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"takes": "float"}, "ONNX Runtime cannot run it"),
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
        with pytest.raises(VerydeepError, match="refused by ONNX Runtime"):
            verydeep.predict(tmp_path / "inside" / "x.onnx", trained.parent / "photos" / "red" / "000.png")
