"""Prediction of classes and their probabilities for new images, by dense evaluation (Sect. 3.2)."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checkpoints.checkpoint import RISK_COVERAGE, Metadata
from ..checkpoints.load import Loaded
from ..core.device import Machine, resolve_device
from ..core.errors import ImageError, NotAnImageError, VerydeepError
from ..core.paths import files_matching
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings
from ..core.team import Team
from ..core.url import is_url
from ..data.fetch import STDIN, download_image, image_of_stdin
from ..data.image_io import Pixels, as_pixels
from ..data.walk import HIDDEN, LINKS, SYSTEM, Skipped, files_below, is_system, unread_sentences
from ..models.vgg import Net
from .agreement import POSTERIORS, Agreement, agreed_machine
from .inference import InferenceModel, ResizeToScales, posteriors
from .protocols import Protocol, check_protocol, parse_protocol
from .rejection import Rejection, choose_threshold
from .temperature import temperature_of, tempered

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The top classes of an image, the most probable first: (class, probability).

    For SVMs the ``kind`` of value is a score instead: any number, above 0 for the class. Calibrated SVMs have
    ``probabilities`` too, one for each class. ``unknown`` says whether the image is rejected, None without `reject_at`.
    ``labels`` are all classes that the image has, perhaps none, by SVMs of images of several classes; else None.
    """

    image: str
    classes: tuple[tuple[str, float], ...]
    kind: Literal["probability", "score"] = "probability"
    probabilities: tuple[float, ...] = ()
    unknown: bool | None = None
    labels: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """``{image, predictions: [{class, probability}]}``; SVMs have ``score``, and ``probability`` if calibrated.

        With ``reject_at`` there is ``unknown``, and of images of several classes ``labels``.
        """
        rows = [{"class": name, self.kind: round(value, 6)} for name, value in self.classes]
        for row, probability in zip(rows, self.probabilities, strict=False):
            row["probability"] = round(probability, 6)
        unknown = {} if self.unknown is None else {"unknown": self.unknown}
        labels = {} if self.labels is None else {"labels": list(self.labels)}
        return {"image": self.image, "predictions": rows, **labels, **unknown}


