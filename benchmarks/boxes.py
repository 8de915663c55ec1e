"""App. A: the time of merging, its growth, and the cost of a localisation model beside a classifier.

    python benchmarks/boxes.py run
    python benchmarks/boxes.py write    # into docs/localisation.md

Random boxes of one label (a photo has some 60 of each); and net D at 224 with 1000 classes,
dense at one Q: the localisation model (PCR, 4000 outputs, boxes of six labels) against dense classification without its
mirror image, on the same noise photos, the two taking turns. What counts is their ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.checkpoints.checkpoint import Metadata
from verydeep.checkpoints.run_dir import environment
from verydeep.core.config import to_json
from verydeep.core.device import Machine, resolve_device
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import BoxSettings, MachineSettings
from verydeep.data.boxes import Merging
from verydeep.evaluation.inference import ResizeToScales, posteriors
from verydeep.evaluation.protocols import BoxProtocol, parse_protocol
from verydeep.localisation.inference import BoxPredictor, BoxViews
from verydeep.models.architectures import net_facts
from verydeep.models.vgg import create_net
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "boxes.json"
COUNTS = (60, 1000, 2000, 5000)
TURNS, PHOTOS, Q, T = 3, {"cpu": 1, "cuda": 64, "mps": 4}, 256, 0.6


def run() -> None:
    """Measures and stores."""
    machine = resolve_device(MachineSettings(), net_facts("D").multiply_adds)
    merging = {str(count): [_merge(count, turn) for turn in range(TURNS)] for count in COUNTS}
    with machine.running():
        boxes, classes = _nets(machine)
    where = environment(machine.describe())
    write_json(RESULTS, {"merging": merging, "boxes": boxes, "classes": classes, "Q": Q, "environment": where})


def _merge(count: int, seed: int) -> float:
    """Seconds of merging so many boxes of one label."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 400, (count, 2)), rng.uniform(40, 200, (count, 2))
    boxes, ratings = np.concatenate([corner, corner + size], axis=1), rng.random(count)
    return _seconds(lambda: Merging(boxes, ratings).until(T))


def _nets(machine: Machine) -> tuple[list[float], list[float]]:
    """Seconds a photo of the localisation model and of the classifier, in turns; the first turn warms up."""
    count = PHOTOS[machine.device.type]
    rng = np.random.default_rng(0)
    photos: list[NDArray[np.uint8]] = [rng.integers(0, 256, (375, 500, 3)).astype(np.uint8) for _ in range(count)]
    names = tuple(map(str, range(1000)))
    metadata = Metadata("D", 224, 1.0, names, (120.0, 120.0, 120.0), Q, box_settings=to_json(BoxSettings()))
    box_net, class_net = create_net("D", classes=metadata.outputs).eval(), create_net("D").eval()
    machine.place_model(box_net), machine.place_model(class_net)
    labels = rng.integers(0, 1000, (count, 6))
    protocol = parse_protocol(f"dense@{Q}:no-mirror")

    def boxes() -> None:
        finder = BoxPredictor(box_net, metadata, None, BoxProtocol("dense", (Q,)), machine)
        finder.run(enumerate(map(BoxViews(Q, "bilinear", "round"), photos)), labels)

    def classes() -> None:
        posteriors(
            class_net,
            np.full(3, 120.0),
            protocol,
            enumerate(map(ResizeToScales(protocol, 224), photos)),
            count,
            machine,
        )

    seconds_by_net: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        for measured, work in zip(seconds_by_net, (boxes, classes), strict=True):
            seconds = _seconds(work) / count
            if turn:
                measured.append(seconds)
    return seconds_by_net


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def write() -> None:
    """Writes the stored measurement into the page."""
    stored = read_json(RESULTS)
    merging = {int(count): seconds for count, seconds in stored["merging"].items()}
    rows = [
        [count, f"{1000 * statistics.median(seconds):.0f}", f"{1000 * min(seconds):.0f}–{1000 * max(seconds):.0f}"]
        for count, seconds in merging.items()
    ]
    grown = statistics.median(merging[5000]) / statistics.median(merging[1000])
    ratios = [boxes / classes for boxes, classes in zip(stored["boxes"], stored["classes"], strict=True)]
    where = stored["environment"]
    note = (
        f"Five times as many boxes (1,000 to 5,000) take {grown:.0f} times as long: n² would be 25, n³ 125. A "
        f"localisation model, dense at Q = {stored['Q']}, takes {statistics.median(ratios):.2f} of the time of "
        f"dense classification ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} turns; "
        f"net D, 224, 1000 classes). {where['processor']}, {where['cores']} cores; "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    table = markdown_table(["boxes of a label", "ms to merge", "min–max"], rows)
    write_block(TOP / "docs" / "localisation.md", "boxes", f"{table}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
