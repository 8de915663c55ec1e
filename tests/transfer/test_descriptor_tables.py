"""Descriptors of other programs, in every format, and those that `verydeep features` writes for them."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_transfer import HERE, made_up

from conftest import Command, make_photos, make_voc
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import SvmSettings
from verydeep.transfer.evaluate import Transfer, learn_svms
from verydeep.transfer.features_file import (
    ImageList,
    export_features,
    images_of,
    is_external,
    load_features,
    save_features,
)

PARQUET = pytest.param(".parquet", marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="no pyarrow"))
FAST = SvmSettings(splits=1, C=(1.0,))


def svms(*files: Path, data: str | None = None, protocol: str = "own") -> Transfer:
    return learn_svms(protocol, files, svm=FAST, machine=HERE, data=data)


def write(path: Path, ids: list[str], rows: np.ndarray[Any, Any], labels: list[str] | None = None) -> Path:
    """A file as another program would store it."""
    named: dict[str, Any] = {} if labels is None else {"labels": np.array(labels)}
    if path.suffix == ".npz":
        np.savez(path, ids=np.array(ids), features=rows, **named)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"filename": ids, "embedding": list(rows), **({} if labels is None else {"label": labels})}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        if path.suffix == ".npy":
            np.save(path, rows)
        else:
            save_file({"embeddings": torch.from_numpy(rows).to(torch.float16)}, path)
        lines = ids if labels is None else map(",".join, zip(ids, labels, strict=True))
        path.with_suffix(".txt" if labels is None else ".csv").write_text(
            "\n".join([*([] if labels is None else ["id,class"]), *lines])
        )
    return path


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", PARQUET])
@pytest.mark.parametrize("labelled", [True, False])
def test_every_format_gives_what_a_features_file_gives(suffix: str, labelled: bool, tmp_path: Path) -> None:
    """In another order, and with labels of their own or those of our file beside it."""
    features = made_up(key="ours")
    save_features(tmp_path / "ours.safetensors", features)
    rows = features.scales[256].astype(np.float16)
    order = np.random.default_rng(0).permutation(len(rows))
    labels = [features.classes[features.labels[index]] for index in order] if labelled else None
    theirs = write(tmp_path / f"dino{suffix}", [features.ids[index] for index in order], rows[order], labels)
    if labelled:
        found = svms(theirs)
        save_features(tmp_path / "rounded.safetensors", replace(features, scales={256: rows.astype(np.float32)}))
        assert found.first.classes == features.classes
        assert found.splits[0].figure == svms(tmp_path / "rounded.safetensors").splits[0].figure
    for files in ((theirs, tmp_path / "ours.safetensors"), (tmp_path / "ours.safetensors", theirs)):
        both = svms(*files)
        assert both.dimensions == 24
        assert both.first.ids == features.ids
        np.testing.assert_array_equal(both.features[files.index(theirs)].scales[1], rows.astype(np.float32))


@pytest.mark.parametrize("suffix", [".npz", PARQUET])
def test_written_for_other_programs_and_read_again(suffix: str, tmp_path: Path) -> None:
    features = made_up()
    several = replace(features, scales={256: features.scales[256], 384: 2 * features.scales[256]})
    export_features(several, tmp_path / f"f{suffix}")
    found = load_features(tmp_path / f"f{suffix}")
    assert (found.ids, found.classes) == (features.ids, features.classes)
    np.testing.assert_array_equal(found.labels, features.labels)
    np.testing.assert_array_equal(found.scales[1], np.concatenate(list(several.scales.values()), axis=1))


def test_images_of_data_give_labels_sets_and_marks(tmp_path: Path) -> None:
    """The splits of data that come split, and VOC's marks, are those of the data."""
    make_voc(tmp_path / "voc", "2007")
    images = images_of(f"voc2007:{tmp_path / 'voc'}")
    rows = np.random.default_rng(0).normal(size=(len(images.ids), 8))
    path = write(tmp_path / "clip.npz", list(images.ids), rows)
    found = svms(path, data=f"voc2007:{tmp_path / 'voc'}", protocol="voc2007")
    assert found.first.marks is not None
    assert len(found.splits[0].parts.fit) == 8
    make_photos(tmp_path / "photos")
    for number, name in enumerate(("train", "val", "test")):
        make_photos(tmp_path / "split" / name, per_class=4 + number)
    split = images_of(str(tmp_path / "split"))
    rows = np.random.default_rng(0).normal(size=(len(split.ids), 8))
    found = svms(write(tmp_path / "own.npz", list(split.ids), rows), data=str(tmp_path / "split"))
    assert len(found.splits) == 1  # of the data, not drawn
    assert len(found.splits[0].parts.test) == 18


