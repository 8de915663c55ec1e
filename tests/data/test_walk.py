"""What lies in folders of photos besides photos: skipped and counted, named, or an error; alike everywhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import COLOURS, PYTHON, Command, make_imagenet, make_photos, own_photos, paint
from verydeep.core.settings import DataSettings
from verydeep.data.image_formats import FORMATS, READ, format_by_content, kind_of_file
from verydeep.data.image_io import decode, image_size
from verydeep.data.open import open_data

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"  # the beginning of an iPhone's photo
# What root may do and others may not, so that a folder nobody may read is one for root too.
WITHOUT_POWER = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def put(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def without_power(*words: object) -> subprocess.CompletedProcess[str]:
    """A command for which rights of folders count."""
    if WITHOUT_POWER and not shutil.which(WITHOUT_POWER[0]):
        pytest.skip("root reads every folder here")
    typed = [*WITHOUT_POWER, *map(str, words)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=300, check=False)


def litter(photos: Path) -> dict[str, int]:
    """Fills a folder of classes with what is no photo of them; how many of each kind."""
    for name in (".ipynb_checkpoints", "@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"):
        paint(photos / name / "1.png", 1, (9, 9, 9))  # beside the classes: six classes more, if they were read
    paint(photos / "red" / "@eaDir" / "000.png" / "SYNOPHOTO_THUMB_M.png", 2, (9, 9, 9))  # a thumbnail of a NAS
    paint(photos / "red" / ".ipynb_checkpoints" / "000-checkpoint.png", 3, (9, 9, 9))
    paint(photos / "red" / "deeper" / ".Trashes" / "1.png", 4, (9, 9, 9))
    put(photos / "red" / "._000.png")  # macOS's other half of a file
    for name in ("Thumbs.db", "green/thumbs.db", "green/Desktop.ini", "green/ehthumbs.db"):
        put(photos / name)
    (photos / "red" / "all").symlink_to("..")
    for name in ("notes.txt", "red/IMG_1.MOV", "red/IMG_2.mov", "red/photo"):
        put(photos / name)
    paint(photos / "loose.png", 5, (9, 9, 9))
    return {
        **{"hidden": 4, "system": 10, "links to folders": 1, ".txt": 1, ".mov": 2, "no extension": 1},
        "images outside the class folders": 1,
    }


def test_hidden_and_system_files_are_skipped_and_counted(command: Command, photos: Path) -> None:
    counts = litter(photos)
    answer = command("data", "check", photos, "--json")
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert {kind: told["count"] for kind, told in found["skipped"].items()} == counts
    assert found["ignored"] == sum(counts.values())
    assert (found["classes"], found["unread"]) == (sorted(COLOURS), [])
    assert sum(part["photos"] for part in found["sets"].values()) == 30
    shown = command("data", "check", photos).stdout
    assert "10 system (#recycle, …)" in shown
    assert "1 images outside the class folders (loose.png)" in shown
    assert "2 .mov (red/IMG_1.MOV, …)" in shown


FORMATS_THAT_ARE_NOT_READ = [
    ("a.heic", HEIC, "HEIC"),
    ("b.HEIF", HEIC.replace(b"heic", b"mif1", 1), "HEIC"),
    ("c.HIF", b"", "HEIC"),  # by its extension, where its content says nothing
    ("a.CR2", b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
    ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
    ("a.nef", b"MM\0*\0\0\0\x08", "camera raw"),  # a TIFF by its content, of which only a thumbnail would be read
    ("a.dng", b"II*\0\x08\0\0\0", "camera raw"),
    ("a.psd", b"8BPS\0\1", "Photoshop"),
    ("a.svg", b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG"),
    ("a.jxl", b"\xff\x0a\0", "JPEG XL"),
    ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ("b.heic", b"\xff\x0a\0", "JPEG XL"),  # content decides
]


def test_unsupported_formats_are_named_and_fail_the_check(command: Command, photos: Path) -> None:
    """Beside them files whose extension is of another format than they are: content decides."""
    counts: dict[str, int] = {}
    for name, content, kind in FORMATS_THAT_ARE_NOT_READ:
        put(photos / "red" / name, content)
        counts[kind] = counts.get(kind, 0) + 1
    paint(photos / "red" / "x.png", 7, (9, 9, 9))
    (photos / "red" / "x.png").rename(photos / "red" / "really.heic")
    put(photos / "blue" / "lie.jpg", HEIC)
    answer = command("data", "check", photos, "--json")
    assert answer.status == 2
    found = json.loads(answer.stdout)
    assert {kind: told["count"] for kind, told in found["skipped"].items()} == counts
    assert len(found["unread"]) == len(counts)
    heic = next(sentence for sentence in found["unread"] if " HEIC " in sentence)
    assert heic.startswith(
        f"3 HEIC images are not supported (the first: {photos / 'red' / 'a.heic'}): install pillow-heif"
    )
    assert sum(part["photos"] for part in found["sets"].values()) == 32
    assert [Path(fault["photo"]).name for fault in found["faults"]] == ["lie.jpg"]
    assert "unsupported format (HEIC): install pillow-heif, or convert it" in found["faults"][0]["fault"]
    assert "1 SVG image is not supported (" in command("data", "check", photos).stdout


def test_a_class_of_heic_alone_is_refused_with_the_reason(command: Command, photos: Path) -> None:
    for number in range(3):
        put(photos / "iphone" / f"{number}.HEIC", HEIC)
    told = command("data", "check", photos).mistake()
    assert "class 'iphone' in" in told
    assert "no supported images: 3 HEIC images are not supported" in told


def test_commands_warn_about_unsupported_images(command: Command, trained: Path, tmp_path: Path) -> None:
    """None of them failed before, and what they read is right: they go on."""
    photos = make_photos(tmp_path / "photos", 6)
    litter(photos)
    put(photos / "red" / "a.heic", HEIC)
    small = ("--crop", 32, "--width", 0.03125, "--S", 36, "--workers", 0, "--start", "none")
    for words in (
        ("train", "A", "--data", photos, "--out", "run", "--max-steps", 1, *small),
        ("evaluate", trained, "centre@36", "--data", photos, "--out", "found"),
        ("features", trained, "--data", photos, "--out", "f.safetensors", "--scales", 36, "--layer", "pool5"),
        ("data", "pack", photos, "pack", "--size", 36),
    ):
        answer = command(*words, cwd=tmp_path)
        assert answer.status == 0, answer.stderr
        assert "warning: 1 HEIC image is not supported" in answer.stderr, words
    checked = command("data", "check", tmp_path / "pack", "--json")
    assert json.loads(checked.stdout)["ignored"] == 21
    assert checked.status == 0


def test_predict_reads_a_folder_as_training_does(command: Command, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    for place in ("b.png", "deep/a.PNG"):
        paint(folder / place, 1, (200, 50, 50))
    for place in (".thumbs/1.png", "@eaDir/b.png/SYNO.png", "deep/__MACOSX/a.png", "deep/._a.png"):
        paint(folder / place, 1, (200, 50, 50))
    answer = command("predict", trained, "holiday", "holiday/**/*.png", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    assert [row["image"] for row in json.loads(answer.stdout)] == ["holiday/b.png", "holiday/deep/a.PNG"]
    (folder / "deep" / "round").symlink_to("..")
    put(folder / "c.heic", HEIC)
    answer = command("predict", trained, "holiday", "--json", cwd=tmp_path)
    assert answer.status != 0
    assert "1 HEIC image is not supported (holiday/c.heic)" in answer.stderr
    assert "holiday: skipped 2 hidden, 2 system, 1 links to folders" in answer.stderr
    assert len(json.loads(answer.stdout)) == 2
    inside = command("predict", trained, "holiday/@eaDir", "--json", cwd=tmp_path)  # what is named is read
    assert len(json.loads(inside.stdout)) == 1


def test_an_unreadable_folder_loses_no_other_prediction(trained: Path, tmp_path: Path) -> None:
    paint(tmp_path / "holiday" / "a.png", 1, (200, 50, 50))
    paint(tmp_path / "holiday" / "secret" / "b.png", 1, (200, 50, 50))
    (tmp_path / "holiday" / "secret").chmod(0)
    ended = without_power(*PYTHON, "-m", "verydeep", "predict", trained, tmp_path / "holiday", "--json")
    assert ended.returncode != 0
    assert f"cannot read the folder {tmp_path / 'holiday' / 'secret'}: Permission denied" in ended.stderr
    assert [Path(row["image"]).name for row in json.loads(ended.stdout)] == ["a.png"]


XML = b"""<annotation><object><name>disc</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
</object></annotation>"""
UNREADABLE = [
    "classes:.",
    "classes:red",
    "classes:red/deep",
    "boxes:photos/deep",
    "boxes:xml/deep",
    "imagenet:test",
    "tar:.",
]
OPEN = """
import sys
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data
from verydeep.core.errors import VerydeepError
for given in sys.argv[1:]:
    data, _, boxes = given.partition("|")
    try:
        open_data(DataSettings(data=data, boxes=(boxes,) if boxes else ()))
        print("opened")
    except VerydeepError as fault:
        print(fault)
