"""The estimators for scikit-learn: its own checks, and what people do with estimators."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import check_estimator

import verydeep
from conftest import TINY
from verydeep.evaluation.temperature import fit_to_scores, softmax
from verydeep.sklearn import GramLinearSVC, VeryDeepClassifier, VeryDeepFeatures
from verydeep.transfer.solver import Loss
from verydeep.transfer.svm import SvmTrainer

ONE_EPOCH = {**TINY, "max_epochs": 1}
# What scikit-learn's checks cannot hold, with the reason; docs/sklearn.md has the same names.
HINGE = {
    "check_sample_weight_equivalence_on_dense_data": "the hinge is solved to a relative gap of 1e-6, not to rounding"
}
NO_MATRIX = "X is a list of images, so a sparse matrix is refused as no image"
IMAGES = {f"check_estimator_sparse_{kind}": NO_MATRIX for kind in ("tag", "array", "matrix")}
ANY_SIZE = {"check_transformer_general": "images may have any size, so X has no number of features to compare"}


def failures(estimator: Any, expected: dict[str, str]) -> dict[str, str]:
    """The checks of scikit-learn that an estimator does not pass, with their errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = check_estimator(estimator, expected_failed_checks=expected, on_fail=None, on_skip=None)
    assert len(rows) > 35
    assert {row["check_name"] for row in rows if row["status"] == "xfail"} == set(expected)
    return {row["check_name"]: repr(row["exception"]) for row in rows if row["status"] == "failed"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, {}, id="squared hinge"),
        pytest.param({"class_weight": "balanced"}, {}, id="balanced", marks=pytest.mark.slow),
        pytest.param({"loss": "hinge"}, HINGE, id="hinge", marks=pytest.mark.slow),
    ],
)
def test_svms_pass_the_checks_of_scikit_learn(settings: dict[str, Any], expected: dict[str, str]) -> None:
    assert failures(GramLinearSVC(**settings), expected) == {}


def as_images(X: Any) -> Any:
    """A picture for each row of numbers, of stripes as bright as the numbers."""
    rows = np.atleast_2d(np.asarray(X, dtype=np.float64))
    return [np.resize(np.clip(128 + 30 * row, 0, 255).astype(np.uint8), (40, 44)) for row in rows]


class _OfRows:
    """scikit-learn only checks estimators of rows of numbers: each row becomes a picture."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = True
        if tags.classifier_tags is not None:
            tags.classifier_tags.poor_score = True  # after one epoch
        return tags


class FeaturesOfRows(_OfRows, VeryDeepFeatures):
    """Descriptors of rows."""

    def fit(self, X: Any, y: Any = None) -> VeryDeepFeatures:
        """On rows."""
        return super().fit(as_images(X), y)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Of rows."""
        return super().transform(as_images(X))


class ClassifierOfRows(_OfRows, VeryDeepClassifier):
    """A net that is trained on rows."""

    def fit(self, X: Any, y: Any) -> VeryDeepClassifier:
        """On rows."""
        return super().fit(as_images(X), y)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Of rows."""
        return super().predict_proba(as_images(X))


def test_descriptors_pass_the_checks_of_scikit_learn(trained: Path) -> None:
    assert failures(FeaturesOfRows(str(trained)), IMAGES | ANY_SIZE) == {}


@pytest.mark.slow
def test_nets_pass_the_checks_of_scikit_learn() -> None:
    assert failures(ClassifierOfRows("A", settings=ONE_EPOCH), IMAGES) == {}


def rows_of_classes(kinds: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows around one centre per class, the last classes rare."""
    rng = np.random.default_rng(kinds)
    y = np.repeat(np.arange(kinds), np.linspace(40, 5, kinds).astype(int))
    centres = rng.normal(size=(kinds, 30))
    return (centres[y] + 2 * rng.normal(size=(len(y), 30))).astype(np.float32), y