@dataclass(eq=False)
class Classifier:
    """A classification model on a device, with its metadata: an exported file, or the base of `verydeep.Model`."""

    net: InferenceModel
    metadata: Metadata
    machine: Machine

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the net's outputs."""
        return self.metadata.classes

    def posteriors(
        self,
        images: Any,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> NDArray[np.float32]:
        """Posteriors (N,K) of images, never calibrated, as `evaluate` stores them.

        Arguments are as for `predict`; unreadable images have a row of zeros.
        """
        images = listed(images)
        tested = self._protocol(protocol)
        check_protocol(tested, self.metadata.crop)
        reporter = reporter or Silent()

        def of_sample(classifier: Classifier, indices: Sequence[int]) -> NDArray[np.float32]:
            return classifier._posteriors([images[index] for index in indices], tested, {}, Silent())

        agreed, _ = self.in_agreed_precision(len(images), tested, of_sample, reporter)
        return agreed._posteriors(images, tested, faults, reporter)

    def _posteriors(
        self, images: list[Any], protocol: Protocol, faults: dict[int, str] | None, reporter: Reporter
    ) -> NDArray[np.float32]:
        views = each_image(images, ResizeToScales.for_net(self.metadata, protocol), faults)
        total, mean = len(images) * len(protocol.scales), np.array(self.metadata.mean)
        with self.machine.running(), reporter.track("predicting", total) as advance:
            return posteriors(
                self.net, mean, protocol, views, len(images), self.machine, lambda n: advance(n, "")
            ).posteriors

    def in_agreed_precision(
        self,
        count: int,
        protocol: Protocol,
        of_sample: Callable[[Classifier, Sequence[int]], NDArray[np.float32]],
        reporter: Reporter,
        team: Team | None = None,
    ) -> tuple[Classifier, Agreement | None]:
        """This classifier in the precision that `agreed_machine` chooses; an exported file keeps its own.

        Args:
            count: images to classify.
            of_sample: the posteriors (n,K) by a classifier of the images at some indices.
        """
        work = count * len(protocol.scales) * self.metadata.multiply_adds if isinstance(self.net, Net) else 0
        machine, agreement = agreed_machine(
            *(self.machine, count, work),
            lambda machine, indices: of_sample(Classifier(self.net, self.metadata, machine), indices),
            *(POSTERIORS, reporter, team),
        )
        return Classifier(self.net, self.metadata, machine), agreement

    def predict(
        self,
        images: Any,
        top: int = 5,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
        reject_at: float | None = None,
    ) -> list[Prediction]:
        """Predicts the most probable classes of each image, calibrated where `verydeep calibrate` has fitted this.

        Args:
            images: one image or several, in a list, a generator or an array (N,H,W,3): paths, PIL images, open files,
                encoded bytes, uint8 arrays or tensors as `verydeep.data.image_io.as_pixels` takes them.
            top: number of classes, at least 1; all if there are fewer.
            protocol: such as ``dense@256,384``; by default dense at the Q of the training scale.
            faults: receives the messages of unreadable images, by index; these images are skipped.
            reject_at: a percentage of errors; images whose calibrated probability is too low for it are ``unknown``
                (`verydeep.evaluation.rejection`).

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None; the message names it. For an object that is not
                an image it is a NotAnImageError, which is also a TypeError.
            VerydeepError: ``reject_at`` without a calibration of the protocol.
        """
        check_top(top)
        rejection = None if reject_at is None else self.rejection(reject_at, protocol)
        images = listed(images)
        values, temperature = self.posteriors(images, protocol, faults, reporter), self.temperature(protocol)
        for note in (self.calibration_note(protocol), "" if rejection is None else str(rejection)):
            if note:
                (reporter or Silent()).say(note)
        shown = values if temperature is None else tempered(values, temperature)
        best = best_classes(images, values, self.classes, top, faults or {}, shown=shown)
        return best if rejection is None else with_unknown(best, shown.max(axis=1), rejection, faults or {})

    def temperature(self, protocol: str | None = None) -> float | None:
        """The temperature that `predict` applies; None where `verydeep calibrate` has fitted none for the protocol."""
        return temperature_of(self.metadata.calibration, self._protocol(protocol))

    def rejection(self, percent: float, protocol: str | None = None) -> Rejection:
        """The threshold below which images are unknown, for a percentage of errors; raises VerydeepError for none."""
        tested = self._protocol(protocol)
        curve = self.metadata.calibration.get(str(tested), {}).get(RISK_COVERAGE)
        if curve is None:
            raise VerydeepError(f"{tested} has no threshold yet: run `verydeep calibrate RUN {tested}` first.")
        return choose_threshold(curve, percent)

    def calibration_note(self, protocol: str | None = None) -> str:
        """Whether probabilities are calibrated, as a line of text; empty for a net that never was."""
        if not self.metadata.calibration:
            return ""
        tested, temperature = self._protocol(protocol), self.temperature(protocol)
        if temperature is None:
            return f"probabilities are not calibrated for {tested}: `verydeep calibrate` does that"
        return f"probabilities are calibrated for {tested} (temperature {temperature:.3f})"

    def _protocol(self, protocol: str | None) -> Protocol:
        return parse_protocol(protocol) if protocol else usual_protocol(self.metadata)


def usual_protocol(metadata: Metadata) -> Protocol:
    """The default protocol of a net: dense, at the Q of its training scale."""
    return Protocol("dense", (metadata.test_scale,), mirror=True)


def check_top(top: object) -> None:
    """Raises VerydeepError for anything but a positive integer; NumPy's integers are allowed."""
    if not isinstance(top, int | np.integer) or top < 1:
        raise VerydeepError(f"top must be 1 or more, not {top!r}.")


def best_classes(
    images: list[Any],
    values: NDArray[np.floating],
    classes: tuple[str, ...],
    top: int,
    skipped: Container[int],
    kind: Literal["probability", "score"] = "probability",
    shown: NDArray[np.floating] | None = None,
) -> list[Prediction]:
    """The ``top`` classes of each image by its values (N,K), except for the ``skipped`` images.

    Args:
        shown: what the predictions hold, (N,K), by default the values. Calibrated probabilities do not rank: their
            rounding may not change the order.
    """
    best = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        Prediction(name_of(image, index), tuple((classes[k], float(row[k])) for k in ranks), kind)
        for index, (image, row, ranks) in enumerate(zip(images, values if shown is None else shown, best, strict=True))
        if index not in skipped
    ]


def with_unknown(
    predictions: list[Prediction], scores: NDArray[np.floating], rejection: Rejection, skipped: Container[int]
) -> list[Prediction]:
    """Predictions that say whether the image is unknown, by the scores (N,) of all images but the ``skipped`` ones."""
    kept = (score for index, score in enumerate(scores.tolist()) if index not in skipped)
    return [replace(one, unknown=score < rejection.threshold) for one, score in zip(predictions, kept, strict=True)]


