"""Near duplicates and wrong labels: their properties on made-up descriptors, and `data check` as a user runs it."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import verydeep
from conftest import COLOURS, Command, make_photos, run_command
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings, SuspectSettings
from verydeep.data.open import open_data
from verydeep.transfer.descriptors import unit
from verydeep.transfer.features_file import Features, load_features, save_features
from verydeep.transfer.suspects import (
    FEWEST,
    C,
    Images,
    left_out_scores,
    near_duplicates,
    neighbour_votes,
    suspects_among,
)

USUAL = SuspectSettings()
NAMES = tuple("abcdefgh")
HERE = ("--workers", 0, "--threads", 1)


def blobs(classes: int = 4, images: int = 20, spread: float = 0.15, dimensions: int = 32, seed: int = 0) -> Images:
    """Descriptors around one centre per class, all in the training set."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images)
    rows = unit(rng.normal(size=(classes, dimensions)).astype(np.float32))[labels]
    rows = unit(rows + spread * rng.normal(size=rows.shape).astype(np.float32))
    ids = tuple(f"{NAMES[label]}/{number:03}.jpg" for number, label in enumerate(labels))
    return Images(ids, ("train",) * len(ids), labels, NAMES[:classes], rows)


def with_copies(images: Images, copied: list[int], set_name: str = "test", noise: float = 0.02) -> Images:
    """The images, and near duplicates of some of them in another set."""
    rng = np.random.default_rng(1)
    rows = unit(images.rows[copied] + noise * rng.normal(size=images.rows[copied].shape).astype(np.float32))
    return replace(
        images,
        ids=(*images.ids, *(images.ids[i].replace("/", f"/copy{number}-") for number, i in enumerate(copied))),
        sets=(*images.sets, *(set_name for _ in copied)),
        labels=np.append(images.labels, images.labels[copied]),
        rows=np.concatenate([images.rows, rows]),
    )


def relabelled(images: Images, wrong: list[int]) -> Images:
    labels = images.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % len(images.classes)
    return replace(images, labels=labels)


@pytest.mark.parametrize("dimensions", [64, 8])
def test_left_out_scores_are_those_of_training_without_the_group(dimensions: int) -> None:
    """Both forms: more dimensions than images, and fewer."""
    images = blobs(classes=3, images=9, dimensions=dimensions)
    groups = np.arange(27)
    groups[[4, 11, 12]] = 4
    x = np.concatenate([images.rows, np.ones((27, 1))], axis=1).astype(np.float64)
    y = np.where(images.labels[:, None] == np.arange(3), 1.0, -1.0)
    found = left_out_scores(images.rows, images.labels, groups, 3)
    for group in np.unique(groups):
        rest, out = groups != group, groups == group
        weights = np.linalg.solve(x[rest].T @ x[rest] + np.eye(dimensions + 1) / (2 * C), x[rest].T @ y[rest])
        np.testing.assert_allclose(found[out], x[out] @ weights, atol=1e-9)


def test_votes_are_of_the_nearest_images_outside_the_group() -> None:
    images = blobs(classes=2, images=6, spread=0.01)
    alone = neighbour_votes(images.rows, images.labels, np.arange(12), 2)
    np.testing.assert_array_equal(alone.argmax(1), images.labels)
    together = neighbour_votes(images.rows, images.labels, images.labels, 2)
    np.testing.assert_array_equal(together.argmax(1), 1 - images.labels)


def test_copies_are_grouped_and_images_that_look_alike_are_not() -> None:
    """One class is dense: most of its cosines are above those of copies in the other classes."""
    images = blobs()
    dense = images.labels == 0
    rows = images.rows.copy()
    rows[dense] = unit(rows[dense] + 2.5 * rows[dense].mean(0))
    images = with_copies(replace(images, rows=rows), [25, 26, 47], noise=0.1)
    cosines = images.rows @ images.rows.T
    assert np.median(cosines[:20, :20]) > max(cosines[25, 80], cosines[26, 81], cosines[47, 82])
    groups, found = near_duplicates(images.rows, USUAL.near)
    members = [np.flatnonzero(groups == groups[image]).tolist() for image in (25, 26, 47)]
    assert members == [[25, 80], [26, 81], [47, 82]]
    assert len(np.unique(groups)) == 80
    assert set(found) == {25, 26, 47, 80, 81, 82}