@pytest.mark.parametrize("kinds", [2, 4])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_weighted_svms_are_those_of_scikit_learn(kinds: int, loss: Any) -> None:
    """Of LIBLINEAR with the same weights per image; in scores, as its solution is approximate."""
    X, y = rows_of_classes(kinds)
    weights = compute_sample_weight("balanced", y)
    theirs = LinearSVC(C=0.1, loss=loss, dual=loss == "hinge", tol=1e-8, max_iter=1_000_000)
    theirs.fit(X, y, sample_weight=weights)
    ours = GramLinearSVC(C=0.1, loss=loss, class_weight="balanced").fit(X, y)
    assert ours.duality_gap_ < 1e-4
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-4)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=2e-3)
    again = GramLinearSVC(C=0.1, loss=loss).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(again.coef_, ours.coef_, atol=1e-9)


@pytest.mark.parametrize("loss", ["squared-hinge", "hinge"])
def test_an_image_of_weight_2_counts_as_two(loss: Loss) -> None:
    """In the Gram form and, with many copies of few dimensions, in the primal form."""
    X, y = rows_of_classes(3)
    X, marks = X[:, :2].copy(), np.where(y[:, None] == np.arange(3), 1, -1).astype(np.int8)
    twice = np.where(np.arange(len(y)) % 3 == 0, 2, 1)
    assert len(X) > 10 * (2 + 1)  # the primal form
    for columns in (X, np.tile(X, 10)):
        (weighted,) = SvmTrainer(columns, marks, loss, weights=twice.astype(np.float64)).fit((0.5,))
        (repeated,) = SvmTrainer(columns.repeat(twice, axis=0), marks.repeat(twice, axis=0), loss).fit((0.5,))
        np.testing.assert_allclose(weighted.weights, repeated.weights, atol=2e-5)


