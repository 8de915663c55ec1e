"""R7: folders as people have them: odd names, empty or hidden places, links in circles, one photo a class."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from harness import Outcome, command, each, environment, words
from PIL import Image

PAIR = ("cat", "dog")
A_CLASS = 4  # photos
# What root lets go, so that a folder nobody may read is one for root too.
WITHOUT_POWER = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@dataclass(frozen=True)
class Case:
    """A folder that ``make`` fills, and what `data check` has to tell of it.

    ``classes`` are those it has, in order, where it can be opened at all; ``ignored`` and ``duplicates`` how many it
    counts; ``says`` what has to stand in the one sentence, or of a photo that is listed as unreadable. ``data`` is what
    is asked about, below the folder, and ``typed`` what else is typed.
    """

    make: Callable[[Path], object]
    classes: tuple[str, ...] = ()
    says: str = ""
    ignored: int = 0
    duplicates: int = 0
    data: str = ""
    typed: tuple[str, ...] = ()
    without_power: bool = False


def paint(path: Path, seed: int) -> None:
    """A photo of noise."""
    pixels = np.random.default_rng([7, seed]).integers(0, 256, (36, 40, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def classes(
    top: Path, names: tuple[str, ...] = PAIR, photos: int = A_CLASS, first: int = 0, ending: str = ".png"
) -> None:
    """A folder a class, each photo another picture."""
    for number, name in enumerate(names):
        for photo in range(photos):
            paint(top / name / f"{photo}{ending}", first + 100 * number + photo)


def empty_class(top: Path) -> None:
    classes(top)
    (top / "empty").mkdir()


def hidden(top: Path) -> None:
    classes(top)
    paint(top / ".ipynb_checkpoints" / "0.png", 900)
    paint(top / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png", 901)
    paint(top / "dog" / "._0.png", 902)


def nas(top: Path) -> None:
    classes(top)
    paint(top / "@eaDir" / "cat" / "SYNOPHOTO_THUMB_M.jpg", 910)
    paint(top / "cat" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg", 911)


def usual_names(top: Path) -> None:
    classes(top / "Training")
    classes(top / "Testing", first=400)


def git(top: Path) -> None:
    classes(top)
    (top / ".git" / "objects").mkdir(parents=True)
    (top / ".git" / "HEAD").write_text("ref: refs/heads/main\n")


def stray(top: Path) -> None:
    classes(top)
    for place in ("cat/Thumbs.db", "cat/.DS_Store", "dog/README.txt", "desktop.ini", ".DS_Store"):
        (top / place).write_bytes(b"no photo")


def no_ending(top: Path) -> None:
    classes(top)
    paint(top / "cat" / "photo", 903)


def link_upwards(top: Path) -> None:
    """Followed, it would never end, or give photos of one class to another."""
    classes(top)
    (top / "cat" / "all").symlink_to("..")


def link_to_itself(top: Path) -> None:
    classes(top)
    (top / "loop").symlink_to("loop")


def link_to_a_class(top: Path) -> None:
    classes(top)
    (top / "hound").symlink_to("dog")


def dangling(top: Path) -> None:
    classes(top)
    (top / "cat" / "gone.png").symlink_to("/nowhere/gone.png")


def not_utf8(top: Path) -> None:
    classes(top, (os.fsdecode(b"caf\xe9"), "dog"))
    paint(top / "dog" / os.fsdecode(b"\xff\xfe.png"), 904)


def long_names(top: Path) -> None:
    classes(top, ("a" * 255, "dog"))
    paint(top / "dog" / ("b" * 251 + ".png"), 905)


def loose_photos(top: Path) -> None:
    for photo in range(A_CLASS):
        paint(top / f"{photo}.png", photo)


def both_sets(top: Path) -> None:
    """One photo of each class is in train and in val."""
    classes(top / "train")
    classes(top / "val", first=400)
    for name in PAIR:
        shutil.copy(top / "train" / name / "0.png", top / "val" / name / "copy.png")


def sets(top: Path, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    classes(top / "train", train)
    classes(top / "val", val, first=400)


def nested(top: Path) -> None:
    classes(top)
    paint(top / "cat" / "indoors" / "2024" / "sofa.png", 906)


def forbidden(top: Path, place: str) -> None:
    classes(top)
    paint(top / "cat" / "inner" / "0.png", 907)
    (top / place).chmod(0)


def a_file_for_a_class(top: Path) -> None:
    classes(top)
    (top / "bird").write_bytes(b"a file")


def pipe(top: Path) -> None:
    classes(top)
    os.mkfifo(top / "cat" / "pipe.png")


def listed(top: Path, more: str) -> None:
    classes(top)
    rows = [f"{name}/{photo}.png,{name}" for name in PAIR for photo in range(A_CLASS)]
    (top / "list.csv").write_text("\n".join([*rows, more]) + "\n")


def listed_in_sets(top: Path) -> None:
    classes(top)
    rows = [f"{name}/{photo}.png,{name},{'train' if photo else 'val'}" for name in PAIR for photo in range(A_CLASS)]
    paint(top / "x.png", 908)
    (top / "list.csv").write_text("\n".join([*rows, "x.png,bird,val"]) + "\n")


FORMS = ("a b", unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"), " c")
CASES = (
    Case(partial(forbidden, place="cat"), says=r"cannot read the folder .*cat: Permission denied", without_power=True),
    Case(partial(forbidden, place="cat/inner"), says=r"cannot read the folder .*inner: Perm", without_power=True),
    Case(listed_in_sets, says=r"has images of class 'bird'", data="list.csv"),
    Case(link_upwards, PAIR, ignored=1),
    Case(empty_class, says=r"class 'empty' in .* has no images: add some .* or remove its folder"),
    Case(hidden, PAIR, ignored=3),
    Case(nas, PAIR, ignored=2),
    Case(usual_names, PAIR),
    Case(git, PAIR, ignored=1),
    Case(stray, PAIR, ignored=5),
    Case(no_ending, PAIR, ignored=1),
    Case(partial(classes, ending=".PnG"), PAIR),
    Case(link_to_itself, PAIR, ignored=1),
    Case(link_to_a_class, ("cat", "dog", "hound"), duplicates=A_CLASS),
    Case(dangling, PAIR, says=r"gone\.png: No such file"),
    Case(not_utf8, (os.fsdecode(b"caf\xe9"), "dog")),
    Case(long_names, ("a" * 255, "dog")),
    Case(partial(classes, names=("cat",)), says=r"has only one class \(cat\)"),
    Case(partial(classes, photos=1), says=r"has too few images for a dev set: at least 3 images per class are needed"),
    Case(lambda top: None, says=r"has no class folders: put the images of each class in a folder of their own"),
    Case(loose_photos, says=r"has no class folders"),
    Case(both_sets, PAIR, duplicates=2),
    Case(partial(sets, train=PAIR, val=("bird", *PAIR)), says=r"has images of class 'bird', which .* not know"),
    Case(partial(sets, train=("bird", *PAIR), val=PAIR), ("bird", *PAIR)),
    Case(nested, PAIR),
    Case(partial(classes, names=("dog", "Cat", "cat")), ("Cat", "cat", "dog")),
    Case(a_file_for_a_class, PAIR, ignored=1),
    Case(partial(classes, names=FORMS), (" c", "a b", FORMS[1])),  # two ways to write an accent, one class
    Case(pipe, PAIR, says=r"pipe\.png: not a regular file"),
    Case(partial(listed, more="gone.png,cat"), PAIR, says=r"gone\.png: No such file", data="list.csv"),
    Case(classes, says=r"no class of .* matches 'bird'", typed=("--classes", "bird")),
)


def folders(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial fills a folder and has it checked twice."""

    def one(number: int) -> list[str]:
        case, top = CASES[number % len(CASES)], place / f"folder-{number}"
        top.mkdir()
        case.make(top)
        told = [_checked(case, top) for _ in range(2)]
        faults = _faults(case, told[0])
        same = (told[0].returncode, told[0].stdout, told[0].stderr) == (
            told[1].returncode,
            told[1].stdout,
            told[1].stderr,
        )
        return [f"{_name(case)}: {fault}" for fault in (faults if same else [*faults, "twice is not the same"])]

    return each(trials, one, advance)


