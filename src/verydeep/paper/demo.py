"""The main workflow in minutes on a CPU: a doll-size net A on `digits` is trained, evaluated and predicts.

Doll size is the paper's pixels times 64/224: crop 64, S = 73, and an eighth of the width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..api import train
from ..core.progress import Reporter
from ..core.terminal import default_reporter
from ..data.check import sample_crops
from ..data.dataset import Dataset
from ..data.image_io import Pixels
from ..evaluation.evaluate import Evaluation, prepare_evaluation
from ..evaluation.metrics import headline
from ..evaluation.predict import Prediction
from ..reports.figures import confusion_figure, mistakes, png_of_figure
from ..reports.html import png_url, tiles, write_page
from ..reports.run_reader import read_run
from ..reports.run_report import training_context, write_run_report
from ..training.recipes import settings_of_run
from ..transfer.load import load
from .scale import DOLL

SETTINGS = DOLL.settings("A/256")
PROTOCOLS = ("dense@73", "dense@64,73,82")  # one scale Q = S, and S-32, S, S+32 in doll pixels
PREDICTED, CROPS_SHOWN, MISTAKES_SHOWN = 6, 16, 16


def demo(
    out: str | Path | None = None,
    seed: int = 0,
    epochs: int = SETTINGS["max_epochs"],
    scenes: int | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains and evaluates a doll-size net A, predicts classes of a few scenes, and writes ``index.html``.

    Args:
        out: a new directory; ``runs/demo``, ``runs/demo-2``, … by default.
        seed: of the training.
        epochs: fewer are for a quick look at the workflow, not for a good model.
        scenes: to train on, 60 to 6000 (None: all), and others to test on in proportion; fewer likewise.

    Returns:
        ``folder``, ``page``, ``training`` (result.json), ``evaluations`` and ``predictions`` as JSON values.
    """
    reporter = reporter or default_reporter()
    began = time.monotonic()
    folder = Path(out) if out else new_folder("demo")
    settings = {**SETTINGS, "max_epochs": epochs, "seed": seed}
    data = "digits" if scenes is None else f"digits:{scenes}"
    result = train("A", out=folder, data=data, reporter=reporter, stop=stop, **settings)
    if result["ended"] == "interrupted":
        return {"folder": str(folder), "page": None, "training": result, "evaluations": [], "predictions": []}
    evaluations = [prepare_evaluation(folder, protocol, reporter=reporter).run() for protocol in PROTOCOLS]
    predictions = _predict(folder, evaluations[0].dataset)
    crops = sample_crops(data, settings_of_run("A", settings), CROPS_SHOWN)
    seconds = round(time.monotonic() - began, 1)
    page = folder / "index.html"
    write_page(page, "demo.html", _context(folder, evaluations, crops, predictions, seconds))
    write_run_report(folder)
    return {
        "folder": str(folder),
        "page": str(page),
        "seconds": seconds,
        "training": result,
        "evaluations": [{key: evaluation.summary[key] for key in _SUMMARY} for evaluation in evaluations],
        "predictions": [prediction.to_json() for _, _, prediction in predictions],
    }


_SUMMARY = ("protocol", "set", "images", "top1_error", "top1_error_interval", "top5_error", "seconds")


def new_folder(name: str) -> Path:
    """The first of ``runs/NAME``, ``runs/NAME-2``, … that does not exist."""
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())


def _predict(folder: Path, dataset: Dataset) -> list[tuple[Pixels, str, Prediction]]:
    """The first images of a set, their classes, and the predictions of the net."""
    images = [dataset.pixels(index) for index in range(PREDICTED)]
    names = [dataset.classes[label] for label in dataset.labels[:PREDICTED]]
    predictions = load(folder).predict(images, top=3)
    return list(zip(images, names, predictions, strict=True))


def _context(
    folder: Path,
    evaluations: list[Evaluation],
    crops: list[tuple[Pixels, str]],
    predictions: list[tuple[Pixels, str, Prediction]],
    seconds: float,
) -> dict[str, Any]:
    """What the page shows, for reports/templates/demo.html."""
    first, run = evaluations[0], read_run(folder)
    texts = [
        "\n".join([f"shows {name}", *(f"{guess}: {probability:.2f}" for guess, probability in prediction.classes)])
        for _, name, prediction in predictions
    ]
    return {
        "title": "verydeep demo",
        "state": run.status,
        "summary": f"Net A at an eighth of its width, {run.log[-1].step} steps, {seconds:.0f} s for all of this page.",
        "crop": DOLL.crop,
        "crops": tiles(crops),
        **{"run": run, "training": training_context(run)},
        "evaluations": [headline(evaluation.summary) for evaluation in evaluations],
        "confusion": png_url(png_of_figure(confusion_figure(first))),
        "mistakes": tiles(mistakes(first.scores, first.dataset.source.read, MISTAKES_SHOWN)),
        "predictions": tiles((pixels, text) for (pixels, _, _), text in zip(predictions, texts, strict=True)),
    }
