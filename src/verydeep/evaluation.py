"""Sect. 4: a trained net tested on a set of photos, each counted once.

What is reported is the ``test`` or ``val`` set, never the ``dev`` part that chose the checkpoint.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoints import Card, Checkpoint, load_checkpoint
from .config import DataSettings, MachineSettings, from_json
from .data import NAMES, Data, Dataset, lasting_name, open_data, relabel
from .data.loading import Fault, each_photo
from .errors import ImageError, VerydeepError
from .files import write_json
from .machine import Machine, this_machine
from .metrics import confusion, error_interval, label_ranks, topk_error
from .nets import Net
from .progress import Reporter, Silent
from .protocols import Protocol, Views, check_protocol, parse_protocol, posteriors
from .runs import LAST, checkpoint_of, environment
from .scores import Scores, save_scores


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: its summary, the scores, the set, and the folder of files it wrote."""

    summary: dict[str, Any]
    scores: Scores
    dataset: Dataset
    folder: Path


def dataset_posteriors(
    net: Net,
    card: Card,
    dataset: Dataset,
    protocol: Protocol,
    machine: Machine,
    reporter: Reporter,
    label: str,
    faults: dict[int, str] | None = None,
) -> NDArray[np.float32]:
    """Posteriors of a set, float32 (N,K).

    Args:
        net: on the machine's device, in evaluation mode.
        faults: takes unreadable photos by index (their rows stay 0); None makes them an error.

    Raises:
        ImageError: a photo cannot be read, and ``faults`` is None.
    """

    def views() -> Any:
        for index, found in each_photo(
            dataset, Views(protocol, card.crop, card.resampling, card.other_side), machine.readers
        ):
            if not isinstance(found, Fault):
                yield index, found
            elif faults is None:
                raise ImageError(f"{found.sentence} Remove it, or evaluate with --bad-images skip.")
            else:
                faults[index] = found.sentence

    views_done = len(protocol.scales)
    with reporter.track(label, len(dataset) * views_done) as advance:
        mean = np.array(card.mean)
        return posteriors(net, mean, protocol, views(), len(dataset), machine, lambda count: advance(count, ""))