"""


def test_an_unreadable_folder_is_an_error_for_every_kind_of_data(tmp_path: Path) -> None:
    """Of each kind: with its folders readable it opens, without it does not."""
    asked, closed = [], []
    for number, case in enumerate(UNREADABLE):
        kind, _, place = case.partition(":")
        root = tmp_path / str(number)
        if kind == "classes":
            make_photos(root, 4)
            paint(root / "red" / "deep" / "1.png", 1, (9, 9, 9))
            asked.append(str(root))
        elif kind == "boxes":
            own_photos(root)
            paint(root / "photos" / "deep" / "99.png", 1, (9, 9, 9))
            for photo in range(12):
                deep = "deep" if photo % 2 else "."
                put(root / "xml" / deep / f"{photo:02d}.xml", XML)
                put(root / "xml" / f"._{photo:02d}.xml")  # hidden, and no annotation
            asked.append(f"{root / 'photos'}|{root / ('xml' if place.startswith('xml') else 'boxes.csv')}")
        elif kind == "imagenet":
            make_imagenet(root)
            paint(root / "test" / "ILSVRC2012_test_00000001.png", 1, (9, 9, 9))
            asked.append(f"imagenet:{root}")
        else:
            tar_of_photos(root / "000.tar", {})
            asked.append(f"webdataset:{root}")
        closed.append(root / place)
    expected = ["only one class" if "xml" in given else "opened" for given in asked]
    told = without_power(sys.executable, "-c", OPEN, *asked).stdout.splitlines()
    assert all(want in line for want, line in zip(expected, told, strict=True)), told
    for folder in closed:
        folder.chmod(0)
    ended = without_power(sys.executable, "-c", OPEN, *asked)
    for folder in closed:
        folder.chmod(0o700)
    assert not ended.stderr
    for folder, line in zip(closed, ended.stdout.splitlines(), strict=True):
        assert line.startswith(f"cannot read the folder {folder}: Permission denied"), line


def tar_of_photos(path: Path, more: dict[str, bytes]) -> None:
    """Six photos of two classes, and other members."""
    members = dict(more)
    for number in range(12):
        file = io.BytesIO()
        Image.new("RGB", (40, 36), (20 * number, 0, 0)).save(file, "PNG")
        members |= {f"{number}.png": file.getvalue(), f"{number}.cls": str(number % 2).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))


def test_tar_files_skip_the_same_files_as_folders(command: Command, tmp_path: Path) -> None:
    more = {"__MACOSX/x.png": b"x", "a/._b.png": b"x", "c.heic": HEIC, "c.json": b"{}", "@eaDir/y.png": b"x"}
    tar_of_photos(tmp_path / "000.tar", more)
    put(tmp_path / "._000.tar")
    answer = command("data", "check", f"webdataset:{tmp_path}", "--json")
    assert answer.status == 2
    found = json.loads(answer.stdout)
    told = {kind: told["count"] for kind, told in found["skipped"].items()}
    assert told == {"system": 2, "hidden": 2, "HEIC": 1, ".json": 1}
    assert found["faults"] == []


def test_hidden_annotations_are_not_read(tmp_path: Path) -> None:
    """The other halves that macOS leaves of XML files were broken annotations before."""
    from verydeep.data.annotations import read_boxes

    for place in ("1.xml", "deep/2.XML", ".hidden/3.xml", "@eaDir/4.xml"):
        put(tmp_path / place, XML)
    put(tmp_path / "._1.xml")
    found, broken, _ = read_boxes(tmp_path)
    assert (sorted(found), broken) == (["1", "deep/2"], [])


def test_imagenets_flat_validation_folder_may_hold_a_hidden_folder(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    put(tmp_path / "val" / "._ILSVRC2012_val_00000001.png")
    assert len(open_data(DataSettings(data=f"imagenet:{tmp_path}")).sets["val"]) == 4


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow was built without AVIF")
def test_avif_is_read_turned_as_its_exif_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 250
    Image.fromarray(pixels).save(tmp_path / "a.AVIF", "AVIF", exif=turned)
    assert kind_of_file(tmp_path / "a.AVIF") == READ
    found = decode((tmp_path / "a.AVIF").read_bytes())
    assert (found.shape, image_size(tmp_path / "a.AVIF")) == ((60, 40, 3), (60, 40))
    assert found[:25].min() > 200  # the left half is on top now
    assert found[35:].max() < 50


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),  # a brand that HEIC and AVIF share
        (b"\0\0\0\x1cftypmsf1\0\0\0\0msf1hevcmiaf", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", None),  # a film
        (b"\0\0\0\x10ftyp", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"<html><body><svg></svg>", "SVG"),
        (b"the word <svg in a text", None),
        (b"", None),
    ],
)
def test_formats_by_content(head: bytes, kind: str | None) -> None:
    assert format_by_content(head) == kind


# What pillow-heif does to Pillow, of files that hold a PNG behind HEIC's beginning.
STAND_IN = f"""
import io
from PIL import Image, ImageFile, PngImagePlugin

