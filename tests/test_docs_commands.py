"""Every command that README and docs show runs: here on small data, or in the test or script that is named here."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Command, make_photos, run_command
from test_docs import BLOCK, PAGES, TOP

# What begins so, or holds this, is run elsewhere: it needs a network, several processes, a browser or large data.
ELSEWHERE = {
    "torchrun": "tests/training/test_distributed.py",
    "$CALTECH101": "examples/caltech101.py",
    "runs/caltech-": "examples/caltech101.py",
    "caltech101": "examples/transfer.py",
    "--devkit": "tests/evaluation/test_ensemble.py",
    "verydeep weights fetch": "tests/checkpoints/test_released.py",
    "verydeep serve": "tests/deploy/test_server.py",
    "verydeep reproduce": "tests/paper/test_reproduce.py",
    "verydeep benchmark": "tests/deploy/test_benchmark.py",
    "verydeep demo": "tests/cli/test_commands.py",
    "check photos/ --weights": "tests/transfer/test_suspects.py",
    "check photos/ --features": "tests/transfer/test_suspects.py",
    "cifar10": "tests/data/test_hugging_face.py",
    "verydeep convert oxford-E": "tests/evaluation/test_sanity_check.py",
    "verydeep calibrate": "tests/evaluation/test_calibration.py",  # needs 20 images that decide
    "--reject-at": "tests/evaluation/test_calibration.py",
    "--track": "tests/training/test_trackers.py",
    "suspects.csv": "tests/transfer/test_suspects.py",
}
SCRIPTS = {
    "tour.md": "examples/tour.py",
    "own_photos.md": "examples/own_photos.py",
}  # pages that a script follows whole
SMALL = ["--crop", "32", "--width", "0.03125", "--S", "36", "--batch", "8", "--max-epochs", "1", "--workers", "0"]
SIZES = {"224": "32", "256": "36", "288": "41", "384": "54", "512": "72"}
WEIGHTS = "weights.safetensors"


def shown(page: Path) -> list[str]:
    """The `verydeep` commands of a page that run here."""
    blocks = [block.replace("\\\n", " ") for block in BLOCK.findall(page.read_text())]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if re.search(r"(^| )verydeep ", line) and "…" not in line]
    return [line for line in commands if not any(part in line for part in ELSEWHERE)]


def new_lines() -> dict[Path, list[str]]:
    """The commands of each page that no page before it shows."""
    found: dict[Path, list[str]] = {}
    for page in (page for page in PAGES if page.name not in SCRIPTS):
        before = {line for lines in found.values() for line in lines}
        found[page] = [line for line in dict.fromkeys(shown(page)) if line not in before]
    return {page: lines for page, lines in found.items() if lines}


def small(words: list[str]) -> list[str]:
    """A command of a page on small data: a tiny net, its scales, and weights that are here."""
    words = [re.sub(r"(?<![\w-])\d{3}(?![\w-])", lambda size: SIZES.get(size[0], size[0]), word) for word in words]
    words = [{"FILE": WEIGHTS, "oxford-D": WEIGHTS}.get(word, word) for word in words]
    if {"train", "rate"} & set(words) and "--help" not in words:
        words += [*SMALL, *([] if "--start" in words else ["--start", "none"])]
    return words


def remove_old_run(words: list[str], cwd: Path) -> None:
    """Removes the run that the page trains itself."""
    if "train" in words and "--help" not in words:
        out = Path(cwd / "runs" / ("D-PCR" if words[0] == "localise" else "D"))
        if out.exists():
            shutil.rmtree(out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that the pages' commands name."""
    place = tmp_path_factory.mktemp("world")
    photos = make_photos(place / "photos", 8)
    for name in ("new.jpg", "photo.jpg", "holiday/one.jpg"):
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(next(photos.rglob("*.png")), place / "first.png")
        Image.open(place / "first.png").save(place / name)
    rows = [f"{path.relative_to(photos)},3,3,30,30,{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (place / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,class\n" + "\n".join(rows) + "\n")
    animals = [f"{path.relative_to(place)},{path.parent.name},{path.stem}" for path in sorted(photos.rglob("*.png"))]
    (place / "cats.csv").write_text("path,label,animal\n" + "\n".join(animals) + "\n")
    tags = [
        f"{path.relative_to(place)},{path.parent.name}|{'ab'[int(path.stem) % 2]}"
        for path in sorted(photos.rglob("*.png"))
    ]
    (place / "tags.csv").write_text("path,labels\n" + "\n".join(tags) + "\n")
    base = ["--data", "photos/", "--boxes", "boxes.csv", *SMALL]
    for words in (
        ["train", "D", *base, "--start", "none"],
        ["localise", "train", "D", *base, "--start", "runs/D"],
        ["evaluate", "runs/D", "dense@36,54,72", "--out", "runs/D/256-512/evaluations/val/dense@36,54,72"],
        ["probe", "--data", "photos/", "--weights", "runs/D", "--splits", "1"],
        ["features", "runs/D", "--data", "photos/", "--scales", "36", "--out", "f.safetensors"],
        ["svm", "own", "--features", "f.safetensors"],
        ["convert", "runs/D", "vgg16.h5"],
    ):
        ended = run_command(*words, cwd=place)
        assert ended.status == 0, (words, ended.stderr)
    shutil.copytree(place / "runs" / "D", place / "runs" / "E")
    for name in ("A.npz", "B.npz"):
        shutil.copy(place / "runs/D/256-512/evaluations/val/dense@36,54,72/scores.npz", place / name)
    np.savez(place / "labels.npz", labels=[0, 2], ids=["a.jpg", "b.jpg"])
    (place / "labels.csv").write_text("a.jpg,0\nb.jpg,2\n")
    np.savez(place / "vgg16.npz", classes=[[1, 0], [2, 1]], probabilities=[[0.5, 0.25], [0.75, 0.125]])
    (place / "vgg19.csv").write_text("id,class,probability\na.jpg,0,0.5\nb.jpg,n01440764,0.25\n")
    shutil.copy(place / "runs" / "D" / "best.safetensors", place / WEIGHTS)
    return place


NEW = new_lines()


@pytest.mark.slow
@pytest.mark.parametrize("page", NEW, ids=lambda page: str(page.relative_to(TOP)))
def test_commands_of_a_page_run(page: Path, world: Path, tmp_path: Path, command: Command) -> None:
    cwd = shutil.copytree(world, tmp_path / "here")
    for line in NEW[page]:
        words = small(shlex.split(line)[1:])
        remove_old_run(words, cwd)
        ended = command(*words, cwd=cwd)
        assert ended.status == 0, (line, words, ended.stderr)


def test_what_runs_elsewhere_is_there() -> None:
    for part, path in ELSEWHERE.items():
        assert part.split()[-1] in (TOP / path).read_text(), (part, path)
    for path in SCRIPTS.values():
        assert (TOP / path).is_file(), path
