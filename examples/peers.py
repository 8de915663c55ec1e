"""The commands for people's own photos beside what scikit-learn and cleanlab do on the same descriptors.

    FEATURES=file python examples/peers.py run [THREADS]
    python examples/peers.py write     # the stored results into docs/which_command.md

FEATURES are descriptors of Caltech-101 (`verydeep features NET --data caltech101:DIR --layer fc7`). The first split of
the protocol is used: 30 training photos a class, of which a fifth choose C or k, and at most 50 test photos a class.
Both sides have the same L2-normalised rows, values of C and k, dev part, metric and number of threads; what
a peer chooses by itself stays at its default, but for iterations, of which it takes as many as it needs. The rows on
wrong labels and unknown classes are those of `examples/suspects.py` and `examples/reject.py`.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from commands import TOP
from numpy.typing import NDArray
from sklearn import __version__ as sklearn_version
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import MachineSettings, SvmSettings
from verydeep.evaluation.metrics import calibration_error, mean_log_loss, reliability
from verydeep.evaluation.temperature import softmax
from verydeep.paper.tables import markdown_table, write_block
from verydeep.transfer.evaluate import SplitResult, Transfer, learn_svms

RESULTS = TOP / "docs" / "results" / "peers.json"
PAGE = TOP / "docs" / "which_command.md"
VALUES: dict[str, dict[str, Any]] = {
    "svm": {"C": (0.1, 1.0, 10.0, 100.0)},
    "logistic": {"C": (1.0, 10.0, 100.0, 1000.0)},
    "knn": {"k": (1, 3, 5, 10)},
}
PEERS: dict[str, tuple[str, Callable[[float], Any]]] = {
    "svm": ("LinearSVC", lambda C: LinearSVC(C=C, max_iter=100_000)),
    "logistic": ("LogisticRegression", lambda C: LogisticRegression(C=C, max_iter=10_000)),
    "knn": ("KNeighborsClassifier", lambda k: KNeighborsClassifier(int(k), metric="cosine", weights="distance")),
}


def run(threads: int) -> None:
    """Measures every classifier on both sides, and stores the figures as they come."""
    for name in VALUES:
        stored = dict(read_json(RESULTS)) if RESULTS.exists() else {}
        if name not in stored:
            with threadpool_limits(threads):
                figures = measure(name, threads)
            figures["environment"] = environment({"cores": os.cpu_count(), "threads": threads})
            write_json(RESULTS, {**stored, name: figures | {"scikit-learn": sklearn_version}})


def measure(name: str, threads: int) -> dict[str, Any]:
    """Seconds, mean class recall and calibration of one classifier, of ours and of the peer."""
    settings = SvmSettings(classifier=name, splits=1, **VALUES[name])  # type: ignore[arg-type]
    start = time.monotonic()
    ours = learn_svms("caltech101", [os.environ["FEATURES"]], svm=settings, machine=MachineSettings(threads=threads))
    seconds = time.monotonic() - start
    (split,) = ours.splits
    own: dict[str, Any] = {"seconds": seconds, "chosen": split.C, "recall": split.figure}
    if split.temperature is not None:
        own |= _calibration(softmax(split.scores / split.temperature), ours.first.labels[split.parts.test])
    counts = {"images": len(split.parts.test), "classes": len(ours.first.classes)}
    return {**counts, "ours": own, "peer": _peer(name, ours, split)}


def _peer(name: str, ours: Transfer, split: SplitResult) -> dict[str, Any]:
    """The same search by scikit-learn: every value on the dev part, the best trained on both parts."""
    rows = ours.first.scales[min(ours.first.scales)]
    rows, labels = rows / np.linalg.norm(rows, axis=1, keepdims=True), ours.first.labels
    parts, make = split.parts, PEERS[name][1]
    start, dev = time.monotonic(), {}
    for value in VALUES[name][next(iter(VALUES[name]))]:
        model = make(value).fit(rows[parts.fit], labels[parts.fit])
        dev[value] = _recall(model.predict(rows[parts.dev]), labels[parts.dev])
        print(f"{PEERS[name][0]} {value:g}: {dev[value]:.1f} %, {time.monotonic() - start:.0f} s", flush=True)
    chosen = max(dev, key=lambda value: (dev[value], -value))
    model = make(chosen).fit(rows[parts.train], labels[parts.train])
    predicted = model.predict(rows[parts.test])
    figures = {"chosen": chosen, "seconds": time.monotonic() - start}
    figures["recall"] = _recall(predicted, labels[parts.test])
    if name == "svm":
        figures |= _calibrated_peer(clone(model), rows, labels, split)
    elif name == "logistic":
        figures |= _calibration(model.predict_proba(rows[parts.test]), labels[parts.test])
    return figures


def _calibrated_peer(
    model: Any, rows: NDArray[np.float32], labels: NDArray[np.int64], split: SplitResult
) -> dict[str, Any]:
    """Platt's method with its default of five folds, on the chosen C."""
    start = time.monotonic()
    calibrated = CalibratedClassifierCV(model).fit(rows[split.parts.train], labels[split.parts.train])
    posteriors = calibrated.predict_proba(rows[split.parts.test])
    return {"calibration_seconds": time.monotonic() - start, **_calibration(posteriors, labels[split.parts.test])}


