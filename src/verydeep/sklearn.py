"""Estimators for scikit-learn: an extra, ``pip install 'verydeep[sklearn]'``.

- `VeryDeepFeatures` (App. B): images to descriptors of a frozen net;
- `GramLinearSVC` (App. B): the exact linear SVM, for descriptors or any other rows of numbers;
- `VeryDeepClassifier` (Sect. 3.1): a net that is trained, or fine-tuned, on the images.

An image is a path, a PIL image, encoded bytes or a uint8 array; X is a list of images, an array (N,H,W,3), or a column
of paths in a table. Invalid parameters and unreadable images raise `verydeep.VerydeepError` when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError("verydeep.sklearn needs scikit-learn 1.6 or newer: pip install 'verydeep[sklearn]'") from None

from .api import live_report
from .checkpoints.load import load_model
from .core.device import resolve_device
from .core.errors import VerydeepError
from .core.progress import Reporter, Silent
from .core.settings import DataSettings, DescriptorSettings, FeatureSettings, MachineSettings
from .core.team import Team
from .data.dataset import Data, Dataset, ImageSource, split
from .data.image_io import Pixels, as_pixels
from .evaluation.predict import listed, name_of
from .training.classification import ClassificationTask
from .training.recipes import settings_of_run
from .training.run import TrainingRun, route
from .transfer.backbone import open_feature_net
from .transfer.fit_layers import fit_start
from .transfer.model import open_model
from .transfer.predict import DescriptorExtractor, NetAtScales, open_extractor
from .transfer.solver import Loss
from .transfer.svm import SvmTrainer

LOSSES: dict[str, Loss] = {"squared_hinge": "squared-hinge", "hinge": "hinge"}


class GramLinearSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear SVMs, one class against the rest, solved to the exact minimum (App. B).

    The objective is that of `sklearn.svm.LinearSVC` with ``intercept_scaling=1``, so C has the same meaning. All
    classes share one Gram matrix, so for descriptors of more dimensions than images it is faster than LIBLINEAR; there
    is no tolerance to choose and no random number.

    Args:
        C: factor of the sum of losses.
        loss: ``squared_hinge`` or ``hinge``.
        class_weight: a weight per class, by which the losses of its images are multiplied; ``balanced`` for weights
            inversely proportional to class frequencies. It equals passing the same weights as ``sample_weight``.
        device: a device of PyTorch with float64.

    Attributes:
        classes_: the K class labels.
        coef_: float64 (K,D); (1,D) for two classes.
        intercept_: float64 (K,); (1,) for two classes.
        duality_gap_: an upper bound on the relative distance to the minimum, the largest over classes.

    >>> GramLinearSVC(C=10.0).fit([[0.0], [1.0], [3.0]], ["low", "low", "high"]).predict([[4.0]]).tolist()
    ['high']
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        device: str = "cpu",
    ) -> None:
        self.C, self.loss, self.class_weight, self.device = C, loss, class_weight, device

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GramLinearSVC:
        """Trains the SVMs.

        Args:
            X: (N,D).
            y: class labels (N,).
            sample_weight: (N,), 0 or more, by which the images' losses are multiplied.
        """
        if self.loss not in LOSSES or not self.C > 0:
            raise VerydeepError(f"loss must be squared_hinge or hinge and C above 0, not {self.loss!r} and {self.C!r}.")
        rows, targets = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(targets)
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        self.classes_, labels = np.unique(targets, return_inverse=True)
        kept = weights > 0
        present = np.unique(labels[kept])
        if len(present) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes; the data have only one class.")
        positive = [1] if len(self.classes_) == 2 else np.arange(len(self.classes_))
        weights = weights * self._class_weights(targets, labels, weights)
        marks = np.where(labels[kept, None] == positive, 1, -1).astype(np.int8)
        given = weights[kept] if (weights != 1).any() else None
        trainer = SvmTrainer(np.ascontiguousarray(rows[kept]), marks, LOSSES[self.loss], self.device, given)
        ((_, coefficients, bias, self.duality_gap_),) = trainer.solutions((float(self.C),))
        self.coef_, self.intercept_ = coefficients.T.cpu().numpy().copy(), bias.cpu().numpy()
        return self

    def _class_weights(
        self, targets: NDArray[Any], labels: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The weight of each image's class, (N,); ``balanced`` counts an image of weight 2 twice."""
        if not isinstance(self.class_weight, str):
            of_images: NDArray[np.float64] = compute_sample_weight(self.class_weight, targets)
            return of_images
        if self.class_weight != "balanced":
            raise ValueError(f"class_weight must be balanced, a mapping or None, not {self.class_weight!r}.")
        totals = np.bincount(labels, weights)
        return np.asarray(weights.sum() / (np.count_nonzero(totals) * np.where(totals > 0, totals, 1)))[labels]

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores (N,K), above 0 where an SVM predicts its class; (N,) for two classes, above 0 for the second."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: NDArray[np.float64] = rows.astype(np.float64) @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The class of the highest score, (N,)."""
        scores = self.decision_function(X)
        labels: NDArray[Any] = self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
        return labels


