"""Packs: the folder's photos, pixel for pixel and in the same order; and large JPEGs decoded coarsely."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import COLOURS, SHARED, TINY, Command, make_voc
from verydeep.checkpoints.checkpoint import read_safetensors
from verydeep.core.config import Scale
from verydeep.core.device import ONE_BY_ONE
from verydeep.core.errors import ImageError, VerydeepError
from verydeep.core.progress import Collected
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.data.dataloader import TrainingLoader
from verydeep.data.datasets.packed import CARD, ROW, ids_file, index_file
from verydeep.data.image_io import read_image
from verydeep.data.open import Dataset, open_data
from verydeep.data.pack_writer import Packing, pack_data
from verydeep.data.transforms import Whole, Window, reduced

RECIPE = TrainSettings(net="A", S=Scale(36, 36), crop=32, batch=7)


def crops(dataset: Dataset, recipe: TrainSettings = RECIPE) -> torch.Tensor:
    """Two epochs of training crops, in their order."""
    loader = TrainingLoader(dataset, recipe, np.eye(3), 4, ONE_BY_ONE)
    return torch.cat([batch.images for epoch in (0, 1) for batch in loader.epoch(epoch)])


@pytest.fixture
def pack(photos: Path, tmp_path: Path) -> Path:
    """A raw pack in several small files."""
    pack_data(DataSettings(str(photos)), tmp_path / "pack", Packing(36), shard_bytes=20_000)
    return tmp_path / "pack"


def test_a_raw_pack_has_the_pixels_and_order_of_the_folder(photos: Path, pack: Path) -> None:
    """Sets, ids, classes and fingerprints too, so that a net trained from one knows the other."""
    assert len(list(pack.glob("train-*.bin"))) > 2
    folder, packed = open_data(DataSettings(str(photos))), open_data(DataSettings(str(pack)))
    assert packed.fingerprint() == folder.fingerprint()
    for name, dataset in folder.sets.items():
        mine = packed.sets[name]
        assert (mine.ids, mine.classes) == (dataset.ids, dataset.classes)
        assert (mine.labels == dataset.labels).all()
        assert mine.size(0) == mine.pixels(0).shape[:2]
    assert torch.equal(crops(packed.sets["train"]), crops(folder.sets["train"]))


def test_batches_are_channels_last(photos: Path) -> None:
    """So that no pixel moves where the net wants them that way."""
    train = open_data(DataSettings(str(photos))).sets["train"]
    (first, *_) = TrainingLoader(train, RECIPE, np.eye(3), 4, ONE_BY_ONE).epoch(0)
    assert first.images.is_contiguous(memory_format=torch.channels_last)


def test_a_pack_of_jpegs_is_close(photos: Path, tmp_path: Path) -> None:
    """Of noise, the worst there is to compress; and smaller."""
    raw = pack_data(DataSettings(str(photos)), tmp_path / "raw", Packing(36))
    told = pack_data(DataSettings(str(photos)), tmp_path / "pack", Packing(36, "jpeg", 95))
    size = [found["sets"]["train"]["shards"][0]["bytes"] for found in (raw, told)]
    assert size[1] < 0.6 * size[0]
    one, other = (open_data(DataSettings(str(place))).sets["train"] for place in (photos, tmp_path / "pack"))
    assert (crops(one).float() - crops(other).float()).abs().mean() < 8


def test_an_interrupted_packing_resumes(photos: Path, tmp_path: Path) -> None:
    """A photo that cannot be read stops it; what is full by then is not made anew, and the rest joins it."""
    last = photos / open_data(DataSettings(str(photos))).sets["train"].ids[-1]
    good, stamps = last.read_bytes(), last.stat()
    last.write_bytes(bytes(len(good)))
    os.utime(last, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    with pytest.raises(ImageError, match="finished shards are kept"):
        pack_data(DataSettings(str(photos)), tmp_path / "pack", Packing(36), shard_bytes=20_000)
    assert not (tmp_path / "pack" / CARD).exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "pack").glob("*.bin")}
    assert made
    last.write_bytes(good)
    os.utime(last, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    pack_data(DataSettings(str(photos)), tmp_path / "pack", Packing(36), shard_bytes=20_000)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in made.items())
    assert not list((tmp_path / "pack").glob("*.part"))
    whole = pack_data(DataSettings(str(photos)), tmp_path / "whole", Packing(36), shard_bytes=20_000)
    assert json.loads((tmp_path / "pack" / CARD).read_text())["sets"] == whole["sets"]


def test_several_labels_boxes_and_subjects_are_packed(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", "2007")
    pack_data(DataSettings(f"voc2007:{tmp_path / 'voc'}"), tmp_path / "pack", Packing(30))
    one = open_data(DataSettings(f"voc2007:{tmp_path / 'voc'}"), several=True).sets["test"]
    other = open_data(DataSettings(str(tmp_path / "pack")), several=True).sets["test"]
    assert one.marks is not None
    assert other.marks is not None
    assert (one.marks == other.marks).all()

    pack_data(DataSettings("digits:60"), tmp_path / "digits", Packing(60))
    scenes = open_data(DataSettings("digits:60")).sets["val"]
    packed = open_data(DataSettings(str(tmp_path / "digits"))).sets["val"]
    assert (np.unique(scenes.groups, return_inverse=True)[1] == np.unique(packed.groups, return_inverse=True)[1]).all()
    assert scenes.find_boxes is not None
    assert packed.find_boxes is not None
    (there,), (here,) = scenes.find_boxes(scenes.ids[3]), packed.find_boxes(packed.ids[3])
    assert here.xyxy == there.xyxy
    assert here.size == scenes.pixels(3).shape[:2]  # of the photo before it was packed, which the corners are of


def test_skipped_images_are_reported(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "009.png").write_bytes(b"no photo")
    told = Collected()
    metadata = pack_data(DataSettings(str(photos)), tmp_path / "pack", Packing(36), bad_images="skip", reporter=told)
    assert list(metadata["skipped"]) == ["red/009.png"]
    assert "009.png" in told.warnings[0]
    assert sum(len(found) for found in open_data(DataSettings(str(tmp_path / "pack"))).sets.values()) == 29


def test_a_changed_pack_is_detected(pack: Path) -> None:
    (shard, *_) = sorted(pack.glob("train-*.bin"))
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    dataset = open_data(DataSettings(str(pack))).sets["train"]
    with pytest.raises(ImageError, match="is corrupt"):
        dataset.pixels(0)
    shard.write_bytes(data[:-1])
    with pytest.raises(VerydeepError, match=r"corrupted packed dataset \(train-00000.bin has another size\)"):
        open_data(DataSettings(str(pack)))


def test_the_real_commands(photos: Path, tmp_path: Path, command: Command) -> None:
    """Packed, looked at, trained from with workers, tested from the folder; the weights are those of the folder."""
    made = command("data", "pack", photos, tmp_path / "pack", "--size", 36, "--json")
    assert made.status == 0, made.stderr
    assert json.loads(made.stdout)["sets"]["test"]["photos"] == 6
    assert command("data", "check", tmp_path / "pack").status == 0
    words = ["--max-epochs", 1, "--start", "none", "--quiet", *(f"--{key}={value}" for key, value in TINY.items())]
    for data in ("photos", "pack"):
        trained = command(
            "train", "A", *words, "--workers", 2, "--data", tmp_path / data, "--out", tmp_path / f"run-{data}"
        )
        assert trained.status == 0, trained.stderr
    one, other = (read_safetensors(tmp_path / f"run-{data}" / "last.safetensors")[1] for data in ("photos", "pack"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    tested = command("evaluate", tmp_path / "run-pack", "centre@36", "--data", photos, "--set", "test", "--json")
    assert tested.status == 0, tested.stderr
    assert "not as it was" not in tested.stderr


MISTAKES = [
    ("data pack {photos} {tmp}/pack", r"pack is already a packed dataset: use another folder"),
    ("data pack {tmp}/nowhere {tmp}/new", r"nowhere does not exist|nowhere"),
    ("data pack {photos} {tmp}/new --quality 50 --form jpeg", r"quality 90 to 100, not 36|not 256, jpeg, 50"),
    ("data pack {photos} {tmp}/begun", r"contains an incomplete pack of other images or settings"),
    ("data pack {photos} {photos}/red/000.png", r"000.png"),
    ("data check {tmp}/pack --boxes boxes.csv", r"is a packed dataset with boxes and a split of its own"),
    ("train A --data {tmp}/other-version", r"a packed dataset of another version \(x\): pack the images again"),
    ("train A --data {tmp}/torn", r"torn is a corrupted packed dataset"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistakes_by_the_real_command(
    photos: Path, pack: Path, tmp_path: Path, command: Command, words: str, sentence: str
) -> None:
    shutil.copytree(pack, tmp_path / "other-version")
    (tmp_path / "other-version" / CARD).write_text(json.dumps({"format": "x"}))
    shutil.copytree(pack, tmp_path / "torn")
    index_file(tmp_path / "torn", "train").write_bytes(b"\x93NUMPY")
    (tmp_path / "begun").mkdir()
    part = {"end": 1, "places": [0], "rows": [[0] * 8], "skipped": {}, "key": "another"}
    (tmp_path / "begun" / "train-00000.part").write_text(json.dumps(part))
    told = command(*words.format(photos=photos, tmp=tmp_path).split()).mistake()
    assert re.search(sentence, told), told


def test_a_full_disk_leaves_no_half_pack(photos: Path, tmp_path: Path, command: Command) -> None:
    told = command("data", "pack", photos, tmp_path / "pack", "--size", 200, "--workers", 0, file_limit=300_000)
    assert "free disk space" in told.mistake()
    assert not (tmp_path / "pack" / CARD).exists()
    assert not list((tmp_path / "pack").glob(".*.tmp"))


def test_an_index_of_a_million_photos_opens_at_once(tmp_path: Path) -> None:
    """The floor is a second and 500 MB for the whole process; here, on a busy machine, what it takes beyond Python."""
    count = 1_000_000
    index = np.zeros(count, dtype=ROW)
    index["label"], index["subject"] = np.arange(count) % 1000, np.arange(count)
    np.save(index_file(tmp_path, "train"), index)
    ids_file(tmp_path, "train").write_text("\0".join(f"n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG" for n in range(count)))
    sets = {"train": {"photos": count, "ignored": 0, "shards": []}}
    metadata = {"format": "verydeep-pack-1", "name": "made up", "form": "raw", "size": 256, "split_by_us": False}
    (tmp_path / CARD).write_text(json.dumps({**metadata, "classes": list(map(str, range(1000))), "sets": sets}))
    tracemalloc.start()
    began = time.process_time()
    (dataset,) = open_data(DataSettings(str(tmp_path))).sets.values()
    seconds = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == count
    assert dataset.ids[-1].endswith("_999999.JPEG")
    assert peak < 400e6, peak
    assert seconds < 20, seconds  # tracing memory makes it several times slower; benchmarks/growth.py has the figure


def painted(size: tuple[int, int], seed: int) -> Image.Image:
    """A photo with edges and fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(300, 1700),
    height=st.integers(300, 1300),
    scale=st.sampled_from([64, 100, 256]),
    across=st.floats(0, 1),
    down=st.floats(0, 1),
    mirrored=st.booleans(),
    grey=st.booleans(),
)
def test_a_crop_decoded_coarsely_is_the_crop(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    scale: int,
    across: float,
    down: float,
    mirrored: bool,
    grey: bool,
) -> None:
    """Within two grey levels on average, of any size, place and colour, mirrored or not."""
    path = tmp_path_factory.getbasetemp() / "photo.jpg"
    photo = painted((width, height), width)
    (photo.convert("L") if grey else photo).save(path, quality=92)
    whole = Whole(read_image(path), scale, "bilinear", "round")
    coarse = reduced(path.read_bytes(), "photo", scale, "bilinear", "round")
    assert (coarse.photo, coarse.size) == (whole.photo, whole.size)
    crop = min(scale, 64)
    window = Window(int(down * (whole.size[0] - crop)), int(across * (whole.size[1] - crop)), mirrored)
    apart = coarse.cut(window, crop).astype(float) - whole.cut(window, crop)
    assert np.abs(apart).mean() < 2