def _name(case: Case) -> str:
    made = case.make
    return str(getattr(made, "__name__", None) or repr(made))


def _checked(case: Case, top: Path) -> subprocess.CompletedProcess[str]:
    typed = ["data", "check", top / case.data, "--json", "--quiet", *case.typed]
    if not case.without_power or os.geteuid():
        return command(*typed, cwd=top.parent)
    weak = [*WITHOUT_POWER, *words(*typed)]
    return subprocess.run(weak, capture_output=True, text=True, timeout=300, check=False, env=environment())


def _faults(case: Case, ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What is wrong with an answer."""
    wanted = 2 if case.says else 0
    if ended.returncode != wanted or "Traceback" in ended.stderr:
        return [f"status {ended.returncode}: {ended.stderr[-300:]}"]
    if not case.classes:
        lines = ended.stderr.splitlines()
        one = len(lines) == 1 and re.search(case.says, lines[0]) and not ended.stdout
        return [] if one else [f"not the one sentence: {ended.stderr[-300:]}"]
    told = json.loads(ended.stdout)
    found = (tuple(told["classes"]), told["ignored"], len(told["duplicates"]), len(told["faults"]))
    expected = (case.classes, case.ignored, case.duplicates, int(bool(case.says)))
    faults = [] if found == expected else [f"classes, ignored, duplicates, unreadable {found}, not {expected}"]
    if case.says and not any(re.search(case.says, row["fault"]) for row in told["faults"]):
        faults.append(f"not {case.says}: {told['faults']}")
    return faults
