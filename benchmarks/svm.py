"""App. B: our SVM solver, all classes and values of C at once, against scikit-learn's LinearSVC, one after another.

    python benchmarks/svm.py run      # half an hour: LinearSVC takes nearly all of it
    python benchmarks/svm.py write    # into docs/transfer.md

The size is that of Caltech-101 by the paper's protocol: 3,060 training photos, 12,288 dimensions (three scales of
fc7, stacked), 102 classes, six values of C tried on 20 % of the photos, and the chosen one trained again on all. The
descriptors are made up: a non-negative centre a class, and as much non-negative noise. LinearSVC (squared hinge, the
same C and penalised bias, its own tolerance, as many iterations as it needs) trains every 17th class, and its time is
counted 17 times, as it trains classes one by one; both use the same arrays, and the threads they take by default.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.checkpoints.run_dir import environment
from verydeep.core.device import resolve_device
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import MachineSettings
from verydeep.evaluation.metrics import class_recalls
from verydeep.paper.tables import markdown_table, write_block
from verydeep.transfer.svm import LinearSvm, SvmTrainer

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "svm.json"
CLASSES, A_CLASS, DEV, DIMENSIONS = 102, 30, 6, 12_288
VALUES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
EVERY = 17  # LinearSVC trains one class in so many


def descriptors() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of length 1, and their classes."""
    rng = np.random.default_rng(0)
    centres = rng.gamma(0.5, 1, (CLASSES, DIMENSIONS)).astype(np.float32)
    labels = np.repeat(np.arange(CLASSES), A_CLASS)
    rows = 0.6 * centres[labels] + rng.gamma(0.5, 1, (len(labels), DIMENSIONS)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def run() -> None:
    """Measures and stores."""
    rows, labels = descriptors()
    marks = np.where(labels[:, None] == np.arange(CLASSES), 1, -1).astype(np.int8)
    fit = np.flatnonzero(np.arange(len(labels)) % A_CLASS >= DEV)
    machine = resolve_device(MachineSettings(), 1e12)
    with machine.running():
        ours = _ours(rows, marks, labels, fit, machine.device.type)
    theirs = [_theirs(rows[fit], marks[fit], C, svm) for C, svm in zip(VALUES, ours["svms"], strict=True)]
    theirs.append(_theirs(rows, marks, ours["C"], ours["last"]))
    stored = {
        **{"seconds": ours["seconds"], "seconds_by_step": ours["steps"], "C": ours["C"], "largest_gap": ours["gap"]},
        **{"linear_svc": theirs, "values": VALUES, "photos": len(labels), "dimensions": DIMENSIONS},
        "environment": environment(machine.describe()),
    }
    write_json(RESULTS, stored)


def _ours(
    rows: NDArray[np.float32], marks: NDArray[np.int8], labels: NDArray[np.int64], fit: NDArray[np.int64], device: str
) -> dict[str, Any]:
    """All classes: every C on the smaller part, recall on the rest, and the best C once more on all."""
    dev = np.setdiff1d(np.arange(len(labels)), fit)
    start = last_step = time.monotonic()
    svms: list[LinearSvm] = []
    steps, recalls = [], []
    learner = SvmTrainer(rows, marks, device=device)
    for svm in learner.fit(VALUES, fit):
        recalls.append(float(np.mean(class_recalls(svm.scores(rows[dev]).argmax(1), labels[dev], CLASSES))))
        svms.append(svm)
        steps.append(time.monotonic() - last_step)
        last_step = time.monotonic()
    C = VALUES[int(np.argmax(recalls))]
    (last,) = learner.fit((C,))
    steps.append(time.monotonic() - last_step)
    gap = max(svm.gap for svm in [*svms, last])
    seconds = time.monotonic() - start
    return {"svms": svms, "last": last, "C": C, "seconds": seconds, "steps": steps, "gap": gap}


def _theirs(rows: NDArray[np.float32], marks: NDArray[np.int8], C: float, ours: LinearSvm) -> dict[str, Any]:
    """LinearSVC on every 17th class: seconds, and how far its objectives lie above ours."""
    from sklearn.svm import LinearSVC

    seconds, above = 0.0, []
    for k in range(0, CLASSES, EVERY):
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            svc = LinearSVC(C=C, loss="squared_hinge", dual=True, max_iter=100_000).fit(rows, marks[:, k])
        seconds += time.monotonic() - start
        objective = _objective(rows, marks[:, k], C, ours.weights[:, k], float(ours.bias[k]))
        above.append(_objective(rows, marks[:, k], C, svc.coef_[0], float(svc.intercept_[0])) / objective - 1)
    return {"C": C, "photos": len(rows), "seconds": seconds, "classes": len(above), "relative_objective": above}


def _objective(rows: NDArray[np.float32], marks: NDArray[np.int8], C: float, w: NDArray[Any], b: float) -> float:
    wide = w.astype(np.float64)
    short = np.maximum(0, 1 - marks * (rows.astype(np.float64) @ wide + b))
    return float((wide @ wide + b * b) / 2 + C * (short**2).sum())


def write() -> None:
    """Writes the stored measurement into the page."""
    stored = read_json(RESULTS)
    rows, theirs = [], 0.0
    for number, (seconds, other) in enumerate(zip(stored["seconds_by_step"], stored["linear_svc"], strict=True)):
        whole = other["seconds"] * EVERY
        theirs += whole
        name = f"C = {other['C']:g}" + (", retrained on all photos" if number == len(stored["values"]) else "")
        differs = max(abs(value) for value in other["relative_objective"])
        rows.append([name, f"{seconds:.1f}", f"{whole:.0f}", f"{whole / seconds:.0f}", f"{differs:.0e}"])
    rows.append(["total", f"{stored['seconds']:.1f}", f"{theirs:.0f}", f"{theirs / stored['seconds']:.0f}", ""])
    where = stored["environment"]
    note = (
        f"{stored['photos']:,} descriptors of {stored['dimensions']:,} dimensions, {CLASSES} classes; ours with the "
        f"Gram matrix and the choice of C, largest duality gap {stored['largest_gap']:.0e} of the objective; "
        f"LinearSVC's seconds are those of {stored['linear_svc'][0]['classes']} classes times {EVERY}, "
        "on one core, as it trains one class after another. "
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads; "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    heads = ["all classes at", "ours, s", "LinearSVC, s", "speed-up", "largest difference of objectives"]
    write_block(TOP / "docs" / "transfer.md", "svm", f"{markdown_table(heads, rows)}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