def listed(images: Any) -> list[Any]:
    """One image, or several in a list, a generator or an array (N,H,W,C) or (N,C,H,W), as a list.

    Open files are read, as an image may be needed more than once. Items that are not images raise when they are used.

    Raises:
        NotAnImageError: neither an image nor a sequence of images.
    """
    shape, kind = getattr(images, "shape", None), getattr(getattr(images, "dtype", None), "kind", "")
    single = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    one_array = shape is not None and len(shape) != 4 and kind not in ("O", "U")  # arrays of paths are lists
    if single or one_array or hasattr(images, "read"):
        images = [images]
    elif not isinstance(images, Iterable) or isinstance(images, Mapping | Set):
        raise NotAnImageError(f"images must be one image or a list of them, not a {type(images).__name__}.")
    return [_read(image) if hasattr(image, "read") else image for image in images]


def _read(file: Any) -> Any:
    """An open file's bytes, or the file itself if reading fails, for which `as_pixels` raises."""
    try:
        data = file.read()
    except (OSError, ValueError):
        return file
    return data if isinstance(data, bytes) else file


def name_of(image: Any, index: int) -> str:
    """The name of an image in messages: its path, or its index in the list."""
    if isinstance(image, str):
        return image  # a NamedImage stays one, so that it can be read again
    return str(image) if isinstance(image, os.PathLike) else f"image {index}"


def each_image(
    images: Sequence[Any], transform: Callable[[Pixels], T], faults: dict[int, str] | None, first: int = 0
) -> Iterator[tuple[int, T]]:
    """Reads and transforms images in files or in memory; yields each with its index, counted from ``first``.

    Args:
        faults: receives the message of each unreadable image by index; None raises instead.

    Raises:
        ImageError: an image cannot be read or transformed, and ``faults`` is None; the message names it.
    """
    for index, image in enumerate(images, first):
        name = name_of(image, index)
        try:
            yield index, transform(as_pixels(image, name))
        except ImageError as fault:
            named = fault.named(name)
            if faults is None:
                raise named from None
            faults[index] = str(named)


def place_classifier(checkpoint: Loaded, settings: MachineSettings) -> Classifier:
    """Places the net of a loaded file on the device of the settings."""
    machine = resolve_device(replace(settings, compile=False), checkpoint.metadata.multiply_adds)
    net = checkpoint.net()
    machine.place_model(net)
    return Classifier(net, checkpoint.metadata, machine)


def find_all(patterns: Iterable[str], reporter: Reporter | None = None) -> tuple[list[str], list[str]]:
    """The images that match any of several patterns, each once, and the messages of patterns without matches."""
    reporter = reporter or Silent()
    photos: dict[str, None] = {}
    problems: list[str] = []
    for pattern in dict.fromkeys(patterns):
        try:
            photos |= dict.fromkeys(find_photos(pattern, problems, reporter))
        except ImageError as problem:
            problems.append(str(problem))
        except OSError as fault:  # a name that is too long, say
            problems.append(f"cannot read {pattern}: {fault.strerror or fault}.")
    return list(photos), problems


def find_photos(pattern: str | Path, problems: list[str] | None = None, reporter: Reporter | None = None) -> list[str]:
    """The images of a file name, a directory (sorted), a glob, a URL, which is downloaded, or ``-``, standard input.

    Args:
        problems: receives the messages about unreadable directories and images of unsupported formats.

    Raises:
        ImageError: there are none.
        VerydeepError: a directory cannot be read, without ``problems``.
    """
    if pattern == STDIN:
        return [image_of_stdin()]
    if isinstance(pattern, str) and is_url(pattern):
        return [download_image(pattern, reporter)]
    path = Path(pattern)
    if path.is_dir():
        return _photos_below(path, problems, reporter or Silent())
    if path.exists() or not glob.has_magic(str(pattern)):
        return [str(path)]
    photos = [item for item in files_matching(str(pattern)) if not is_system(item, path)]
    if not photos:
        raise ImageError(f"no file matches {pattern}.")
    return photos


def _photos_below(folder: Path, problems: list[str] | None, reporter: Reporter) -> list[str]:
    skipped = Skipped(str(folder))
    photos = sorted(map(str, files_below(folder, skipped, problems=problems)))
    unread = unread_sentences(skipped)
    counts = [f"{skipped.counts[kind]} {kind}" for kind in (HIDDEN, SYSTEM, LINKS) if kind in skipped.counts]
    if counts:
        reporter.say(f"{folder}: skipped {', '.join(counts)}")
    if problems is not None:
        problems += unread
    if not photos:
        raise ImageError(" ".join([f"{folder} has no images of a supported format.", *([] if problems else unread)]))
    return photos