def opened(file, name=None):
    return PngImagePlugin.PngImageFile(io.BytesIO(file.read()[{len(HEIC)}:]))

def register_heif_opener():
    Image.register_open("HEIF", opened, lambda head: head[8:12] == b"heic")
"""
TRY = """
import sys
from verydeep.core.errors import ImageError
from verydeep.data.image_io import declared_pixels, decode
data = open(sys.argv[1], "rb").read()
print(decode(data).shape, declared_pixels(data), declared_pixels(data, heic=False))
try:
    decode(data, "the photo", heic=False)
except ImageError as fault:
    print(fault)
"""


def test_heic_is_read_with_pillow_heif_and_served_only_on_request(
    command: Command, photos: Path, tmp_path: Path
) -> None:
    put(tmp_path / "site" / "pillow_heif.py", STAND_IN.encode())
    put(photos / "red" / "x.heic", HEIC + (photos / "red" / "000.png").read_bytes())
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    answer = command("data", "check", photos, "--json", PYTHONPATH=path)
    assert answer.status == 0, answer.stderr
    assert sum(part["photos"] for part in json.loads(answer.stdout)["sets"].values()) == 31
    tried = subprocess.run(
        [sys.executable, "-c", TRY, str(photos / "red" / "x.heic")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert tried.stdout.splitlines() == [
        "(40, 48, 3) 1920 0",
        "the photo is in an unsupported format (HEIC): convert it to JPEG or PNG.",
    ], tried.stderr


def test_serving_heic_without_its_library_is_refused(command: Command, tmp_path: Path) -> None:
    told = command("serve", tmp_path / "none", "--heic", "yes", "--port", 0).mistake()
    assert told == "--heic needs pillow-heif: pip install pillow-heif, or leave it out."