IDS = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no descriptors": ({"x": ROWS, "ids": IDS}, "f.npz has no descriptors: it needs descriptors"),
    "no ids": ({"features": ROWS}, "f.npz has no ids: it needs descriptors"),
    "three axes": ({"features": ROWS[:, :, None], "ids": IDS}, "float32 of shape 4x3x1, not numbers of shape"),
    "fewer ids": ({"features": ROWS, "ids": IDS[:3]}, "has 4 descriptors and 3 ids"),
    "an id twice": ({"features": ROWS, "ids": [*IDS[:3], IDS[0]]}, "has the image a/1.png twice"),
    "NaN": (
        {"features": np.where(ROWS == 7, np.nan, ROWS), "ids": IDS},
        "NaN or infinite descriptor, first of image b",
    ),
    "too large": ({"features": ROWS.astype(float) * 1e300, "ids": IDS}, "infinite descriptor, first of image a/1.png"),
    "odd labels": ({"features": ROWS, "ids": IDS, "labels": [0.5] * 4}, "labels are float64 of shape 4, not one"),
    "few labels": ({"features": ROWS, "ids": IDS, "labels": [1, 2]}, "labels are int64 of shape 2, not one"),
    "a high label": (
        {"features": ROWS, "ids": IDS, "labels": [0, 1, 1, 2], "classes": ["a", "b"]},
        "label 2 is out of range: there are 2 classes at most",
    ),
    "objects": ({"features": np.array([{}], dtype=object), "ids": IDS}, "f.npz is corrupted, or does not hold plain"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_file(name: str, tmp_path: Path) -> None:
    arrays, sentence = FAULTS[name]
    stored: dict[str, Any] = {key: np.array(value) for key, value in arrays.items()}
    np.savez(tmp_path / "f.npz", **stored)
    with pytest.raises(VerydeepError, match=sentence):
        load_features(tmp_path / "f.npz")


def test_ids_and_labels_are_those_of_the_data(tmp_path: Path) -> None:
    images = ImageList(tuple(IDS), np.array([0, 0, 1, 1]), None, ("a", "b"), ("",) * 4, "pets", "pets")
    path = write(tmp_path / "f.npz", [f"/home/{name}" for name in IDS], ROWS)
    with pytest.raises(VerydeepError, match=r"lacks 4 of the 4 images of pets, first a/1.png; its own ids are such as"):
        load_features(path, images)
    write(path, [*IDS, "c/1.png"], np.ones((5, 3)))
    with pytest.raises(VerydeepError, match=r"has 1 images that pets lacks, first c/1.png"):
        load_features(path, images)
    write(path, IDS, ROWS, ["a", "b", "b", "b"])
    with pytest.raises(VerydeepError, match=r"says that a/2.png is of class 'b', and pets of class 'a'"):
        load_features(path, images)
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(VerydeepError, match=r"f.parquet is corrupted" if find_spec("pyarrow") else "need pyarrow"):
        load_features(tmp_path / "f.parquet")


def test_broken_files_of_ours_are_not_taken_for_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "f.safetensors").write_bytes(b"broken")
    assert not is_external(tmp_path / "f.safetensors")
    save_features(tmp_path / "ours.safetensors", made_up())
    assert not is_external(tmp_path / "ours.safetensors")


def test_commands(command: Command, trained: Path, tmp_path: Path) -> None:
    """Features are exported, SVMs learned from the export, and a classifier that cannot describe images says so."""
    photos = trained.parent / "photos"
    words = ("features", trained, "--data", photos, "--out", "f.safetensors", "--also", "f.npz")
    assert command(*words, cwd=tmp_path).status == 0
    done = command("svm", "own", "--features", "f.npz", "--data", photos, "--splits", 1, "--out", "svm", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert "photos: f, stack, 128 dimensions" in done.stdout
    result = json.loads((tmp_path / "svm" / "result.json").read_text())
    assert (result["features"][0]["scales"], result["features"][0]["layer"]) == ([], None)
    assert "f.npz" in (tmp_path / "svm" / "report.html").read_text()
    photo = photos / "red" / "000.png"
    for ask in (("predict", "svm", photo), ("similar", photo, "--features", "f.npz")):
        assert "another program computed the descriptors of" in command(*ask, cwd=tmp_path).mistake()
    refused = command(*words[:-1], "f.csv", cwd=tmp_path).mistake()
    assert "f.csv must end in .npz or .parquet" in refused
    refused = command("svm", "own", "--features", "f.safetensors", "--data", photos, cwd=tmp_path).mistake()
    assert "--data is of descriptors of other programs" in refused
