"""Tables that people hand in, as their programs write them: whatever is read is right, or the command says why not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Command, paint
from verydeep.cli.main import main
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Silent
from verydeep.core.settings import DataSettings
from verydeep.data.box_targets import located
from verydeep.data.check import check_data
from verydeep.data.open import open_data

PHOTOS = 4  # of each class


def checked(data: Path, *boxes: Path) -> dict[str, Any]:
    """What `data check --json` prints."""
    return check_data(data, boxes=tuple(map(str, boxes)))


def mistake_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command's mistake, the command run in this process."""
    assert main(list(map(str, words))) == 2
    out, told = capsys.readouterr()
    assert (out, len(told.splitlines())) == ("", 1), told
    return told


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of 48x40 pixels, called so that they can stand in a list with and without an ending."""
    place = tmp_path_factory.mktemp("tables")
    for number in range(PHOTOS):
        paint(place / f"a{number}.png", number, (200, 60, 60))
        paint(place / f"b{number}.png", 50 + number, (60, 60, 200))
    (place / "in" / "x").mkdir(parents=True)
    for number in range(PHOTOS):
        (place / "in" / "x" / f"a{number}.png").write_bytes((place / f"a{number}.png").read_bytes())
    return place


def rows(form: str, first: str = "cat", second: str = "dog") -> str:
    """A line for each photo: ``{0}`` is its path and ``{1}`` its class."""
    named = [(f"{letter}{n}.png", label) for letter, label in (("a", first), ("b", second)) for n in range(PHOTOS)]
    return "".join(form.format(path, label) + "\n" for path, label in named)


JSON = '{{"path": "{0}", "label": "{1}"}}'
# the file's name, its text, the photos of each class that it stands for, why
LISTS = [
    ("csv", rows("{0},{1}"), "without a header it is path,label"),
    ("csv", "filename,label\n" + rows("{0},{1}"), "a header is no photo and no class"),
    ("csv", "Label,File Name\n" + rows("{1},{0}"), "columns in another order, capitals and blanks"),
    ("csv", ",image_path,class,width\n" + rows("7,{0},{1},48"), "pandas writes a column without a name"),
    ("csv", "id,image,label,name\n" + rows("5,{0},{1},rex"), "an id is the image only where nothing else is"),
    ("csv", "id,breed\n" + rows("{0},{1}"), "as here"),
    ("csv", "# photos of pets, 2020\npath,label\n\n" + rows("{0},{1}"), "comments and blank lines"),
    ("csv", "# path, label\n" + rows("{0}, {1}"), "a header may begin with #"),
    ("csv", "path,label\r\n" + rows("{0},{1},,").replace("\n", "\r\n"), "Excel's line ends and empty cells"),
    ("csv", "path;label\n" + rows("{0};{1}"), "semicolons, where the comma is the decimal point"),
    ("csv", rows("{0};{1}"), "the same without a header"),
    ("tsv", "path\tlabel\n" + rows("{0}\t{1}"), "tabs"),
    ("csv", rows("{0}\t{1}"), "tabs, whatever its ending"),
    ("csv", rows('"{0}", "{1}"'), "quoted cells, a blank before the quote"),
    ("csv", "path,label\n" + rows("{0},{1}") + "label,path\ncat,a0.png\n", "two tables put behind each other"),
    ("csv", rows("{0},{1}").replace("a0.png", "in\\x\\a0.png"), "a path as Windows writes it"),
    ("csv", "path,label,phase\n" + rows("{0},{1},"), "a further column that holds nothing"),
    ("jsonl", rows(JSON), "as documented"),
    ("jsonl", rows('{{"file_name": "{0}", "category": "{1}", "width": 48}}'), "other keys, and more of them"),
    ("jsonl", rows(JSON).replace("\n", "\n\n").replace("\n", "\r\n"), "blank lines"),
    ("jsonl", rows('{{"path": "{0}", "label": "{1}", "split": "train"}}'), "all of one set are split here"),
]


@pytest.mark.parametrize(("kind", "text", "reason"), LISTS, ids=[row[-1] for row in LISTS])
def test_lists_are_read_by_the_names_of_their_columns(kind: str, text: str, reason: str, pictures: Path) -> None:
    path = pictures / f"list.{kind}"
    path.write_text(text, encoding="utf8", newline="")
    told = checked(path)
    assert (told["classes"], told["faults"]) == (["cat", "dog"], []), reason
    assert {name: part["photos"] for name, part in told["sets"].items()} == {"train": 4, "dev": 2, "test": 2}, reason


def test_an_image_named_like_a_column_is_an_image(tmp_path: Path) -> None:
    for number, name in enumerate(("image", "path", "#1.png", "label", "one.png", "two.png")):
        paint(tmp_path / "paint.png", number, (10, 90, 30 * number))
        (tmp_path / "paint.png").rename(tmp_path / name)
    (tmp_path / "list.csv").write_text("image,cat\npath,cat\n#1.png,cat\nlabel,class\none.png,class\ntwo.png,class\n")
    told = checked(tmp_path / "list.csv")
    assert (told["classes"], told["faults"]) == (["cat", "class"], [])
    assert sum(part["photos"] for part in told["sets"].values()) == 6


SETS = [
    ("csv", "path,set,label\n" + rows("{0},SET,{1}"), "wherever it stands"),
    ("csv", "image,class,Subset\n" + rows("{0},{1},SET"), "a column of nothing but sets' names is the set"),
    ("csv", "image,class,split,fold\n" + rows("{0},{1},SET,3"), "folds are none"),
    ("jsonl", rows('{{"image": "{0}", "class": "{1}", "split": "SET"}}'), "in JSON too"),
]


@pytest.mark.parametrize(("kind", "text", "reason"), SETS, ids=[row[-1] for row in SETS])
@pytest.mark.parametrize("words", [("train", "val"), ("Train", "validation")])
def test_a_list_may_name_each_photos_set(
    kind: str, text: str, reason: str, words: tuple[str, str], pictures: Path
) -> None:
    path = pictures / f"sets.{kind}"
    path.write_text("".join(f"{line.replace('SET', words['2.png' in line])}\n" for line in text.splitlines()))
    told = checked(path)
    assert {name: part["photos"] for name, part in told["sets"].items()} == {"train": 4, "dev": 2, "val": 2}, reason


ACCEPTED = r"accepted are path or image or filename or file; label or class or category or classname"
# what the file holds, what the command says of it
FAULTY = [
    ("list.csv", "bild,klasse\n" + rows("{0},{1}"), rf"line 1: no column of 'bild,klasse' is the image; {ACCEPTED}"),
    ("list.csv", "filename,rex\n" + rows("{0},{1}"), rf"line 1: no column of 'filename,rex' is the class; {ACCEPTED}"),
    (
        "list.csv",
        rows("{1},{0}"),
        r"line 1: the image 'cat' and the class 'a0.png' may be swapped: write "
        "them as path,label",
    ),
    ("list.csv", "path\n" + rows("{0}"), r"line 1: no column of 'path' is the class"),
    ("list.csv", "bild;klasse\n" + rows("{0};{1}"), r"line 1: no column of 'bild,klasse' is the image"),
    (
        "list.csv",
        "path,label,class\n" + rows("{0},{1},x"),
        rf"each of 'label', 'class' may be the class: keep one; {ACCEPTED}",
    ),
    ("list.csv", "path,path,label\n" + rows("{0},{0},{1}"), r"each of 'path', 'path' may be the image: keep one"),
    (
        "list.csv",
        "path,label,a,b\n" + rows("{0},{1},train,train") + "x,y,val,val\n",
        r"each of the columns a, b may be .* sets",
    ),
    ("list.csv", "path,label\n" + rows("{0},{1}, fluffy"), r"line 2: expected 2 cells, as in the header, got 3"),
    ("list.csv", "\n# x\npath,label\n" + rows("{0},{1}") + "x.png,\n", r"line 12: the class is \"\": use a name"),
    ("list.csv", rows('"{0},{1}'), r"line \d+: expected path,label"),
    (
        "list.jsonl",
        rows('{{"file": "{0}", "kind": "{1}"}}'),
        rf"line 1: no column of 'file,kind' is the class; {ACCEPTED}",
    ),
    ("list.jsonl", rows(JSON) + '["a0.png", "cat"]\n', r"line 9: expected \{\"path\""),
    *(
        (
            "list.jsonl",
            rows(JSON) + f'{{"path": "x.png", "label": {label}}}\n',
            rf"line 9: the class is {shown}: use a name",
        )
        for label, shown in [
            *[("null", "null"), ("NaN", "NaN"), ('""', '""'), ('"  "', '"  "'), ("true", "true"), ("[]", r"\[\]")],
            *[('["cat"]', r'\["cat"\]'), ("{}", r"\{\}"), ("-Infinity", "-Infinity"), ("1e999", "Infinity")],
        ]
    ),
    ("list.jsonl", rows(JSON) + '{"path": null, "label": "cat"}\n', r"line 9: the image is null"),
    ("list.jsonl", rows(JSON) + '{"label": "cat"}\n', r"line 9: no column of 'label' is the image"),
]


@pytest.mark.parametrize(("name", "text", "says"), FAULTY)
def test_errors_of_lists_give_the_line_and_the_accepted_names(
    name: str, text: str, says: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / name).write_text(text)
    mistake = mistake_of(capsys, "data", "check", pictures / name)
    assert re.search(says, mistake), mistake


def test_whole_numbers_are_classes(pictures: Path) -> None:
    (pictures / "list.jsonl").write_text(rows('{{"path": "{0}", "label": {1}}}', "0", "1"))
    assert checked(pictures / "list.jsonl")["classes"] == ["0", "1"]


LINE_PARTS = "caf\u00e9\u2028\u0085\x0b\x0cx"  # separators that are not ends of lines


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_only_line_ends_separate_lines(kind: str, pictures: Path) -> None:
    text = rows(
        "{0},{1}" if kind == "csv" else JSON, LINE_PARTS.replace("\x0b\x0c", "") if kind == "jsonl" else LINE_PARTS
    )
    (pictures / f"list.{kind}").write_text("\ufeff" + text, encoding="utf8", newline="")
    classes = checked(pictures / f"list.{kind}")["classes"]
    assert classes[0].replace("\x0b\x0c", "") == LINE_PARTS.replace("\x0b\x0c", "")
    assert classes[1] == "dog"


# how a file is written, what it looks like
ENCODINGS = [
    *[("latin1", "latin1"), ("cp1252", "CP1252"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE")],
    *[("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32"), ("utf-32-le", "UTF-32LE"), ("utf-32-be", "UTF-32BE")],
]


@pytest.mark.parametrize(("encoding", "name"), ENCODINGS)
@pytest.mark.parametrize("kind", ["list.csv", "list.tsv", "list.jsonl", "boxes.csv", "coco.json"])
def test_another_encoding_is_named_with_the_way_to_convert_it(
    encoding: str, name: str, kind: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = rows("{0},{1}", "caf\u00e9" if name != "CP1252" else "caf\u00e9 \u2019n\u2019 \u20ac")
    (pictures / kind).write_bytes(text.encode(encoding))
    data = [pictures, "--boxes", pictures / kind] if kind in ("boxes.csv", "coco.json") else [pictures / kind]
    mistake = mistake_of(capsys, "data", "check", *data)
    assert f"looks like {name}" in mistake
    if encoding != "utf-16":  # whose order of bytes Python chooses
        assert f"iconv -f {name} -t UTF-8 {kind} > " in mistake


DAMAGED = [
    (rows("{0},{1}", "caf\u00e9").encode() + b"x.png,\xe9\n", r"line 9: byte 0xe9 is not UTF-8 text"),
    (rows("{0},{1}").encode() + b"x.png,\0\n", r"line 9: byte 0x00 is not UTF-8 text"),
    (bytes(range(256)) * 9, r"line 2: byte 0x80 is not UTF-8"),
]


@pytest.mark.parametrize(("data", "says"), DAMAGED)
def test_a_damaged_file_is_not_taken_for_another_encoding(
    data: bytes, says: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "list.csv").write_bytes(data)
    assert re.search(says, mistake_of(capsys, "data", "check", pictures / "list.csv"))


# the header and a row in its order, what the first box is as read, why; each box is 11 to 30 across and 6 to 25 down
BOX = ("a0.png", "cat", 11, 6, 30, 25)
BOX_TABLES = [
    ("", "{p},11,6,30,25,{c}", BOX, "without a header in the documented order"),
    ("image,xmin,ymin,xmax,ymax,class", "{p},11,6,30,25,{c}", BOX, "with the documented one"),
    ("class,image,xmin,ymin,xmax,ymax", "{c},{p},11,6,30,25", BOX, "in another order"),
    ("image,ymin,xmin,ymax,xmax,class", "{p},6,11,25,30,{c}", BOX, "y before x"),
    ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax", "{p},v,{c},1,11,30,6,25", BOX, "Open Images'"),
    ("filename,width,height,class,xmin,ymin,xmax,ymax", "{p},48,40,{c},11,6,30,25", BOX, "TensorFlow's"),
    (
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "{p},96,80,{c},21,11,60,50",
        ("a0.png", "cat", 21, 11, 60, 50),
        "of",
    ),
    ("image,xmin,ymin,xmax,ymax,width,height,class", "{p},11,6,30,25,19,19,{c}", BOX, "the box's sides: no photo's"),
    ("image,x,y,width,height,class", "{p},10,5,20,20,{c}", ("a0.png", "cat", 10, 5, 30, 25), "sides"),
    ("image,width,height,x,y,label", "{p},20,20,10,5,{c}", ("a0.png", "cat", 10, 5, 30, 25), "sides first"),
    ("image;x;y;w;h;label", "{p};10,0;5,0;20,00;+20;{c}", ("a0.png", "cat", 10, 5, 30, 25), "decimal commas"),
    ("img_path,bbox_x1,bbox_y1,bbox_x2,bbox_y2,label_name", "{p},11,6,30,25,{c}", BOX, "prefixes"),
    ("image,left,top,right,bottom,class,iscrowd", "{p}, 1.1e1 , 6 ,30.0,+25,{c},0", BOX, "numbers of all kinds"),
    ("image,x_center,y_center,width,height,class", "{p},20,15,20,20,{c}", ("a0.png", "cat", 10, 5, 30, 25), "centres"),
    (
        "image,x,y,w,h,image_width,image_height,class",
        "{p},20,10,40,40,96,80,{c}",
        ("a0.png", "cat", 20, 10, 60, 50),
        "both",
    ),
]


@pytest.mark.parametrize(("header", "row", "first", "reason"), BOX_TABLES, ids=[row[-1] for row in BOX_TABLES])
def test_boxes_are_read_by_the_names_of_their_columns(
    header: str, row: str, first: tuple[object, ...], reason: str, pictures: Path
) -> None:
    lines = [
        row.format(p=f"{letter}{n}.png", c=label)
        for letter, label in (("a", "cat"), ("b", "dog"))
        for n in range(PHOTOS)
    ]
    (pictures / "boxes.csv").write_text("\n".join([header, "# by hand", *lines]))
    told = checked(pictures, pictures / "boxes.csv")
    names = ("image", "class", "xmin", "ymin", "xmax", "ymax")
    assert [tuple(box[name] for name in names) for box in told["boxes"]][:1] == [first], reason
    assert (len(told["boxes"]), told["classes"]) == (3, ["cat", "dog"])
    data = open_data(DataSettings(str(pictures), boxes=(str(pictures / "boxes.csv"),)))
    boxes = located(data.set("train"), False, Silent()).dataset.boxes
    assert boxes is not None
    assert all(box.tolist() == [[10, 5, 30, 25]] for box in boxes), reason


def test_paths_in_box_files_may_be_windows_and_names_may_hold_backslashes(tmp_path: Path) -> None:
    names = ("in/a.png", "in/x\\y.png", "in/b.png")
    for number, name in enumerate(names):
        paint(tmp_path / "paint.png", number, (10, 90, 30 * number))
        (tmp_path / "photos" / "in").mkdir(parents=True, exist_ok=True)
        (tmp_path / "paint.png").rename(tmp_path / "photos" / name)
    (tmp_path / "boxes.csv").write_text("in\\a.png,1,1,9,9,cat\nin/x\\y.png,1,1,9,9,cat\n.\\in\\b.png,1,1,9,9,dog\n")
    data = open_data(DataSettings(str(tmp_path / "photos"), boxes=(str(tmp_path / "boxes.csv"),)), empty_sets=True)
    assert data.set("all").ids == tuple(sorted(names))


def work(path: Path, count: int, classes: int) -> int:
    """How many functions, Python's and C's, are called to open a list of so many photos."""
    lines = [f"{number}.png,class {number % classes},{number % 7},x" for number in range(count)]
    path.write_text("\n".join(["path,label,fold,note", *lines]))
    calls = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        open_data(DataSettings(str(path)))
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_of_opening_a_list_grows_with_its_photos_alone(tmp_path: Path) -> None:
    few, twice, more_classes = (work(tmp_path / "x.csv", *of) for of in ((600, 20), (1200, 20), (600, 200)))
    assert twice < 2.1 * few
    assert more_classes < 1.5 * few


SWAPPED = "30,25,11,6"
BOX_FAULTS = [
    (
        "image,a,b,c,d,class",
        ["{p},1,2,3,4,cat"],
        r"line 1: no column of .* is the box; accepted are .*xmin,ymin,xmax,ymax or ",
    ),
    ("image,x,y,width,height", ["{p},1,2,3,4"], r"line 1: no column of .* is the class"),
    (
        "image,xmin,ymin,xmax,ymax,x1,y1,x2,y2,class",
        ["{p},1,2,3,4,1,2,3,4,cat"],
        r"each of .* may be the box: keep one",
    ),
    ("image,x,y,w,h,width,height,class", ["{p},1,2,3,4,1,2,cat"], r"each of .* may be the box: keep one"),
    ("image,x,y,width,height,width,height,class", ["{p},1,2,3,4,1,2,cat"], r"each of .* may be the box: keep one"),
    ("image,xmin,ymin,xmax,ymax,class", ["{p},1,2,x,4,cat"], r"line 2: .* with the box in numbers, got 'x'"),
    ("image,xmin,ymin,xmax,ymax,class", ["{p},1,,9,9,cat"], r"line 2: .* with the box in numbers, got ''"),
    ("image,xmin,ymin,xmax,ymax,class", ['{p},1,2,"1,234",4,cat'], r"line 2: .* got '1,234'"),
    ("image,xmin,ymin,xmax,ymax,class", ["{p},1,2,3,1e9,cat"], r"line 2: 1e\+09 is outside any image"),
    ("image,xmin,ymin,xmax,ymax,class", ["{p},.1,.2,.3,.4,cat", "{p},0,0,1,1,cat"], r"has normalised boxes"),
    ("ImageID,LabelName,XMin,XMax,YMin,YMax", ["{p},cat,0.1,0.9,0.1,0.8"], r"has normalised boxes"),
    ("", ["{p},11,6,30,25,cat"] * 3 + ["{p}," + SWAPPED + ",cat"], r"1 of 4 boxes have swapped corners, so the col"),
    ("", ["{p},10,5,9,9,cat"], r"1 of 1 boxes have swapped corners"),
]


@pytest.mark.parametrize(("header", "lines", "says"), BOX_FAULTS)
def test_boxes_that_may_be_something_else_are_refused(
    header: str, lines: list[str], says: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = [line.format(p=f"a{number % PHOTOS}.png") for number, line in enumerate(lines)]
    (pictures / "boxes.csv").write_text("\n".join([header, *text] if header else text))
    told = mistake_of(capsys, "data", "check", pictures, "--boxes", pictures / "boxes.csv")
    assert re.search(says, told), told


@pytest.mark.parametrize("form", ["xmin,ymin,xmax,ymax", "x,y,width,height"])
def test_a_fifth_of_swapped_boxes_is_corrected_and_counted(form: str, pictures: Path, command: Command) -> None:
    """By their names the columns are known, so it is the box that is wrong."""
    good, bad = ("11,6,30,25", SWAPPED) if "xmax" in form else ("10,5,20,20", "30,25,-20,-20")
    lines = [
        f"{letter}{n}.png,{bad if n == 3 and letter == 'a' else good},{letter}" for letter in "ab" for n in range(4)
    ]
    (pictures / "boxes.csv").write_text("\n".join([f"image,{form},class", *lines[:5]]))
    found = command("data", "check", pictures, "--boxes", pictures / "boxes.csv")
    assert found.status == 2
    assert re.search(r"^boxes: .*1 times: box with swapped corners, corrected", found.stdout, re.MULTILINE)
    assert "as read: a0.png, a, xmin 1" in found.stdout
    data = open_data(DataSettings(str(pictures), boxes=(str(pictures / "boxes.csv"),)))
    with pytest.raises(VerydeepError, match=r"1 times: box with swapped corners, corrected; .*a3\.png"):
        located(data.set("all"), True, Silent())


def test_the_command_reports_it_and_leaves_no_files(pictures: Path, command: Command) -> None:
    (pictures / "list.csv").write_text("filename,label\n" + rows("{0},{1}"))
    told = command("data", "check", "list.csv", "--json", cwd=pictures)
    assert (told.status, json.loads(told.stdout)["classes"], json.loads(told.stdout)["boxes"]) == (
        0,
        ["cat", "dog"],
        [],
    )
    for text, says in (
        ("bild,klasse\n", "no column of 'bild,klasse' is the image"),
        ("x.png,\xff\n", "looks like latin1"),
    ):
        (pictures / "list.csv").write_bytes((text + rows("{0},{1}")).encode("latin1"))
        words = ["train", "A", "--data", "list.csv", "--bad-images", "skip", "--start", "none", "--out", "run"]
        assert says in command(*words, cwd=pictures).mistake()
    (pictures / "list.jsonl").write_text(rows('{{"path": "{0}", "label": null}}'))
    words[3] = "list.jsonl"
    assert "list.jsonl, line 1: the class is null" in command(*words, cwd=pictures).mistake()
    assert not (pictures / "run").exists()