def _recall(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    return 100 * float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def _calibration(posteriors: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
    rows = posteriors.astype(np.float32)
    return {"ece": calibration_error(reliability(rows, labels)), "nll": mean_log_loss(rows, labels)}


def write() -> None:
    """Writes the table into docs/which_command.md."""
    stored = read_json(RESULTS)
    rows = [row for name, figures in stored.items() for row in _classifier_rows(name, figures)]
    rows += [_wrong_labels(read_json(RESULTS.with_name("suspects.json")))]
    rows += [_unknown(read_json(RESULTS.with_name("reject.json")))]
    columns = ["what", "command", "figure", "verydeep", "the peer", "peer"]
    first = next(iter(stored.values()))
    where = first["environment"]
    note = (
        f"Classifiers: fc7 of net E, Caltech-101, first split, {first['images']} test photos of {first['classes']} "
        f"classes; time with {where['threads']} thread, for all values of C or k and the last "
        "training. "
        f"scikit-learn {first['scikit-learn']}; {where['processor']}, {where['cores']} cores, {where['time'][:10]}, "
        f"commit {where['commit']} (`python examples/peers.py run`). Wrong labels: [data.md](data.md); unknown "
        "classes: [testing.md](testing.md)."
    )
    write_block(PAGE, "peers", f"{markdown_table(columns, rows)}\n\n{note}")


COMMANDS = {"svm": "probe", "logistic": "probe --classifier logistic", "knn": "probe --classifier knn"}
TITLES = {"svm": "linear SVMs", "logistic": "logistic regression", "knn": "nearest neighbours"}


def _classifier_rows(name: str, figures: dict[str, Any]) -> list[list[object]]:
    ours, peer, title = figures["ours"], figures["peer"], PEERS[name][0]
    command, what = f"`{COMMANDS[name]}`", TITLES[name]
    rows: list[list[object]] = [
        [what, command, "mean class recall %", f"{ours['recall']:.1f}", f"{peer['recall']:.1f}", title],
        [what, command, "seconds", f"{ours['seconds']:.0f}", f"{peer['seconds']:.0f}", title],
    ]
    if "nll" in ours and "nll" in peer:
        other = "CalibratedClassifierCV" if name == "svm" else title
        cells = [f"{side['ece']:.1f}, {side['nll']:.2f}" for side in (ours, peer)]
        rows.append([f"probabilities of {what}", command, "ECE %, NLL", *cells, other])
    return rows


def _wrong_labels(stored: dict[str, Any]) -> list[object]:
    sides = [_found(stored["seeds"], side) for side in ("verydeep", "cleanlab")]
    return ["wrong labels", "`data check --features`", "found of those planted; listed", *sides, "cleanlab"]


def _found(seeds: list[dict[str, Any]], side: str) -> str:
    labels = [seed[side]["wrong_labels"] for seed in seeds]
    found, planted, listed = (sum(one[key] for one in labels) for key in ("found", "planted", "listed"))
    return f"{found} of {planted}; {listed}"


def _unknown(stored: dict[str, Any]) -> list[object]:
    means = {
        score: statistics.mean(seed[score]["auroc"] for seed in stored["svm"])
        for score in ("class mean", "probability")
    }
    cells = [f"{means[score]:.3f}" for score in ("class mean", "probability")]
    return ["photos of no class", "`probe`, `predict --reject-at 5`", "AUROC", *cells, "largest probability"]


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        write()
