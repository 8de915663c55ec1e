"""The error by the number of training images, and what twice as many would gain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_transfer import HERE, made_up

from conftest import Command
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import SvmSettings
from verydeep.transfer.evaluate import Transfer, learn_svms
from verydeep.transfer.features_file import Features, save_features
from verydeep.transfer.learning_curve import Doubling, fit_doubling, learning_curve

ONE_C = SvmSettings(splits=1, C=(10.0,))


def noisy() -> Features:
    """Six classes that are hard to tell apart."""
    features = made_up(kinds=6, photos=60, dimensions=16)
    rows = features.scales[256] + 2 * np.random.default_rng(1).normal(size=(360, 16)).astype(np.float32)
    return replace(features, scales={256: rows})


def svms(place: Path, features: Features, settings: SvmSettings = ONE_C) -> Transfer:
    save_features(place / "f.safetensors", features)
    return learn_svms("own", [place / "f.safetensors"], svm=settings, machine=HERE)


def test_all_images_have_the_error_of_the_split_and_few_have_that_of_scikit_learn(tmp_path: Path) -> None:
    """A point is what LinearSVC gives on the images of the draw: the smaller sets are parts of the larger ones."""
    from sklearn.svm import LinearSVC

    found = svms(tmp_path, noisy())
    curve = learning_curve(found, draws=2, sizes=(5, 20), machine=HERE)
    assert [point.size for point in curve.points] == [5, 20, None]
    assert [point.images for point in curve.points] == [30, 120, 288]  # 60 less a fifth to test
    assert curve.points[-1].top1_errors == (found.splits[0].top1_error,)
    assert curve.points[-1].mean_class_recalls == (found.splits[0].figure,)
    features, parts = found.first, found.splits[0].parts
    rows = features.scales[256] / np.linalg.norm(features.scales[256], axis=1, keepdims=True)
    chosen: list[int] = []
    for label in range(6):
        of_class = [index for index in parts.train if features.labels[index] == label]
        of_class.sort(key=lambda index: hashlib.sha256(f"curve\t1\t{features.ids[index]}".encode()).digest())
        chosen += of_class[:5]
    theirs = LinearSVC(C=10, tol=1e-8, max_iter=100_000, dual=True).fit(rows[chosen], features.labels[chosen])
    wrong = theirs.predict(rows[parts.test]) != features.labels[parts.test]
    assert curve.points[0].top1_errors[1] == pytest.approx(100 * wrong.mean())


def test_the_error_falls_and_a_draw_is_the_same_again(tmp_path: Path) -> None:
    found = svms(tmp_path, noisy())
    curve = learning_curve(found, draws=3, machine=HERE)
    assert [point.size for point in curve.points] == [1, 2, 5, 10, 20, None]  # no class has more than 50
    means = [np.mean(point.top1_errors) for point in curve.points]
    assert means[0] > means[2] > means[-1]
    assert curve == learning_curve(found, draws=3, machine=HERE)
    more = learning_curve(found, draws=4, sizes=(5,), machine=HERE)
    assert more.points[0].top1_errors[:3] == curve.points[2].top1_errors


def test_a_small_class_gives_all_it_has(tmp_path: Path) -> None:
    features = noisy()
    kept = np.flatnonzero((features.labels > 0) | (np.arange(360) < 10))  # 10 images of class 0
    few = replace(
        features,
        ids=tuple(features.ids[index] for index in kept),
        labels=features.labels[kept],
        sets=("",) * len(kept),
        scales={256: features.scales[256][kept]},
    )
    curve = learning_curve(svms(tmp_path, few), draws=1, sizes=(5, 20), machine=HERE)
    assert [point.images for point in curve.points] == [30, 5 * 20 + 8, 5 * 48 + 8]


def test_a_power_law_is_found_again() -> None:
    """Errors of 40 n^-.5 %: twice 1600 images would gain 40 (1 - 2^-.5) / 40 points, with test images enough."""
    images, tests = [100, 200, 400, 800, 1600], 200_000
    wrong = [np.arange(tests)[None] < tests * 0.4 * count**-0.5 for count in images]
    found = fit_doubling(images, wrong)
    assert found is not None
    assert found.fitted_from == 200
    assert found.gain == pytest.approx(1 - 2**-0.5, abs=0.01)
    assert found.law[1] == pytest.approx(0.5, abs=0.01)
    assert found.interval[0] < found.gain < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.1
    few = fit_doubling(images, [row[:, :: tests // 200] for row in wrong])
    assert few is not None
    assert few.interval[1] - few.interval[0] > 0.4  # of 200 test images
    assert fit_doubling([10, 100], wrong[:2]) is None


def test_no_error_gains_nothing() -> None:
    found = fit_doubling([10, 20], [np.zeros((2, 50), dtype=bool)] * 2)
    assert found is not None
    assert found.gain == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("gain", "interval", "sentence"),
    [
        (1.24, (0.6, 1.9), "Doubling the images would gain about 1.2 points (95 % interval 0.6 to 1.9) of top-1"),
        (0.2, (-0.1, 0.5), "More images of these classes would gain little: twice as many about 0.2 points"),
        (1.2, (-0.4, 2.8), "It is not clear whether more images would help: twice as many would gain about 1.2"),
    ],
)
def test_sentences(gain: float, interval: tuple[float, float], sentence: str) -> None:
    assert Doubling(gain, interval, (1.0, 1.0), 10).sentence.startswith(sentence)


def test_the_command_prints_it_and_the_report_shows_it(command: Command, tmp_path: Path) -> None:
    save_features(tmp_path / "f.safetensors", noisy())
    words = ("svm", "own", "--features", "f.safetensors", "--out", "svm", "--C", "10", "--curve", "--draws", "2")
    shown = command(*words, cwd=tmp_path)
    assert shown.status == 0, shown.stderr
    assert "top1 error" in shown.stdout
    curve = json.loads((tmp_path / "svm" / "result.json").read_text())["curve"]
    assert shown.stdout.splitlines()[-2] == curve["sentence"]
    assert [point["images_per_class"] for point in curve["points"]] == [1, 2, 5, 10, 20, None]
    assert [point["draws"] for point in curve["points"]] == [2] * 5 + [1]
    page = (tmp_path / "svm" / "report.html").read_text()
    assert curve["sentence"] in page
    assert "top-1 error (%) by training images per class" in page
    refused = command("svm", "own", "--features", "f.safetensors", "--draws", "2", cwd=tmp_path).mistake()
    assert "--draws is of the learning curve: add --curve" in refused
    refused = command("svm", "own", "--features", "f.safetensors", "--curve", "--draws", "0", cwd=tmp_path).mistake()
    assert "draws must be 1 to 100, not 0" in refused


def test_images_of_several_classes_have_no_curve(tmp_path: Path) -> None:
    features = noisy()
    marks = np.where(features.labels[:, None] == np.arange(6), 1, -1).astype(np.int8)
    sets = tuple(np.resize(["train", "val", "test"], len(features)).tolist())
    save_features(tmp_path / "several.safetensors", replace(features, marks=marks, sets=sets, data="voc2007"))
    found = learn_svms("voc2007", [tmp_path / "several.safetensors"], svm=ONE_C, machine=HERE)
    with pytest.raises(VerydeepError, match="a curve needs test images of one class each, unlike voc2007"):
        learning_curve(found)
