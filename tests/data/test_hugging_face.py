"""Data sets of Hugging Face: parquet and what `save_to_disk` writes; what is wrong with them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, Command, make_photos
from verydeep.core.errors import ImageError, VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.datasets import hugging_face
from verydeep.data.datasets.hugging_face import is_saved_dataset
from verydeep.data.open import open_data, open_images

needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="no pyarrow")
NAMES = ("cat", "dog")
Row = dict[str, Any]


def png(number: int) -> bytes:
    """A photo of noise, of one of two colours."""
    colour = [(200, 40, 40), (40, 60, 200)][number % 2]
    noise = np.random.default_rng(number).integers(-30, 31, (40, 48, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(first: int, count: int) -> list[Row]:
    """Photos of two classes in turn."""
    numbers = range(first, first + count)
    return [{"image": {"bytes": png(n), "path": f"{n}.png"}, "label": n % 2, "animal": f"a{n // 4}"} for n in numbers]


def table(content: Sequence[Row], names: Sequence[str] | None = NAMES, **types: Any) -> Any:
    """A table with the metadata of `datasets`, if there are names."""
    import pyarrow

    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    kinds: dict[str, Any] = {"image": image, "label": pyarrow.int64(), "animal": pyarrow.string(), **types}
    kinds = {name: kind for name, kind in kinds.items() if kind is not None}
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {} if names is None else {"huggingface": json.dumps({"info": {"features": features}})}
    columns = [pyarrow.array([row.get(name) for row in content], kind) for name, kind in kinds.items()]
    return pyarrow.table(columns, schema=pyarrow.schema(kinds).with_metadata(metadata))


def write_parquet(path: Path, content: Any) -> None:
    """A parquet file, in row groups of three."""
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(content, path, row_group_size=3)


def write_saved(folder: Path, *contents: Any) -> None:
    """What `save_to_disk` of a set writes, in a file each, in batches of four."""
    import pyarrow

    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05d}-of-{len(contents):05d}.arrow" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        with pyarrow.ipc.new_stream(folder / name, content.schema) as stream:
            stream.write_table(content, 4)
    state = {"_data_files": [{"filename": name} for name in names], "_split": folder.name}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def opened(place: Path | str, **given: Any) -> Any:
    return open_data(DataSettings(str(place), **given))


@needs_pyarrow
@pytest.mark.parametrize("name", ["hf", ""])
def test_one_set_is_split_as_a_folder_is(name: str, tmp_path: Path) -> None:
    """Ids name file and row; the photos are those that were written, in any order, and after pickling."""
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", table(rows(0, 20)))
    write_parquet(tmp_path / "data" / "train-00001-of-00002-0f9a.parquet", table(rows(20, 10)))
    (tmp_path / "README.md").write_text("a card")
    data = opened(f"{name}:{tmp_path}" if name else tmp_path)
    whole, _ = data.everything()
    files = ["train-00000-of-00002", "train-00001-of-00002-0f9a"]
    assert whole.ids == tuple(f"data/{files[n // 20]}.parquet/{n % 20:06d}" for n in range(30))
    assert data.classes == NAMES
    assert (whole.labels == np.arange(30) % 2).all()
    assert sorted(data.sets) == ["dev", "test", "train"]
    assert data.skipped.counts == {".md": 1}
    source = pickle.loads(pickle.dumps(whole.source))
    for n in (29, 0, 7, 8, 21):
        assert source.encoded(whole.ids[n]) == png(n)
        assert (whole.pixels(n) == np.asarray(Image.open(io.BytesIO(png(n))))).all()
    assert whole.source.files(whole.ids[29]) == [tmp_path / "data" / f"{files[1]}.parquet"]


@needs_pyarrow
@pytest.mark.parametrize("form", ["parquet", "folders", "saved"])
def test_sets_are_named_by_files_folders_or_json(form: str, tmp_path: Path) -> None:
    contents = {"train": rows(0, 20), "validation": rows(20, 4), "test": rows(24, 6), "extra": rows(30, 2)}
    for name, content in contents.items():
        if form == "saved":
            write_saved(tmp_path / name, table(content[:2]), table(content[2:]))
        else:
            place = f"{name}-00000-of-00001.parquet" if form == "parquet" else f"{name}/0000.parquet"
            write_parquet(tmp_path / "default" / place, table(content))
    if form == "saved":
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": list(contents)}))
    data = opened(tmp_path)
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 20, "dev": 4, "test": 6}
    assert data.sets["test"].source.encoded(data.sets["test"].ids[5]) == png(29)
    assert data.sets["test"].labels.tolist() == [0, 1] * 3
    assert data.split == "train is train, validation is dev, test is test"
    if form == "saved":
        assert data.notes == (f"{tmp_path}: extra beside the sets is not read",)
        assert data.sets["dev"].ids[3] == "validation/data-00001-of-00002.arrow/000001"
    else:
        assert "extra" in str(data.skipped.to_json()) or "extra" in str(data.notes)


@needs_pyarrow
def test_one_saved_set(tmp_path: Path) -> None:
    write_saved(tmp_path, table(rows(0, 12)))
    data = opened(tmp_path)
    assert len(data.everything()[0]) == 12
    assert data.split_by_us


@needs_pyarrow
def test_labels_without_names_are_classes_as_in_lists(tmp_path: Path) -> None:
    import pyarrow

    content = [{**row, "label": ["kiwi", "emu"][row["label"]]} for row in rows(0, 12)]
    write_parquet(tmp_path / "birds.parquet", table(content, None, label=pyarrow.string()))
    whole, _ = opened(tmp_path).everything()
    assert [whole.classes[label] for label in whole.labels] == ["kiwi", "emu"] * 6
    write_parquet(tmp_path / "birds.parquet", table(rows(0, 12), None))
    assert opened(tmp_path).classes == ("0", "1")


@needs_pyarrow
def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    content = [{**row, "label": 3 * row["label"]} for row in rows(0, 12)]
    write_parquet(tmp_path / "x.parquet", table(content, ("a", "b", "c", "d")))
    assert opened(tmp_path).classes == ("a", "d")


@needs_pyarrow
def test_images_without_labels(tmp_path: Path) -> None:
    """A test set without labels is not read; data without any can be described."""
    bare = [{**row, "label": -1} for row in rows(20, 4)]
    write_parquet(tmp_path / "one" / "x.parquet", table(bare))
    data = open_images(DataSettings(str(tmp_path / "one")))
    assert [len(data.sets["test"]), data.sets["test"].labelled] == [4, False]
    write_parquet(tmp_path / "two" / "train.parquet", table(rows(0, 20)))
    write_parquet(tmp_path / "two" / "test.parquet", table(bare))
    data = opened(tmp_path / "two")
    assert data.notes == (f"{tmp_path / 'two'}: test has no labels and is not read",)
    assert sum(map(len, data.sets.values())) == 20


@needs_pyarrow
def test_groups_of_a_column_stay_together(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", table(rows(0, 40)))
    data = opened(tmp_path, group_by="animal")
    groups = [set(found.groups.tolist()) for found in data.sets.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10


@needs_pyarrow
def test_photos_in_files_of_their_own(tmp_path: Path) -> None:
    """A path without bytes is a file, relative to the folder, which is then opened by its name."""
    content = [{**row, "image": {"bytes": None, "path": f"photos/{n}.png"}} for n, row in enumerate(rows(0, 12))]
    write_parquet(tmp_path / "x.parquet", table(content))
    (tmp_path / "photos").mkdir()
    for n in range(12):
        (tmp_path / "photos" / f"{n}.png").write_bytes(png(n))
    whole, _ = opened(f"hf:{tmp_path}").everything()
    assert whole.source.encoded(whole.ids[5]) == png(5)
    (tmp_path / "photos" / "5.png").unlink()
    with pytest.raises(ImageError, match=r"cannot read .*5.png"):
        whole.pixels(5)


@needs_pyarrow
def test_row_groups_are_kept_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "x.parquet", table(rows(0, 12)))
    whole, _ = opened(tmp_path).everything()
    monkeypatch.setattr(hugging_face, "MOST_KEPT", 7 * len(png(0)))
    source = whole.source
    assert isinstance(source, hugging_face.TableReader)
    for n in (0, 11, 5, 1, 2, 9):
        assert source.encoded(whole.ids[n]) == png(n)
    assert [group for _, group in source._kept._parts] == [0, 3]


@needs_pyarrow
def test_an_image_that_is_none(tmp_path: Path) -> None:
    content = rows(0, 12)
    content[3]["image"] = None
    content[4]["image"] = {"bytes": None, "path": None}
    content[5]["image"] = {"bytes": b"GIF8 no", "path": None}
    write_parquet(tmp_path / "x.parquet", table(content))
    whole, _ = opened(tmp_path).everything()
    for n, told in ((3, "has no image: remove the row"), (4, "has no image"), (5, "x.parquet/000005")):
        with pytest.raises(ImageError, match=told):
            whole.pixels(n)


def test_a_folder_of_photos_stays_one(tmp_path: Path) -> None:
    """Descriptors beside class folders do not make it a data set of parquet files."""
    make_photos(tmp_path / "photos")
    (tmp_path / "photos" / "f.parquet").write_bytes(b"PAR1")
    (tmp_path / "photos" / "state.json").write_text("{}")
    assert not is_saved_dataset(tmp_path / "photos")
    assert not is_saved_dataset(tmp_path / "missing")
    (tmp_path / "tables" / ".cache").mkdir(parents=True)
    (tmp_path / "tables" / ".cache" / "x.png").write_bytes(b"")
    (tmp_path / "tables" / "x.parquet").write_bytes(b"PAR1")
    assert is_saved_dataset(tmp_path / "tables")


def faulty(kind: str) -> Any:
    """A table with a fault of its cells or columns, if it is one of these kinds."""
    content = rows(0, 12)
    if kind in ("label", "half"):
        content[7]["label"] = 2 if kind == "label" else None
    whole = table(content)
    if kind == "no image":
        return whole.drop(["image"])
    if kind == "two images":
        image = whole.column("image")
        return whole.append_column("crop", image).append_column("mask", image).drop(["image"])
    if kind == "two labels":
        return table(content, None).append_column("category", whole.column("label"))
    return whole


def written(kind: str, place: Path) -> None:
    """A data set with a fault."""
    whole = faulty(kind)
    files = {"no train": ("validation", "test"), "several": ("en/train", "fr/train"), "other names": ("train-1",)}
    for name in files.get(kind, ("x",)):
        write_parquet(place / f"{name}.parquet", whole)
    if kind == "torn":
        (place / "x.parquet").write_bytes((place / "x.parquet").read_bytes()[:-9])
    elif kind == "other names":
        write_parquet(place / "train-1-00001-of-00002.parquet", table(rows(0, 12), ("dog", "cat")))
    elif kind in ("outside", "above"):
        (place / "dataset_dict.json").write_text(json.dumps({"splits": ["../x" if kind == "outside" else ".."]}))
    elif kind in ("no files", "torn arrow"):
        write_saved(place, whole)
        path = place / ("state.json" if kind == "no files" else "data-00000-of-00001.arrow")
        path.write_bytes(b'{"_data_files": 7}' if kind == "no files" else path.read_bytes()[:3000])


FAULTS = {
    "torn": r"cannot read .*x.parquet \(.*\): write or download it again.",
    "torn arrow": r"cannot read .*data-00000-of-00001.arrow \(.*\): write or download it again.",
    "label": r"x.parquet/000007 has the label 2; there are 2 class names",
    "half": r"x.parquet/000007 has no label, but others have: add it, or remove the row",
    "no image": r"has no column of images, as structs of bytes and path: its columns are label, animal",
    "two images": r"each of the columns crop, mask may be the image: keep one",
    "two labels": r"each of the columns label, category may be the class: keep one",
    "no train": r"has the sets test, validation, and none for training: one must be `train`",
    "several": r"has several data sets: use one of the folders .*en, .*fr",
    "other names": r"train-1.parquet has other columns or class names than .*train-1-00001-of-00002.parquet",
    "outside": r"dataset_dict.json is corrupted: it does not name the files beside it",
    "above": r"dataset_dict.json is corrupted: it does not name the files beside it",
    "no files": r"state.json is corrupted: it does not name the files beside it",
}


@needs_pyarrow
@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_wrong_is_one_sentence(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    with pytest.raises(VerydeepError, match=FAULTS[kind]):
        opened(tmp_path)


@needs_pyarrow
def test_the_real_commands(tmp_path: Path, command: Command) -> None:
    """Checked, packed, trained on and evaluated; a fault is a sentence."""
    write_parquet(tmp_path / "pets" / "train-00000-of-00001.parquet", table(rows(0, 20)))
    write_parquet(tmp_path / "pets" / "test-00000-of-00001.parquet", table(rows(20, 6)))
    told = json.loads(command("data", "check", tmp_path / "pets", "--json").stdout)
    assert {name: found["photos"] for name, found in told["sets"].items()} == {"train": 18, "dev": 2, "test": 6}
    words = [*(f"--{key}={value}" for key, value in TINY.items()), "--start", "none", "--max-epochs", 1, "--quiet"]
    trained = command("train", "A", *words, "--data", f"hf:{tmp_path / 'pets'}", "--out", tmp_path / "run")
    assert trained.status == 0, trained.stderr
    tested = command("evaluate", tmp_path / "run", "dense@36", "--workers", 1, "--json")
    assert json.loads(tested.stdout)["images"] == 6
    written("torn", tmp_path / "torn")
    assert "x.parquet" in command("data", "check", f"hf:{tmp_path / 'torn'}").mistake()


def test_what_is_not_on_disk_must_be_downloaded(command: Command) -> None:
    told = command("data", "check", "hf:uoft-cs/cifar10").mistake()
    assert "there is no folder uoft-cs/cifar10: data sets are only read from disk" in told
    assert "hf download --repo-type dataset uoft-cs/cifar10 --local-dir DIR" in told


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(VerydeepError, match=r"need pyarrow: pip install 'verydeep\[parquet\]'"):
        opened(tmp_path)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_image_folder_with_metadata_is_a_list(ending: str, tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    content = [{"file_name": f"{n}.png", "label": NAMES[n % 2], "text": "a pet"} for n in range(12)]
    lines = [",".join(row.values()) for row in content] if ending == "csv" else map(json.dumps, content)
    head = "file_name,label,text\n" if ending == "csv" else ""
    (tmp_path / f"metadata.{ending}").write_text(head + "\n".join(lines))
    with pytest.raises(VerydeepError, match=rf"has no class folders: .* use its list as data: .*/metadata.{ending}"):
        opened(tmp_path)
    assert opened(tmp_path / f"metadata.{ending}").classes == NAMES


@needs_pyarrow
@pytest.mark.parametrize("named", [True, False])
def test_lists_of_labels_are_several_classes(named: bool, tmp_path: Path) -> None:
    """Numbers of names, which `datasets` describes as a list of ClassLabel, or texts."""
    import pyarrow

    numbers = [[0, 2], [2], [], [1, 0]] * 6
    cells = numbers if named else [["abcd"[k] for k in several] for several in numbers]
    content = [{**row, "label": cell} for row, cell in zip(rows(0, 24), cells, strict=True)]
    whole = table(content, None, label=pyarrow.list_(pyarrow.int64() if named else pyarrow.string()))
    kind = {"feature": {"names": list("abcd"), "_type": "ClassLabel"}, "_type": "List"}
    if named:
        whole = whole.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": kind}}})})
    write_parquet(tmp_path / "train.parquet", whole)
    write_parquet(tmp_path / "test.parquet", whole.slice(0, 3))
    data = opened_with_several(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.sets["test"].marks.tolist() == [[1, -1, 1], [-1, -1, 1], [-1, -1, -1]]
    with pytest.raises(VerydeepError, match="has several labels per image"):
        opened(tmp_path)
    if named:
        content[1]["label"] = [9]
        write_parquet(tmp_path / "train.parquet", table(content, None, label=pyarrow.list_(pyarrow.int64())))
        write_parquet(tmp_path / "test.parquet", whole.slice(0, 3))
        with pytest.raises(VerydeepError, match=r"images of class 'a', which the net does not know"):
            opened_with_several(tmp_path)


def opened_with_several(place: Path) -> Any:
    return open_data(DataSettings(str(place)), several=True)