def evaluate(
    run: str | Path,
    protocol: str,
    data: str | None = None,
    set_name: str | None = None,
    last: bool = False,
    out: str | Path | None = None,
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Tests a run's net by a protocol and writes what it found.

    Args:
        run: a run's folder, or a checkpoint file.
        protocol: such as ``dense@256,384,512`` (see `verydeep.protocols`).
        data: other data than the run was trained on; their classes must be the net's, by name.
        set_name: a set of the data; by default the reported one, or all photos of other, unsplit data.
        last: the last checkpoint instead of the best.
        out: folder for the files; by default ``evaluations/<set>/<protocol>`` in the run's folder.
        bad_images: ``stop`` or ``skip`` photos that cannot be read.

    Raises:
        VerydeepError: no such run or data, unknown classes, Q below the crop, an unreadable photo.
    """
    started, reporter = time.monotonic(), reporter or Silent()
    if bad_images not in ("stop", "skip"):
        raise VerydeepError(f"bad_images is stop or skip, not {bad_images!r}.")
    tested = parse_protocol(protocol)
    checkpoint = load_checkpoint(checkpoint_of(run, last))
    check_protocol(tested, checkpoint.card.crop)
    dataset = _dataset(checkpoint.card, data, set_name, reporter)
    here = this_machine(replace(machine or MachineSettings(), compile=False), checkpoint.card.multiply_adds)
    dataset, found, skipped = _readable_posteriors(checkpoint, dataset, tested, here, bad_images == "skip", reporter)
    scores = _scores(checkpoint, dataset, tested, found)
    folder = Path(out) if out else _default_folder(checkpoint, dataset) / dataset.set_name / str(tested)
    summary = summarise(scores, skipped, time.monotonic() - started)
    summary |= {"run": str(run), "checkpoint": str(checkpoint.path), "folder": str(folder)}
    _write(folder, summary, scores, here)
    return Evaluation(summary, scores, dataset, folder)


def _readable_posteriors(
    checkpoint: Checkpoint, dataset: Dataset, protocol: Protocol, machine: Machine, skip: bool, reporter: Reporter
) -> tuple[Dataset, NDArray[np.float32], int]:
    """The photos that could be read, their posteriors (N,K), and how many were skipped."""
    net = checkpoint.net()
    machine.place(net)
    faults: dict[int, str] = {}
    label = f"{protocol} on {len(dataset)} photos"
    with machine.at_work():
        found = dataset_posteriors(
            net, checkpoint.card, dataset, protocol, machine, reporter, label, faults if skip else None
        )
    for sentence in faults.values():
        reporter.warn(f"skipped: {sentence}")
    if len(faults) == len(dataset):
        raise ImageError(f"none of the {len(faults)} photos of {dataset.name} can be read.")
    kept = np.array([index for index in range(len(dataset)) if index not in faults], dtype=np.int64)
    return dataset.take(kept), found[kept], len(faults)


def _default_folder(checkpoint: Checkpoint, dataset: Dataset) -> Path:
    """Beside the checkpoint; apart for the last one, and for data that are not the run's own."""
    name = "evaluations-of-last" if checkpoint.path.name == LAST else "evaluations"
    other = dataset.name != _data_name(checkpoint.card)
    return checkpoint.path.parent / name / (f"of-{Path(dataset.name).name}" if other else "")


def _data_name(card: Card) -> str:
    data = str(card.data.get("data", ""))
    name = data.partition(":")[0]
    return name if name in NAMES else data


def _dataset(card: Card, data: str | None, set_name: str | None, reporter: Reporter) -> Dataset:
    """The set to test, its labels counted in the net's classes."""
    if not card.data and data is None:
        raise VerydeepError("this checkpoint names no data: say --data.")
    trained_on = from_json(DataSettings, card.data) if card.data else DataSettings()
    asked = trained_on if data is None else replace(trained_on, data=lasting_name(data))
    opened = _open(asked)
    same = asked.data == trained_on.data
    known = opened.fingerprint() == card.data_fingerprint
    if same and not known:
        reporter.warn(
            f"{opened.name} is not as it was when the net was trained: photos may have moved between its sets."
        )
    # Unsplit data that the net was not trained on are tested whole.
    chosen = set_name or ("all" if opened.split_by_us and not same and not known else opened.reported)
    return relabel(opened.set(chosen), card.classes, strict=True)


def _open(settings: DataSettings) -> Data:
    """The data with the training's choice of classes, or, where they have none of those, all classes."""
    try:
        return open_data(settings)
    except VerydeepError:
        return open_data(replace(settings, classes=())) if settings.classes else open_data(settings)


def _scores(checkpoint: Checkpoint, dataset: Dataset, protocol: Protocol, found: NDArray[np.float32]) -> Scores:
    return Scores(
        dataset.ids,
        dataset.labels,
        checkpoint.card.classes,
        found,
        dataset.set_name,
        dataset.name,
        str(protocol),
        checkpoint.sha256,
    )


def summarise(scores: Scores, skipped: int, seconds: float) -> dict[str, Any]:
    """Errors in percent with 95 % intervals, by class and by confused pair."""
    photos = len(scores.ids)
    top1, top5 = (topk_error(scores.posteriors, scores.labels, k) for k in (1, 5))
    assert top1 is not None
    return {
        "protocol": scores.protocol,
        "set": scores.set_name,
        "data": scores.data,
        "images": photos,
        "skipped": skipped,
        "top1_error": round(top1, 4),
        "top1_error_interval": [round(end, 4) for end in error_interval(top1, photos)],
        "top5_error": None if top5 is None else round(top5, 4),
        "top5_error_interval": None if top5 is None else [round(end, 4) for end in error_interval(top5, photos)],
        "mean_class_error": round(float(np.mean([row["top1_error"] for row in class_errors(scores)])), 4),
        "seconds": round(seconds, 2),
        "images_per_second": round(photos / max(seconds, 1e-9), 2),
        "classes": class_errors(scores),
        "confused": confused_pairs(scores),
    }


def headline(summary: dict[str, Any]) -> str:
    """The top-1 error of a summary as a line of text."""
    low, high = summary["top1_error_interval"]
    error = f"top-1 error {summary['top1_error']:.2f} % (95 % interval {low:.2f} to {high:.2f})"
    return f"{summary['protocol']} on {summary['images']} photos ({summary['set']}): {error}"


def class_errors(scores: Scores) -> list[dict[str, Any]]:
    """Photos and top-1 error of each class that has photos, in class order."""
    wrong = label_ranks(scores.posteriors, scores.labels) >= 1
    rows = []
    for number, name in enumerate(scores.classes):
        mine = scores.labels == number
        if mine.any():
            error = round(100 * float(wrong[mine].mean()), 4)
            rows.append({"class": name, "images": int(mine.sum()), "top1_error": error})
    return rows


def confused_pairs(scores: Scores, most: int = 10) -> list[dict[str, Any]]:
    """The commonest mistakes: a class, the class it was taken for, and how often."""
    counts = confusion(scores.posteriors, scores.labels)
    np.fill_diagonal(counts, 0)
    pairs = [(int(counts[row, column]), int(row), int(column)) for row, column in np.argwhere(counts)]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:most]
    names = scores.classes
    return [{"class": names[row], "taken_for": names[column], "images": count} for count, row, column in worst]


def worst_mistakes(scores: Scores, most: int) -> list[int]:
    """Indices of wrong photos, the one whose right class got the least posterior first."""
    wrong = np.flatnonzero(label_ranks(scores.posteriors, scores.labels) >= 1)
    right = scores.posteriors[wrong, scores.labels[wrong]]
    return [int(index) for index in wrong[np.argsort(right, kind="stable")][:most]]


def _write(folder: Path, summary: dict[str, Any], scores: Scores, machine: Machine) -> None:
    save_scores(folder / "scores.npz", scores)
    write_json(folder / "result.json", {**summary, "environment": environment(machine.describe())})
    with (folder / "classes.csv").open("w", newline="", encoding="utf8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=["class", "images", "top1_error"])
        writer.writeheader()
        writer.writerows(summary["classes"])
