"""R5: hostile files through the real commands that take such files: no code run, nothing outside, no order obeyed."""

from __future__ import annotations

import html.parser
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import malicious_samples as made
from harness import TINY, Outcome, command, done, each
from malicious_samples import MARK, NAMES, Make

READ: list[object] = ["--workers", 0, "--threads", 1]
CONVERT: list[object] = ["convert", "--to", "verydeep"]
CHECK: list[object] = ["data", "check"]
TARS: list[object] = [*CHECK, "webdataset:tars"]
ASK: list[object] = ["predict", "../whole"]
LEARN: list[object] = ["train", "A", *TINY, "--workers", 0, "--max-epochs", 1]
GOOD: dict[str, list[object]] = {
    "whole": [*LEARN, "--data", "photos", "--out", "whole", "--quiet"],
    "of-named": [*LEARN, "--data", "named", "--out", "of-named", "--quiet"],
    "pack": ["data", "pack", "photos", "pack", "--size", 36],
}
ORDERS = "\n".join(f'"{name}.png","{name}"' for name in NAMES)


@dataclass(frozen=True)
class Case:
    """What is made, what is typed (``out`` is where it may write), and how it ends.

    ``says`` is in the one sentence of a refusal, or of what is told where ``sentence`` is false. ``copies`` is the
    good folder that ``make`` copies, where it does.
    """

    make: Make
    typed: list[object]
    status: int = 2
    says: str = ""
    sentence: bool = True
    copies: str = ""

    @property
    def needs(self) -> set[str]:
        """The good folders that it is about."""
        typed = " ".join(map(str, self.typed))
        return {self.copies} | {name for name in GOOD if f"../{name}" in typed}


def _nothing(folder: Path) -> None:
    """The good files beside the trial's folder are what is asked about."""


CASES = (
    Case(partial(made.pickled, name="x.pth"), [*CONVERT, "x.pth", "out"], says="would run code"),
    Case(
        lambda folder: made.pickled_in_zip(folder, "x.pt", "archive/data.pkl"),
        [*CONVERT, "x.pt", "out"],
        says="x.pt was not loaded",
    ),
    Case(
        partial(made.pickled, name="x.pth"),
        [*LEARN, "--data", "../photos", "--start", "x.pth", "--out", "out"],
        says="would run code",
    ),
    Case(partial(made.pickled, name="x.safetensors"), ["predict", "x.safetensors", "../photos"], says="x.safetensors"),
    Case(partial(made.pickled, name="a.npz"), ["fuse", "a.npz", "--out", "out"], says="a.npz is not a scores file"),
    Case(
        lambda folder: made.objects(folder, "ids", "labels", "classes", "posteriors", "set", "data", "run"),
        ["fuse", "a.npz", "--out", "out"],
        says="a.npz is not a scores file",
    ),
    Case(partial(made.pickled, name="x.png"), [*ASK, "x.png", *READ], says="x.png is not an image"),
    Case(
        lambda folder: made.object_array(folder, "pack", "train.index.npy"),
        [*CHECK, "pack"],
        says="is a corrupted packed dataset",
        copies="pack",
    ),
    Case(
        lambda folder: made.copied(folder, "pack", "train.marks.npy"),
        [*CHECK, "pack"],
        says="is a corrupted packed dataset",
        copies="pack",
    ),
    Case(
        partial(made.pickled, name="f.safetensors"),
        ["similar", "../photos/a/0.png", "--features", "f.safetensors", "--out", "out"],
        says="f.safetensors is not a features file",
    ),
    Case(
        lambda folder: made.copied(folder, "whole", "last.safetensors"),
        [*LEARN, "--max-epochs", 2, "--resume", "--out", "whole"],
        status=0,
        says="Resuming from the previous checkpoint",
        sentence=False,
        copies="whole",
    ),
    Case(
        lambda folder: made.copied(folder, "whole", "best.safetensors"),
        ["predict", "whole", "../photos", *READ],
        says="best.safetensors is corrupted",
        copies="whole",
    ),
    Case(partial(made.pickled, name="x.mat"), [*CONVERT, "x.mat", "out"], says="x.mat"),
    Case(partial(made.pickled, name="x.caffemodel"), [*CONVERT, "x.caffemodel", "out"], says="x.caffemodel"),
    Case(partial(made.pickled, name="x.h5"), [*CONVERT, "x.h5", "out"], says="x.h5"),
    Case(
        lambda folder: made.pickled_in_zip(folder, "x.keras", "../../evil", "/tmp/evil", "model.weights.h5"),
        [*CONVERT, "x.keras", "out"],
        says="x.keras",
    ),
    Case(
        lambda folder: made.pickled_in_zip(folder, "x.pt", "../../evil", "../evil", "archive/data.pkl"),
        [*CONVERT, "x.pt", "out"],
        says="x.pt was not loaded",
    ),
    Case(partial(made.pickled, name="list.csv"), [*CHECK, "list.csv"], says="list.csv"),
    Case(made.tar_outside, TARS, status=0),
    Case(made.tar_links, TARS, status=0),
    Case(made.tar_huge, TARS, says="1.tar", sentence=False),
    Case(made.zip_bomb, [*CONVERT, "x.pt", "out"], says="would unpack to"),
    Case(made.mat_bomb, [*CONVERT, "x.mat", "out"], says="x.mat"),
    Case(partial(made.png, side=60000), [*ASK, "x.png", *READ], says="pixels, the limit"),
    Case(lambda folder: made.png(folder, 48, made.text_bomb()), [*ASK, "x.png", *READ], says="x.png is corrupted"),
    Case(_nothing, [*LEARN, "--data", "../named", "--out", "out"], status=0),
    Case(_nothing, ["predict", "../of-named", "../named", *READ], status=0, says=r"\x1b]0;owned\x07"),
    Case(_nothing, ["predict", "../of-named", "../named", *READ, "--csv"], status=0, says=r"\x1b]0;owned\x07"),
    Case(_nothing, ["predict", "../of-named", "../named", *READ, "--json"], status=0, says=r"\u001b]0;owned\u0007"),
    Case(_nothing, ["evaluate", "../of-named", "dense@36", *READ, "--set", "all", "--out", "out"], status=0),
    Case(
        _nothing,
        ["probe", "--data", "../named", "--weights", "../whole", "--scales", 36, "--splits", 1, "--out", "out"],
        status=0,
    ),
    Case(partial(made.listed, rows=(ORDERS,)), [*CHECK, "list.csv"], says=r"\x1b]0;owned\x07", sentence=False),
    Case(
        partial(made.listed, rows=("../../../../../../../../etc/passwd,a",)),
        [*CHECK, "list.csv"],
        says="etc/passwd is not an image",
        sentence=False,
    ),
    Case(lambda folder: made.tar(folder, *NAMES), TARS, status=0),
    Case(made.hostile_card, ["predict", "x.safetensors", "../photos", *READ], says="x.safetensors", copies="whole"),
)