@pytest.fixture
def labelled(trained: Path) -> tuple[list[str], list[str]]:
    """Paths of the photos that the tiny net was trained on, and their classes."""
    paths = sorted((trained.parent / "photos").glob("*/*.png"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def forms(paths: list[str]) -> Iterable[Any]:
    """The same images, of equal size, in each form of X."""
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    yield [Path(path) for path in paths]
    yield np.array(paths)
    yield np.array(paths, dtype=object)[:, None]
    yield [Image.open(path) for path in paths]
    yield [Path(path).read_bytes() for path in paths]
    yield pixels
    yield (image for image in pixels)


def test_images_come_in_any_form(trained: Path, labelled: tuple[list[str], list[str]]) -> None:
    paths = labelled[0][:10:2]  # of one size
    features = VeryDeepFeatures(trained, layer="pool5", scales=(36, 48)).fit(None)
    expected = features.transform(paths)
    assert expected.shape == (5, len(features.get_feature_names_out()))
    for images in forms(paths):
        np.testing.assert_array_equal(features.transform(images), expected)


def test_descriptors_are_those_of_a_features_file(trained: Path, tmp_path: Path) -> None:
    settings = verydeep.FeatureSettings("fc7", (36, 40))
    file = verydeep.extract_features(
        trained, str(trained.parent / "photos"), tmp_path / "f.safetensors", settings=settings
    )
    paths = [trained.parent / "photos" / name for name in file.features.ids]
    found = VeryDeepFeatures(trained, scales=(36, 40)).fit_transform(paths)
    np.testing.assert_allclose(
        found, verydeep.combine([file.features.scales], verydeep.DescriptorSettings()), atol=1e-6
    )


def test_a_pipeline_is_searched_cloned_and_pickled(trained: Path, labelled: tuple[list[str], list[str]]) -> None:
    paths, names = labelled
    pipeline = make_pipeline(VeryDeepFeatures(trained), GramLinearSVC())
    grid = {"gramlinearsvc__C": [0.1, 10.0], "verydeepfeatures__layer": ["pool5", "fc7"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(paths, names)
    assert search.score(paths, names) > 0.9
    copy = pickle.dumps(search.best_estimator_)
    assert len(copy) < 100_000  # without the net
    np.testing.assert_array_equal(pickle.loads(copy).predict(paths), search.predict(paths))
    assert clone(search.best_estimator_).get_params()["gramlinearsvc__C"] == search.best_params_["gramlinearsvc__C"]


def test_descriptors_are_columns_of_a_table(trained: Path, labelled: tuple[list[str], list[str]]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"photo": labelled[0]}, index=range(100, 130))
    found = VeryDeepFeatures(trained).set_output(transform="pandas").fit_transform(table[["photo"]])
    assert list(found.index) == list(table.index)
    assert found.columns[0] == "verydeepfeatures0"


def test_a_net_is_trained_and_pickled(labelled: tuple[list[str], list[str]], tmp_path: Path, trained: Path) -> None:
    paths, names = labelled
    numbers = [{"blue": 7, "green": 3, "red": 5}[name] for name in names]
    net = VeryDeepClassifier("A", start=str(trained), settings=ONE_EPOCH | {"lr": 1e-4}, out=tmp_path / "run")
    again = pickle.loads(pickle.dumps(net.fit([Image.open(path) for path in paths], numbers)))
    assert list(net.classes_) == [3, 5, 7]
    np.testing.assert_array_equal(again.predict_proba(paths), net.predict_proba(paths))
    run = verydeep.load(tmp_path / "run")
    assert run.classes == ("3", "5", "7")
    assert net.result_["ended"]
    assert set(net.predict(paths)) <= {3, 5, 7}


BAD = {
    "C": (GramLinearSVC(C=0), "C above 0"),
    "loss": (GramLinearSVC(loss="log"), "squared_hinge or hinge"),  # type: ignore[arg-type]
    "layer": (VeryDeepFeatures("RUN", layer="fc9"), "has no layer 'fc9'"),
    "scale": (VeryDeepFeatures("RUN", scales=(8,)), "scales must be 32"),
    "weights": (VeryDeepFeatures("nowhere"), "nowhere"),
    "net": (VeryDeepClassifier("Z"), "Z"),
    "data": (VeryDeepClassifier("A", settings={"data": "photos"}), "settings contain data"),
    "setting": (VeryDeepClassifier("A", settings={"rate": 1}), "unknown setting 'rate'"),
}


@pytest.mark.parametrize(("estimator", "message"), BAD.values(), ids=BAD)
def test_invalid_parameters_raise_when_fitted(estimator: Any, message: str, trained: Path) -> None:
    if getattr(estimator, "weights", "") == "RUN":
        estimator = clone(estimator).set_params(weights=trained)
    X: Any = np.eye(4) if isinstance(estimator, GramLinearSVC) else [np.zeros((40, 40, 3), np.uint8)] * 4
    with pytest.raises(verydeep.VerydeepError, match=message):
        estimator.fit(X, [0, 0, 1, 1])


def test_our_temperature_is_that_of_scikit_learn() -> None:
    """`CalibratedClassifierCV` on the scores of SVMs, of images that did not train them."""
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
        pytest.skip("scikit-learn has temperature scaling from version 1.8 on")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    rows = rng.normal(size=(600, 6)) + 1.2 * np.eye(4, 6)[labels]
    fit, held_out, others = slice(0, 200), slice(200, 400), slice(400, 600)
    svm = GramLinearSVC().fit(rows[fit], labels[fit])
    theirs = CalibratedClassifierCV(FrozenEstimator(svm), method="temperature").fit(rows[held_out], labels[held_out])
    temperature = fit_to_scores(svm.decision_function(rows[held_out]), labels[held_out])
    ours = softmax(svm.decision_function(rows[others]) / temperature)
    np.testing.assert_allclose(ours, theirs.predict_proba(rows[others]), atol=1e-4)


def test_an_unreadable_image_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    features = VeryDeepFeatures(trained).fit(None)
    with pytest.raises(verydeep.ImageError, match=r"broken\.jpg"):
        features.transform([tmp_path / "broken.jpg"])
    with pytest.raises(TypeError):
        features.transform([1.5])
