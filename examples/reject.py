"""Photos of classes that training did not have: what `--reject-at` does to them, and four scores that tell them apart.

    CALTECH101=folder NET_E=run python examples/reject.py run
    python examples/reject.py write     # the stored results into docs/testing.md

`CLASSES` classes of `PHOTOS` photos of Caltech-101 are drawn once. For each seed `LEFT_OUT` of them are left out of
training, and their photos are the unknown ones; the others are split as `verydeep svm own` does. Two classifiers of fc7
descriptors: the linear SVMs, and logistic regression, which is what the last layer of a net is. Scores of a photo:

- probability: the calibrated one of the most likely class, by which `--reject-at` decides for nets
- energy: T log sum exp(score / T) over the classes, with the same temperature T (Liu et al. 2020)
- nearest photo: the cosine of its descriptor and that of the nearest training photo (Sun et al. 2022)
- class mean: the cosine of its descriptor and the nearest class mean, by which `--reject-at` decides for SVMs

For each score a threshold is chosen as `--reject-at 5` does, on the dev part, whose photos the classifier that is asked
was not trained on.
"""

from __future__ import annotations

import csv
import os
import random
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from commands import TOP, run_json
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import DescriptorSettings, SvmSettings
from verydeep.evaluation.rejection import choose_threshold, risk_coverage
from verydeep.evaluation.temperature import softmax
from verydeep.paper.tables import markdown_table, write_block
from verydeep.transfer.descriptors import Array, class_means, combine, similarity
from verydeep.transfer.evaluate import SplitResult, SvmTask
from verydeep.transfer.features_file import Features, load_features
from verydeep.transfer.splits import parts_of

RESULTS = TOP / "docs" / "results" / "reject.json"
RUNS = Path(os.environ.get("REJECT_RUNS", TOP / "runs" / "reject"))
CLASSES, PHOTOS, LEFT_OUT, SEEDS, PERCENT = 30, 30, 10, range(10), 5.0
SCORES = ("probability", "energy", "nearest photo", "class mean")
STUDENT = 2.262  # of 9 degrees of freedom, for 95 %


def describe() -> Features:
    """The descriptors of the photos, which are drawn once."""
    source = Path(os.environ["CALTECH101"]).resolve()
    own = [place for place in source.iterdir() if place.name not in ("BACKGROUND_Google", "Faces_easy")]
    photos = {place.name: sorted(place.glob("*.jpg")) for place in own}
    names = sorted(name for name in photos if len(photos[name]) >= PHOTOS)
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for name in sorted(random.Random(0).sample(names, CLASSES)):
            rows.writerows([path, name] for path in random.Random(name).sample(photos[name], PHOTOS))
    flags = "--layer fc7 --scales 224 --mirror no --threads 1 --workers 0"
    run_json(f"features $NET_E --data {RUNS}/photos.csv {flags} --out {RUNS}/E.safetensors")
    return load_features(RUNS / "E.safetensors")


def of_classes(features: Features, classes: list[int]) -> Features:
    """The images of some classes."""
    chosen = np.flatnonzero(np.isin(features.labels, classes))
    return replace(
        features,
        ids=tuple(features.ids[index] for index in chosen),
        labels=np.searchsorted(classes, features.labels[chosen]),
        sets=("",) * len(chosen),
        classes=tuple(features.classes[number] for number in classes),
        scales={scale: rows[chosen] for scale, rows in features.scales.items()},
    )


def measure(features: Features, classifier: Literal["svm", "logistic"], seed: int) -> dict[str, Any]:
    """What each score does with the test photos of a seed, and with the photos of the classes that are left out."""
    left_out = sorted(random.Random(seed).sample(range(CLASSES), LEFT_OUT))
    known = of_classes(features, [number for number in range(CLASSES) if number not in left_out])
    unknown = combine([of_classes(features, left_out).scales], DescriptorSettings())
    (parts,) = parts_of("own", known, 1, seed)
    settings = SvmSettings(classifier=classifier)
    task = SvmTask("own", known, combine([known.scales], DescriptorSettings()), settings, "cpu")
    split = task.run(parts)
    first = task.trainer(parts.train).fit(settings.C, np.searchsorted(parts.train, parts.fit))
    dev = next(one for one in first if split.C == one.C).scores(task.rows[parts.dev])
    on_dev = _scores(task, split, dev, task.rows[parts.dev], parts.fit)
    on_test = _scores(task, split, split.scores, task.rows[parts.test], parts.train)
    on_unknown = _scores(task, split, split.svm.scores(unknown), unknown, parts.train)
    right = dev.argmax(1) == known.labels[parts.dev], split.scores.argmax(1) == known.labels[parts.test]
    counts = {"dev": len(parts.dev), "test": len(parts.test), "unknown": len(unknown)}
    figures = {score: _figures(on_dev[score], on_test[score], on_unknown[score], right) for score in SCORES}
    return {"seed": seed, **counts, "top1_error": split.top1_error, **figures}