def hostile(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial makes a file, gives it to a command, and looks what that has done and said."""
    _prepare(place, {need for number in range(trials) for need in CASES[number % len(CASES)].needs})

    def one(number: int) -> list[str]:
        case, folder = CASES[number % len(CASES)], place / f"trial-{number}"
        folder.mkdir()
        case.make(folder)
        before, inside = _listing(place), _files(folder)
        ended = command(*case.typed, cwd=folder)
        faults = _told(case, ended) + _pages(folder)
        if _listing(place) != before:
            faults.append(f"written outside: {_listing(place) ^ before}")
        new = {path for path in _files(folder) - inside if path.relative_to(folder).parts[0] not in ("out", "whole")}
        typed = " ".join(map(str, case.typed))
        return [f"{typed}: {fault}" for fault in (faults if not new else [*faults, f"written beside out: {new}"])]

    return each(trials, one, advance)


def _prepare(place: Path, needs: set[str]) -> None:
    """Photos, and those good folders that some trial needs."""
    for number, name in enumerate("ab"):
        for photo in range(8):
            made.paint(place / "photos" / name / f"{photo}.png", 100 * number + photo)
    made.named_photos(place / "named")
    for name in sorted(needs & GOOD.keys()):
        done(*GOOD[name], cwd=place)


def _listing(place: Path) -> set[Path]:
    """What lies around a trial's folder, other trials apart, which work at the same time."""
    near = {path for path in place.iterdir() if not path.name.startswith("trial-")}
    deep = {path for name in ("whole", "pack", "photos", "named", "of-named") for path in (place / name).rglob("*")}
    far = {path for root in (place.parent, Path("/tmp"), Path("/etc")) for path in root.glob("evil*")}
    return near | deep | far | {path for path in [place / MARK] if path.exists()}


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _told(case: Case, ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What is wrong with status and words."""
    text = ended.stdout + ended.stderr
    faults = [] if ended.returncode == case.status else [f"status {ended.returncode}: {text[-300:]!r}"]
    sentences = [line for line in ended.stderr.splitlines() if line.startswith("verydeep: ")]
    if case.status == 2 and case.sentence and (len(sentences) != 1 or ended.stdout):
        faults.append(f"not one sentence: {text[-300:]!r}")
    if case.says not in text:
        faults.append(f"not told {case.says!r}: {text[-300:]!r}")
    raw = {letter for letter in text if letter != "\n" and not (letter.isprintable() or ord(letter) > 0x9F)}
    if raw or "Traceback" in text or "root:" in text:
        faults.append(f"raw {raw or 'words'} in {text[-300:]!r}")
    return faults


def _pages(folder: Path) -> list[str]:
    """Pages in which a name has become a tag, or moves a terminal."""
    faults = []
    for page in [path for path in folder.rglob("*") if path.suffix in (".html", ".md")]:
        text, tags = page.read_text(), _Tags()
        tags.feed(text)
        raw = any((letter != "\n" and ord(letter) < 0x20) or 0x7F <= ord(letter) < 0xA0 for letter in text)
        if raw or "script" in tags.found or "onerror" in tags.attributes:
            faults.append(f"{page.name} holds {'a raw name' if raw else 'a name as a tag'}")
    return faults


class _Tags(html.parser.HTMLParser):
    """The tags of a page, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.found.add(tag)
        self.attributes.update(name for name, _ in attrs)
