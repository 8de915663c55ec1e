"""The whole main job in minutes on a CPU: a doll's-house net A on `digits`, trained, tested and asked.

Doll size is the paper's pixels times 64/224: crop 64, S = 73, and an eighth of the width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..api import train
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings
from ..data.check import sample_crops
from ..data.dataset import Dataset
from ..data.image_io import Pixels
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.metrics import headline
from ..evaluation.predict import Prediction, load_net
from ..reports.figures import confusion_figure, mistakes, png_of_figure
from ..reports.html import Shown, paragraph, picture, section, tiles, write_page
from ..reports.html import headline as headline_of_page
from ..reports.run_reader import read_run
from ..reports.run_report import training_section, write_run_report
from ..training.recipes import settings_of_run
from .scale import DOLL

SETTINGS = DOLL.settings("A/256")
PROTOCOLS = ("dense@73", "dense@64,73,82")  # one scale Q = S, and S-32, S, S+32 in doll pixels
PHOTOS_ASKED, CROPS_SHOWN, MISTAKES_SHOWN = 6, 16, 16


def demo(
    out: str | Path | None = None,
    seed: int = 0,
    epochs: int = SETTINGS["max_epochs"],
    scenes: int | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains, tests and asks a doll net A, and leaves ``index.html`` with pictures.

    Args:
        out: a new folder; ``runs/demo``, ``runs/demo-2``, … by default.
        seed: of the training.
        epochs: fewer are for trying the path, not for learning.
        scenes: to train on, 60 to 6000 (None: all), and others to test on in proportion; fewer likewise.

    Returns:
        ``folder``, ``page``, ``training`` (result.json), ``evaluations`` and ``predictions`` as JSON values.
    """
    reporter = reporter or Silent()
    began = time.monotonic()
    folder = Path(out) if out else _new_folder()
    settings, data = (
        {**SETTINGS, "max_epochs": epochs, "seed": seed},
        "digits" if scenes is None else f"digits:{scenes}",
    )
    result = train("A", out=folder, data=data, reporter=reporter, stop=stop, **settings)
    if result["ended"] == "interrupted":
        return {"folder": str(folder), "page": None, "training": result, "evaluations": [], "predictions": []}
    evaluations = [evaluate(folder, protocol, reporter=reporter) for protocol in PROTOCOLS]
    shown = _ask(folder, evaluations[0].dataset)
    crops: list[Shown] = [*sample_crops(data, settings_of_run("A", settings), CROPS_SHOWN)]
    seconds = round(time.monotonic() - began, 1)
    page = folder / "index.html"
    write_page(page, "verydeep demo", _blocks(folder, evaluations, crops, shown, seconds))
    write_run_report(folder)
    return {
        "folder": str(folder),
        "page": str(page),
        "seconds": seconds,
        "training": result,
        "evaluations": [{key: found.summary[key] for key in _SUMMARY} for found in evaluations],
        "predictions": [found.to_json() for _, _, found in shown],
    }


_SUMMARY = ("protocol", "set", "images", "top1_error", "top1_error_interval", "top5_error", "seconds")


def _new_folder() -> Path:
    names = ["demo", *(f"demo-{number}" for number in range(2, 1000))]
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())


def _ask(folder: Path, dataset: Dataset) -> list[tuple[Pixels, str, Prediction]]:
    """Some photos of a set, what they show, and what the net says of them."""
    photos = [dataset.pixels(index) for index in range(PHOTOS_ASKED)]
    names = [dataset.classes[label] for label in dataset.labels[:PHOTOS_ASKED]]
    return list(
        zip(photos, names, load_net(folder, False, MachineSettings(workers=0)).predict(photos, top=3), strict=True)
    )


def _told(found: Prediction) -> str:
    return "\n".join(f"{name}: {probability:.2f}" for name, probability in found.classes)


def _blocks(
    folder: Path,
    evaluations: list[Evaluation],
    crops: list[Shown],
    shown: list[tuple[Pixels, str, Prediction]],
    seconds: float,
) -> list[str]:
    first = evaluations[0]
    told = "Scenes of digits it never saw. " + "; ".join(headline(found.summary) for found in evaluations)
    wrong = mistakes(first.scores, first.dataset.read, MISTAKES_SHOWN)
    run = read_run(folder)
    size = f"Net A at an eighth of its width, {run.log[-1]['step']} steps, {seconds:.0f} s for all of this page."
    confused = picture(png_of_figure(confusion_figure(first)), "Confusion matrix: rows are classes, columns answers")
    asked = [(photo, f"shows {name}\n{_told(found)}") for photo, name, found in shown]
    return [
        headline_of_page("verydeep demo", run.state, size, []),
        section(
            "What the net sees",
            paragraph(f"Random crops of {DOLL.crop} pixels, mirrored or not, with a colour shift.", "note"),
            tiles(crops, "a training crop of"),
        ),
        *training_section(run),
        section("Testing", paragraph(told), confused),
        section(
            "The worst mistakes",
            paragraph("The right class with its posterior, and what it was taken for.", "note"),
            tiles(wrong, "a photo of"),
        ),
        section(
            "Asking", paragraph("The three likeliest classes of six scenes.", "note"), tiles(asked, "a scene that")
        ),
    ]
