"""App. B: asking a linear SVM on descriptors about new photos, as a net is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings
from ..evaluation.predict import Prediction, best_classes, check_top, listed, name_of
from .predict import DescriptorExtractor
from .svm_file import SvmFile, load_svm


@dataclass(frozen=True)
class SvmClassifier:
    """SVMs with the nets that describe photos for them; what `predict` gives a class is a score, no probability."""

    file: SvmFile
    describer: DescriptorExtractor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return self.file.classes

    def scores(
        self, images: Any, faults: dict[int, str] | None = None, reporter: Reporter | None = None
    ) -> NDArray[np.float64]:
        """Scores (N,K) of images, above 0 where an SVM says yes; arguments as for `predict`."""
        asked = listed(images)
        names = [name_of(image, index) for index, image in enumerate(asked)]
        rows = self.describer.rows(asked, names, faults, reporter or Silent())
        if rows.shape[1] == 0:
            return np.zeros((len(asked), len(self.classes)))
        if rows.shape[1] != len(self.file.weights):
            raise VerydeepError("the classifier does not fit the net that it names: make it anew with `verydeep svm`.")
        found: NDArray[np.float64] = rows.astype(np.float64) @ self.file.weights + self.file.bias
        return found

    def predict(
        self,
        images: Any,
        top: int = 5,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> list[Prediction]:
        """The best classes of each image; arguments as for `Classifier.predict`.

        Raises:
            VerydeepError: a protocol is given: the descriptors have their own.
        """
        if protocol is not None:
            raise VerydeepError("a classifier on descriptors has its own layer and scales: leave out --protocol.")
        check_top(top)
        asked = listed(images)
        told: dict[int, str] = {}
        found = self.scores(asked, None if faults is None else told, reporter)
        if faults is not None:
            faults.update(told)
        return best_classes(asked, found, self.classes, top, told, "score")


def load_svm_classifier(path: Path, machine: MachineSettings) -> SvmClassifier:
    """A classifier file with its nets; raises VerydeepError where it, or one of them, is gone or broken."""
    file = load_svm(path)
    nets = [(net["recipe"], net["scales"]) for net in file.nets]
    return SvmClassifier(file, DescriptorExtractor(nets, file.descriptor, machine))