@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_many_copies_of_one_image_are_one_group(noise: float) -> None:
    images = with_copies(blobs(), [7] * 12, noise=noise)
    groups, _ = near_duplicates(images.rows, USUAL.near)
    assert np.flatnonzero(groups == groups[7]).tolist() == [7, *range(80, 92)]
    assert len(np.unique(groups)) == 80


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    images = relabelled(with_copies(blobs(), [25, 26, 47]), [3, 50])
    whole = suspects_among(images, USUAL).to_json()
    monkeypatch.setattr("verydeep.transfer.suspects.BLOCK", 7)
    assert suspects_among(images, USUAL).to_json() == whole


def test_wrong_labels_are_found_with_the_right_class_the_clearest_first() -> None:
    images = relabelled(blobs(), [3, 22, 50, 79])
    found = suspects_among(images, USUAL)
    assert {row.image for row in found.suspects} == {images.ids[i] for i in (3, 22, 50, 79)}
    assert all(row.suggested == row.image[0] and row.reason == "label" for row in found.suspects)
    scores = [row.score for row in found.suspects]
    assert scores == sorted(scores, reverse=True)
    assert found.judged == 80


def test_a_wrongly_labelled_pair_of_copies_does_not_support_itself() -> None:
    """Six copies outvote all other neighbours where they do not leave together."""
    images = with_copies(blobs(), [25] * 6)
    images = relabelled(images, [25, *range(80, 86)])
    votes = neighbour_votes(images.rows, images.labels, np.arange(86), 4)
    assert votes[25].argmax() == images.labels[25]
    found = suspects_among(images, USUAL)
    assert len(found.groups) == 1
    copies = {images.ids[i] for i in (25, *range(80, 86))}
    assert [row.suggested for row in found.suspects if row.image in copies] == ["b"] * 7


def test_a_copy_with_another_label_is_the_one_left_out() -> None:
    images = with_copies(blobs(), [25], "train")
    found = suspects_among(relabelled(images, [80]), USUAL)
    (row,) = found.suspects
    assert (row.image, row.duplicate_of, row.suggested, row.reason) == (
        *(images.ids[80], images.ids[25], "b", "duplicate"),
    )
    assert found.groups[0].labels_differ


def test_of_copies_in_two_sets_that_of_the_training_set_is_left_out() -> None:
    images = with_copies(blobs(), [25, 47])
    found = suspects_among(images, USUAL)
    assert [(row.image, row.duplicate_of, row.set, row.reason) for row in found.suspects] == [
        (images.ids[i], images.ids[copy], "train", "leak")
        for i, copy in sorted(
            ((25, 80), (47, 81)), key=lambda pair: -float(images.rows[pair[0]] @ images.rows[pair[1]])
        )
    ]
    assert found.counts == {"leak": 2, "label": 0, "duplicate": 0}
    kept = [i for i, image in enumerate(images.ids) if image not in {row.image for row in found.suspects}]
    clean = replace(
        images,
        ids=tuple(images.ids[i] for i in kept),
        sets=tuple(images.sets[i] for i in kept),
        labels=images.labels[kept],
        rows=images.rows[kept],
    )
    assert suspects_among(clean, USUAL).suspects == ()


def test_small_classes_and_images_without_labels_are_not_judged() -> None:
    images = blobs(images=8)
    few = np.flatnonzero(images.labels == 3)[FEWEST - 1 :]
    labels = images.labels.copy()
    labels[few] = -1
    found = suspects_among(replace(images, labels=labels), USUAL)
    assert (found.judged, found.small, found.suspects) == (24, ("d",), ())


@pytest.mark.parametrize("kept", [[0], []])
def test_without_two_classes_only_near_duplicates_are_looked_for(kept: list[int]) -> None:
    images = with_copies(blobs(), [25])
    found = suspects_among(replace(images, labels=np.where(np.isin(images.labels, kept), images.labels, -1)), USUAL)
    assert found.judged == 0
    assert [row.reason for row in found.suspects] == ["leak"]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_few_images_are_checked(count: int) -> None:
    images = blobs(classes=2, images=3)
    few = Images(images.ids[:count], images.sets[:count], images.labels[:count], images.classes, images.rows[:count])
    assert suspects_among(few, USUAL).suspects == ()


# --- the command