class _OfImages(BaseEstimator):  # type: ignore[misc]
    """What estimators of images share: X is no table of numbers, so scikit-learn does not validate it."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string, tags.no_validation = False, True, True
        return tags


class VeryDeepFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _OfImages):  # type: ignore[misc]
    """Images to descriptors of a frozen net (App. B), float32 (N,D); nothing is learned from the images.

    Args:
        weights: a run, a checkpoint, a weight file, or the name of released weights.
        layer, scales, pool, mirror: as in `verydeep.FeatureSettings`; without scales the net's own Q.
        aggregate, normalise: as in `verydeep.DescriptorSettings`.
        preprocessing: for weight files that do not record theirs.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Attributes:
        recipe_: the net's file with its hash, the layer and how it is pooled. A pickle holds the recipe and not the
            net, which is loaded again when it is used; a file that has changed since raises an error.
        scales_: the scales Q.
    """

    def __init__(
        self,
        weights: str | Path = "oxford-D",
        *,
        layer: str = "fc7",
        scales: Sequence[int] = (),
        pool: Literal["mean", "max"] = "mean",
        mirror: bool = True,
        aggregate: Literal["stack", "average", "max"] = "stack",
        normalise: Literal["both", "scale", "end", "none"] = "both",
        preprocessing: str = "recorded",
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    ) -> None:
        self.weights, self.layer, self.scales, self.pool, self.mirror = weights, layer, scales, pool, mirror
        self.aggregate, self.normalise, self.preprocessing, self.device = aggregate, normalise, preprocessing, device

    def fit(self, X: Any, y: Any = None) -> VeryDeepFeatures:
        """Opens the net; the images are not read."""
        settings = FeatureSettings(self.layer, tuple(self.scales), self.pool, self.mirror)
        net = open_feature_net(self.weights, settings.layer, self.preprocessing)
        self.scales_ = settings.scales or (net.metadata.test_scale,)
        net.check_scales(self.scales_)
        self.recipe_ = {"net": net.source, "layer": net.layer, "pool": settings.pool, "mirror": settings.mirror}
        self._n_features_out = net.net.specs[-1].outputs * (len(self.scales_) if self.aggregate == "stack" else 1)
        self._extractor: DescriptorExtractor | None = DescriptorExtractor(
            [NetAtScales(net, self.scales_, settings.pool, settings.mirror)],
            DescriptorSettings(self.aggregate, self.normalise),
            resolve_device(self._machine, net.multiply_adds),
        )
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Descriptors (N,D); raises ImageError for an image that cannot be read."""
        check_is_fitted(self)
        if self._extractor is None:
            settings = DescriptorSettings(self.aggregate, self.normalise)
            recipe = {**self.recipe_, "precision": "auto"}
            self._extractor = open_extractor([(recipe, self.scales_)], settings, self._machine)
        return self._extractor.rows(_images(X), None, Silent())

    @property
    def _machine(self) -> MachineSettings:
        return MachineSettings(device=self.device, workers=0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # descriptors are float32
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Without the net."""
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_extractor": None} if "_extractor" in state else state


class VeryDeepClassifier(ClassifierMixin, _OfImages):  # type: ignore[misc]
    """A net that is trained on images, or fine-tuned, by the recipe of `verydeep.train` (Sect. 3.1).

    Args:
        net: a net of Table 1: A to E.
        start: initial weights, as ``--start``: a run, a weight file, a name such as ``oxford-D``, or ``none``.
        settings: further keywords of `verydeep.train`, such as ``{"lr": 1e-3, "max_epochs": 20, "crop": 96}``.
        validation_fraction: fraction of each class that decides when the learning rate drops, and the best epoch.
        protocol: of predictions; by default dense at the Q of the training scale.
        out: folder for the run's files and report; by default they are removed after training.
        random_state: seed of weights, crops and order.

    Attributes:
        classes_: the K class labels.
        model_: the trained net, as `verydeep.load` returns it. A pickle holds it whole.
        result_: how training ended: epochs, steps and the best dev error.
    """

    def __init__(
        self,
        net: str = "D",
        *,
        start: str = "none",
        settings: Mapping[str, Any] | None = None,
        validation_fraction: float = 0.1,
        protocol: str | None = None,
        out: str | Path | None = None,
        random_state: int = 0,
    ) -> None:
        self.net, self.start, self.settings, self.validation_fraction = net, start, settings, validation_fraction
        self.protocol, self.out, self.random_state = protocol, out, random_state

    def fit(self, X: Any, y: ArrayLike) -> VeryDeepClassifier:
        """Trains the net on images and their class labels (N,)."""
        y = np.asarray(y)
        check_classification_targets(y)
        images = _images(X)
        if len(images) != len(y):
            raise ValueError(f"there are {len(images)} images and {len(y)} labels: pass one label for each image.")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes; the data have only one class.")
        machine, data, training = route({"start": self.start, "seed": self.random_state, **(self.settings or {})})
        if data:
            raise VerydeepError(f"settings contain {', '.join(sorted(data))}: the images are those that fit receives.")
        task = _FitTask(images, labels, tuple(map(str, self.classes_)), self.validation_fraction, self.random_state)
        with nullcontext(str(self.out)) if self.out else TemporaryDirectory() as folder:
            place = Path(folder)
            run = TrainingRun(
                *(task, self.net, place, machine, Silent(), Team(), lambda: False, live_report, fit_start)
            )
            self.result_ = run.start(DataSettings(data=MEMORY), settings_of_run(self.net, training))
            self.model_ = open_model(load_model(place), machine)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Posteriors (N,K), in the order of ``classes_``."""
        check_is_fitted(self)
        return self.model_.posteriors(_images(X), self.protocol)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image, (N,)."""
        best = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels


MEMORY = "images-in-memory"


@dataclass(frozen=True)
class _Images(ImageSource):
    """Images given in Python; an id is an image's number."""

    images: list[Any]

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""
        image = self.images[int(image_id)]
        return as_pixels(image, name_of(image, int(image_id)))


class _FitTask(ClassificationTask):
    """Classification of images given in Python, a part of which is the dev part."""

    def __init__(
        self, images: list[Any], labels: NDArray[np.int64], classes: tuple[str, ...], dev: float, seed: int
    ) -> None:
        ids = tuple(f"{number:06d}" for number in range(len(images)))
        dataset = Dataset(MEMORY, "train", classes, ids, labels.astype(np.int64), _Images(images))
        self._data = Data(MEMORY, split(dataset, {"dev": dev}, seed), split_by_us=True)

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The images."""
        return self._data


def _images(X: Any) -> list[Any]:
    """X as a list of images; a table's single column of paths is taken as a list."""
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if getattr(X, "ndim", 1) == 2 and X.shape[1] == 1 and (kind in ("O", "U") or hasattr(X, "columns")):
        X = np.asarray(X, dtype=object)[:, 0]
    return listed(X)