def _scores(
    task: SvmTask, split: SplitResult, scores: NDArray[np.float64], rows: Array, trained: NDArray[np.int64]
) -> dict[str, Any]:
    """Each score of images with their classifier's scores (N,K) and descriptors (N,D), given the training images."""
    known, labels = task.rows[trained], task.features.labels[trained]
    assert split.temperature is not None
    scaled = scores / (split.temperature)
    most = scaled.max(axis=1)
    return {
        "probability": softmax(scaled).max(axis=1),
        "energy": most + np.log(np.exp(scaled - most[:, None]).sum(axis=1)),
        "nearest photo": (rows @ known.T).max(axis=1),
        "class mean": similarity(rows, class_means(known, labels, scores.shape[1])),
    }


def _figures(
    dev: Array, test: Array, unknown: Array, right: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> dict[str, float]:
    """AUROC of known against unknown and of right against wrong; at the threshold, shares in percent."""
    threshold = choose_threshold(risk_coverage(dev, right[0]), PERCENT).threshold
    answered = test >= threshold
    return {
        "auroc": float(roc_auc_score([1] * len(test) + [0] * len(unknown), np.concatenate([test, unknown]))),
        "auroc_right": float(roc_auc_score(right[1], test)),
        "answered": 100 * float(answered.mean()),
        "wrong": 100 * float((~right[1])[answered].mean()),
        "rejected": 100 * float((unknown < threshold).mean()),
    }


def run() -> None:
    """Measures every seed and stores the results."""
    features = describe()
    kinds: tuple[Literal["svm", "logistic"], ...] = ("svm", "logistic")
    rows = {kind: [measure(features, kind, seed) for seed in SEEDS] for kind in kinds}
    write_json(RESULTS, {**rows, "environment": environment({"cores": os.cpu_count()})})


def write() -> None:
    """Writes the stored results into docs/testing.md."""
    stored = read_json(RESULTS)
    rows = []
    for kind, name in (("svm", "linear SVMs"), ("logistic", "logistic regression")):
        for score in SCORES:
            columns = {key: [seed[score][key] for seed in stored[kind]] for key in stored[kind][0][score]}
            gains = [
                one - seed["probability"]["auroc"] for one, seed in zip(columns["auroc"], stored[kind], strict=True)
            ]
            gain = statistics.mean(gains)
            half = STUDENT * statistics.stdev(gains) / len(gains) ** 0.5
            difference = "" if score == "probability" else f"{gain:+.3f} ({gain - half:+.3f} to {gain + half:+.3f})"
            cells = [
                f"{statistics.mean(columns['auroc']):.3f}",
                difference,
                f"{statistics.mean(columns['auroc_right']):.3f}",
            ]
            rows.append(
                [name, score, *cells, *(_with_spread(columns[key]) for key in ("answered", "wrong", "rejected"))]
            )
    heads = [
        "classifier",
        "score",
        "AUROC, known or unknown",
        "less probability's (95 % interval)",
        "AUROC, right or wrong",
    ]
    heads += ["answered %", "wrong among them %", "unknown photos rejected %"]
    first, where = stored["svm"][0], stored["environment"]
    note = (
        f"Mean (± standard deviation) over {len(stored['svm'])} seeds, the last three columns at the threshold of "
        f"`--reject-at {PERCENT:g}`. Each seed: {PHOTOS} photos of each of {CLASSES - LEFT_OUT} known classes of "
        f"Caltech-101, {first['dev']} in dev and {first['test']} in test, and {first['unknown']} photos of {LEFT_OUT} "
        f"other classes; fc7 of net E at Q = 224. {where['processor']}, {where['time'][:10]}, commit {where['commit']}."
    )
    write_block(TOP / "docs" / "testing.md", "reject", f"{markdown_table(heads, rows)}\n\n{note}")


def _with_spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