@pytest.mark.parametrize("kind", ["turned", "PNG", "CMYK"])
def test_other_files_than_plain_jpegs_are_decoded_whole(tmp_path: Path, kind: str) -> None:
    photo, path = painted((400, 300), 1), tmp_path / "photo"
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.save(path, "JPEG", exif=exif)
    else:
        photo.convert("CMYK" if kind == "CMYK" else "RGB").save(path, "PNG" if kind == "PNG" else "JPEG")
    found = reduced(path.read_bytes(), "photo", 64, "bilinear", "round")
    expected = Whole(read_image(path), 64, "bilinear", "round")
    assert found.size == expected.size
    assert (found.cut(Window(0, 0, False), 64) == expected.cut(Window(0, 0, False), 64)).all()


def test_a_truncated_jpeg_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    painted((400, 300), 1).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ImageError, match="cannot be decoded"):
        reduced(path.read_bytes(), "photo", 64, "bilinear", "round").cut(Window(0, 0, False), 64)


def test_training_decodes_coarsely_on_request(tmp_path: Path, command: Command) -> None:
    """The same crops, nearly: order, places and labels are those of whole decoding; a broken photo is named."""
    for place, name in enumerate(COLOURS):
        for number in range(4):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            painted((640, 480), 10 * place + number).save(tmp_path / "photos" / name / f"{number}.jpg", quality=92)
    dataset = open_data(DataSettings(str(tmp_path / "photos"))).sets["train"]
    apart = crops(dataset).float() - crops(dataset, replace(RECIPE, decoding="reduced")).float()
    assert 0 < apart.abs().mean() < 2
    words = ["--max-epochs", 1, "--start", "none", "--quiet", *(f"--{key}={value}" for key, value in TINY.items())]
    run = command(
        "train", "A", *words, "--decoding", "reduced", "--data", tmp_path / "photos", "--out", tmp_path / "run"
    )
    assert run.status == 0, run.stderr


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the shared photos")
def test_real_photos_decoded_coarsely() -> None:
    """Caltech-101's are small: nothing is coarser there, and a crop alone is rescaled."""
    folder = SHARED / "data" / "caltech101"
    paths = sorted(folder.glob("emu/*.jpg"))[:10]
    for path in paths:
        whole = Whole(read_image(path), 128, "bilinear", "round")
        coarse = reduced(path.read_bytes(), str(path), 128, "bilinear", "round")
        window = Window(5, 9, True)
        assert np.abs(coarse.cut(window, 96).astype(float) - whole.cut(window, 96)).mean() < 2