def features_of(photos: Path, **changed: Any) -> Features:
    """Made-up descriptors of photos: around the centre of their folder's colour."""
    everything = open_data(DataSettings(data=str(photos))).everything()[0]
    rng = np.random.default_rng(0)
    colours = np.array([COLOURS[Path(image).parent.name] for image in everything.ids], dtype=np.float32)
    rows = np.concatenate([colours / 50, rng.normal(size=(len(colours), 24)).astype(np.float32)], axis=1)
    net = {"net": "D", "file": "d.safetensors", "sha256": "0", "preprocessing": "recorded"}
    recipe = {"net": net, "layer": "fc7", "pool": "mean", "mirror": True, "precision": "float32", "splits": None}
    recipe |= {"data": str(photos), "classes": [], "described": {}, "resampling": "bilinear", "other_side": "round"}
    values: dict[str, Any] = {
        **{"ids": everything.ids, "labels": everything.labels, "marks": None, "classes": everything.classes},
        **{"sets": ("",) * len(everything), "scales": {256: rows}, "data": "photos", "key": "one", "recipe": recipe},
    }
    return Features(**{**values, **changed})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of them in a wrong folder and one copied, with features of them; not to be changed."""
    folder = tmp_path_factory.mktemp("suspects")
    photos = make_photos(folder / "photos")
    features = features_of(photos)
    (photos / "red" / "000.png").rename(photos / "blue" / "wrong.png")
    ids = tuple("blue/wrong.png" if image == "red/000.png" else image for image in features.ids)
    rows = features.scales[256].copy()
    sets = open_data(DataSettings(data=str(photos))).sets
    train, test = (next(image for image in sets[name].ids if "green" in image) for name in ("train", "test"))
    rows[ids.index(train)] = rows[ids.index(test)]
    save_features(folder / "f.safetensors", replace(features, ids=ids, scales={256: rows, 384: 2 * rows}))
    (folder / "leak.txt").write_text(train)
    return folder


def test_data_check_lists_suspects_and_training_leaves_them_out(command: Command, place: Path, tmp_path: Path) -> None:
    """Several scales are combined; the status is 1, and 0 once the suspects are left out."""
    words = ("data", "check", place / "photos", "--features", place / "f.safetensors", "--out", "out")
    answer = command(*words, "--json", cwd=tmp_path)
    assert answer.status == 1, answer.stderr
    found = json.loads(answer.stdout)["suspects"]
    leak = (place / "leak.txt").read_text()
    assert found["counts"] == {"leak": 1, "label": 1, "duplicate": 0}
    assert [row["image"] for row in found["suspects"]] == [leak, "blue/wrong.png"]
    assert found["suspects"][1]["suggested"] == "red"
    with (tmp_path / "out" / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "set", "label", "suggested", "score", "reason", "duplicate_of"]
    assert [row["image"] for row in rows] == [leak, "blue/wrong.png"]
    page = (tmp_path / "out" / "suspects.html").read_text()
    assert page.count("data:image/jpeg") == 3
    text = command(*words, cwd=tmp_path)
    assert text.status == 1
    assert "near duplicates across sets: 1, within a set: 0; doubtful labels: 1 of 30" in text.stdout
    clean = command(*words, "--exclude", "out/suspects.csv", "--json", cwd=tmp_path)
    assert clean.status == 0, clean.stderr
    assert json.loads(clean.stdout)["suspects"]["suspects"] == []


FAULTS: list[tuple[str, str]] = [
    ("--features no.safetensors", r"there is no features file"),
    ("--features f.safetensors --weights run", r"not allowed with"),
    ("--features f.safetensors --near 1.5", r"near must be above 0 and below 1"),
    ("--features f.safetensors --clear -1", r"clear must be 0 or more"),
    ("--features foreign.safetensors", r"1 of its 31 are not there, first red/gone.png: run `verydeep features` again"),
    ("--features lacking.safetensors", r"has no descriptors of 1 of the 30 images of .*, first red/009.png"),
    ("--weights svm", r"."),
    ("--weights run --layer fc9", r"has no layer 'fc9'"),
    ("--features f.safetensors --exclude bad.csv", r"no image 'red/01.png'; did you mean 'red/0\d\d.png'"),
]


@pytest.fixture(scope="module")
def faulty(place: Path, trained: Path) -> Path:
    """What the mistakes below name."""
    features = load_features(place / "f.safetensors")
    few = list(range(len(features) - 1))
    lacking = replace(
        features,
        ids=features.ids[:-1],
        labels=features.labels[:-1],
        sets=features.sets[:-1],
        scales={scale: rows[few] for scale, rows in features.scales.items()},
    )
    save_features(place / "lacking.safetensors", lacking)
    foreign = replace(
        features,
        ids=(*features.ids, "red/gone.png"),
        labels=np.append(features.labels, 0),
        sets=(*features.sets, ""),
        scales={scale: np.concatenate([rows, rows[:1]]) for scale, rows in features.scales.items()},
    )
    save_features(place / "foreign.safetensors", foreign)
    (place / "bad.csv").write_text("image\nred/01.png\n")
    (place / "run").symlink_to(trained)
    (place / "svm").mkdir()
    return place


@pytest.mark.parametrize(("words", "sentence"), FAULTS)
def test_mistakes_are_one_sentence(command: Command, faulty: Path, tmp_path: Path, words: str, sentence: str) -> None:
    import re

    answer = command("data", "check", "photos", *words.split(), "--out", tmp_path / "out", cwd=faulty)
    assert re.search(sentence, answer.mistake())


def test_by_a_net_corrupt_photos_among_others_are_left_out(command: Command, trained: Path, tmp_path: Path) -> None:
    """The status is 2 for the corrupt one; the others are checked."""
    photos = make_photos(tmp_path / "photos", 6)
    (photos / "red" / "000.png").write_bytes(b"no image")
    words = ("data", "check", "photos", "--weights", trained, "--scales", 36, "--out", "out", "--json", *HERE)
    answer = command(*words, cwd=tmp_path)
    assert answer.status == 2
    found = json.loads(answer.stdout)
    assert [Path(fault["photo"]).name for fault in found["faults"]] == ["000.png"]
    assert found["suspects"]["images"] == 17
    assert (tmp_path / "out" / "features.safetensors").is_file()


def test_a_page_of_someone_else_is_not_overwritten(place: Path, tmp_path: Path) -> None:
    (tmp_path / "suspects.html").write_text("mine")
    with pytest.raises(VerydeepError, match="is not a report"):
        verydeep.find_suspects(place / "photos", place / "f.safetensors", out=tmp_path)
    with pytest.raises(VerydeepError, match="descriptors are needed"):
        verydeep.find_suspects(place / "photos", out=tmp_path / "other")


SHARED = Path(__file__).parents[3] / "shared"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data" / "caltech101").is_dir(), reason="no Caltech-101")
def test_what_is_planted_in_real_photos_is_found(tmp_path: Path) -> None:
    """5 % wrong labels, re-encoded, cropped and mirrored copies; examples/suspects.py measures more of them."""
    net = SHARED / "weights" / "net_d_conv_ilsvrc.safetensors"
    for name in ("car_side", "euphonium", "pagoda", "llama"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in sorted((SHARED / "data" / "caltech101" / name).glob("*.jpg"))[:15]:
            Image.open(path).convert("RGB").save(tmp_path / "photos" / name / path.name, quality=95)
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    copied = random.Random(0).sample(photos, 6)
    for number, path in enumerate(copied):
        picture = Image.open(path)
        wide, high = picture.size
        crop = picture.crop((wide // 20, high // 20, wide * 19 // 20, high * 19 // 20))
        changed = (picture.resize((wide * 3 // 4, high * 3 // 4)), crop, ImageOps.mirror(picture))[number % 3]
        changed.save(path.with_name(f"copy_{path.name}"), quality=60)
    wrong = random.Random(1).sample([path for path in photos if path not in copied], 3)
    for path in wrong:
        path.rename(path.parents[1] / ("pagoda" if "llama" in str(path) else "llama") / f"wrong_{path.name}")
    weights = ("--weights", net, "--preprocessing", "caffe", "--scales", 128)
    answer = run_command("data", "check", "photos", *weights, "--out", "out", "--json", *HERE, cwd=tmp_path)
    assert answer.status == 1, answer.stderr
    found = json.loads(answer.stdout)["suspects"]
    groups = [{Path(image["image"]).name for image in group["images"]} for group in found["groups"]]
    assert all(any({path.name, f"copy_{path.name}"} <= group for group in groups) for path in copied)
    doubtful = {Path(row["image"]).name for row in found["suspects"] if row["suggested"]}
    assert {f"wrong_{path.name}" for path in wrong} <= doubtful
    assert len(doubtful) <= 6
