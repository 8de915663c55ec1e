"""Lists of images that are left out: `--exclude` of training and of SVMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Command, make_photos
from verydeep.checkpoints.checkpoint import read_metadata
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data

SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]
HEADER = "image,set,label,suggested,score,reason,duplicate_of\n"


def listed(place: Path, *images: str, header: str = HEADER) -> str:
    """A list of images as `data check` writes it."""
    path = place / "suspects.csv"
    path.write_text(header + "".join(f"{image}\n" for image in images))
    return str(path)


@pytest.mark.parametrize("header", ["", HEADER, "score,path\n"])
def test_listed_images_leave_and_the_others_keep_their_sets(photos: Path, tmp_path: Path, header: str) -> None:
    before = open_data(DataSettings(data=str(photos)))
    gone = [part.ids[0] for part in before.sets.values()]
    cells = [f"1,{image}" for image in gone] if header.startswith("score") else gone
    after = open_data(DataSettings(data=str(photos), exclude=listed(tmp_path, *cells, header=header)))
    for name, part in before.sets.items():
        assert after.sets[name].ids == tuple(image for image in part.ids if image not in gone)
    assert after.notes == (f"3 of 30 images are left out, as listed in {tmp_path}/suspects.csv",)


def test_images_are_listed_by_id_or_whole_path_also_those_of_other_classes(photos: Path, tmp_path: Path) -> None:
    images = [str(photos / "red" / "000.png"), "blue/001.png"]
    settings = DataSettings(data=str(photos), exclude=listed(tmp_path, *images), classes=("red", "green"))
    after = open_data(settings)
    ids = {image for part in after.sets.values() for image in part.ids}
    assert len(ids) == 19
    assert "red/000.png" not in ids


def test_an_empty_list_leaves_nothing_out(photos: Path, tmp_path: Path) -> None:
    before = open_data(DataSettings(data=str(photos)))
    after = open_data(DataSettings(data=str(photos), exclude=listed(tmp_path)))
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["red/00.png"], r"line 2: the data have no image 'red/00.png'; did you mean 'red/00\d.png'\?"),
        (["rde/000.png"], r"line 2: the data have no image 'rde/000.png'; did you mean 'red/000.png'\?"),
        (["x.png"], r"line 2: the data have no image 'x.png'; it names images by their path below"),
        ([f"red/{number:03}.png" for number in range(10)], r"lists every training image of class 'red'"),
    ],
)
def test_faulty_lists_are_refused(photos: Path, tmp_path: Path, images: list[str], sentence: str) -> None:
    with pytest.raises(VerydeepError, match=sentence):
        open_data(DataSettings(data=str(photos), exclude=listed(tmp_path, *images)))


def test_a_missing_list_is_named(command: Command, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    words = ("train", "A", "--data", "photos", "--exclude", "no.csv", *SIZE)
    assert "no.csv is no such file" in command(*words, cwd=tmp_path).mistake()


def test_training_records_the_list_and_resuming_compares_it(command: Command, tmp_path: Path) -> None:
    """A moved list of the same images is the same; another one is not."""
    photos = make_photos(tmp_path / "photos")
    train = open_data(DataSettings(data=str(photos))).sets["train"]
    listed(tmp_path, train.ids[0])
    words = ("train", "A", "--out", "run", "--workers", 0, "--threads", 1)
    begun = command(*words, *SIZE, "--data", "photos", "--exclude", "suspects.csv", "--max-epochs", 1, cwd=tmp_path)
    assert begun.status == 0, begun.stderr
    assert "1 of 30 images are left out, as listed in " in begun.stderr
    metadata = read_metadata(tmp_path / "run" / "last.safetensors")
    assert metadata.data["exclude"] == str(tmp_path / "suspects.csv")
    (tmp_path / "suspects.csv").rename(tmp_path / "moved.csv")
    resume = (*words, "--resume", "--max-epochs", 2)
    assert "suspects.csv is no such file" in command(*resume, cwd=tmp_path).mistake()
    again = command(*resume, "--exclude", "moved.csv", cwd=tmp_path)
    assert again.status == 0, again.stderr
    (tmp_path / "moved.csv").write_text(f"{HEADER}{train.ids[1]}\n")
    sentence = command(*resume, cwd=tmp_path).mistake()
    assert "photos, without the images that --exclude lists, has changed since the run started" in sentence
