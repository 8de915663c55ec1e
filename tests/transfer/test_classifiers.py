"""Logistic regression and nearest neighbours on descriptors, beside scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_transfer import HERE, made_up

from conftest import Command
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import SvmSettings
from verydeep.transfer.classifiers import TEMPERATURE, LogisticTrainer, NeighbourTrainer
from verydeep.transfer.evaluate import learn_svms
from verydeep.transfer.features_file import load_features, save_features
from verydeep.transfer.learning_curve import learning_curve
from verydeep.transfer.svm_file import load_svm, write_transfer


def problem(dimensions: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int8]]:
    """Descriptors of length 1 (n,D), labels (n,) and marks (n,K)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    rows = rng.normal(size=(4, dimensions))[labels] + rng.normal(size=(120, dimensions))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels, np.where(labels[:, None] == np.arange(4), 1, -1).astype(np.int8)


@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_is_scikit_learns(weighted: bool) -> None:
    """Scores of a soft-max are known up to a constant per image."""
    from sklearn.linear_model import LogisticRegression

    rows, labels, marks = problem()
    factors = {k: 1.0 + k for k in range(4)} if weighted else None
    weights = 1 + labels.astype(np.float64) if weighted else None
    for found in LogisticTrainer(rows, marks, "cpu", weights).fit((10.0, 0.1)):
        theirs = LogisticRegression(C=found.C, class_weight=factors, tol=1e-8, max_iter=5000).fit(rows, labels)
        ours, expected = found.scores(rows), theirs.decision_function(rows)
        centred = ours - ours.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(centred, expected - expected.mean(axis=1, keepdims=True), atol=0.02)


def test_images_of_several_classes_have_a_regression_per_class() -> None:
    """Images marked 0 do not count."""
    from sklearn.linear_model import LogisticRegression

    rows, _, marks = problem()
    marks[::7, 0], marks[::5, 1] = 0, 1
    (found,) = LogisticTrainer(rows, marks, "cpu", None).fit((5.0,))
    for number in range(4):
        kept = marks[:, number] != 0
        theirs = LogisticRegression(C=5.0, tol=1e-8, max_iter=5000).fit(rows[kept], marks[kept, number])
        np.testing.assert_allclose(found.scores(rows)[:, number], theirs.decision_function(rows), atol=0.02)


@pytest.mark.parametrize("k", [1, 7, 500])
def test_nearest_neighbours_are_scikit_learns(k: int) -> None:
    """More than there are images: all of them vote."""
    from sklearn.neighbors import KNeighborsClassifier

    rows, labels, marks = problem()
    (found,) = NeighbourTrainer(3 * rows, marks).fit((k,), np.arange(0, 120, 2))
    votes = KNeighborsClassifier(min(k, 60), metric="cosine", weights=lambda gap: np.exp((1 - gap) / TEMPERATURE))
    expected = votes.fit(rows[::2], labels[::2]).predict_proba(rows[1::2])
    np.testing.assert_allclose(found.scores(rows[1::2]), expected, atol=1e-4)


def test_ignored_neighbours_do_not_vote() -> None:
    rows = np.eye(3, dtype=np.float32)
    (found,) = NeighbourTrainer(rows, np.array([[1], [0], [-1]], np.int8)).fit((3,))
    assert found.scores(np.ones((1, 3), np.float32))[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_results_files_and_curve(classifier: str, tmp_path: Path) -> None:
    save_features(tmp_path / "f.safetensors", made_up())
    settings = SvmSettings(splits=2, classifier=classifier, C=(1.0, 10.0))  # type: ignore[arg-type]
    found = learn_svms("own", [tmp_path / "f.safetensors"], svm=settings, machine=HERE)
    curve = learning_curve(found, draws=2, sizes=(2,), machine=HERE)
    told = write_transfer(found, tmp_path / "out", curve)
    parameter = "k" if classifier == "knn" else "C"
    assert told["classifier"] == classifier
    assert told["splits"][0][parameter] == told["curve"][parameter] == found.splits[0].C
    assert told["splits"][0]["duality_gap"] is None
    assert told["mean_class_recall"] > 80
    stored = load_svm(tmp_path / "out" / "classifier.safetensors")
    features = load_features(tmp_path / "f.safetensors")
    rows = features.scales[256] / np.linalg.norm(features.scales[256], axis=1, keepdims=True)
    assert stored.dimensions == 12
    scores = stored.classifier.scores(rows[found.splits[0].parts.test])
    np.testing.assert_allclose(scores, found.splits[0].scores, atol=1e-4)


def test_settings_of_other_classifiers_are_refused() -> None:
    for wrong, sentence in (
        ({"classifier": "knn", "loss": "hinge"}, "loss is of SVMs: leave it out for classifier knn"),
        ({"k": (3,)}, "k is of classifier knn, not of svm"),
        ({"classifier": "knn", "k": (0,)}, "k must list different numbers of neighbours, 1 or more, not '0'"),
        ({"classifier": "knn", "class_weights": "balanced"}, "class-weights is of classifiers svm and logistic"),
    ):
        with pytest.raises(VerydeepError, match=sentence):
            SvmSettings(**wrong)


def test_a_probe_by_nearest_neighbours_predicts(command: Command, trained: Path, tmp_path: Path) -> None:
    photos = trained.parent / "photos"
    words = ("probe", "--data", photos, "--weights", trained, "--out", "out", "--splits", 1)
    (tmp_path / "listed.csv").write_text("image\nred/000.png\n")
    done = command(*words, "--classifier", "knn", "--k", "1,3", "--exclude", "listed.csv", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["excluded"] == 1
    assert "Nearest neighbours on" in (tmp_path / "out" / "report.html").read_text()
    asked = command("predict", "out", photos / "red" / "003.png", "--json", "--top", 1, cwd=tmp_path)
    ((best,),) = (answer["predictions"] for answer in json.loads(asked.stdout))
    assert (best["class"], best["score"]) == ("red", pytest.approx(1))
    refused = command(*words, "--classifier", "tree", cwd=tmp_path).mistake()
    assert "classifier must be one of svm, logistic, knn, not 'tree'" in refused
