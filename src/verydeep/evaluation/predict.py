"""Asking a trained net about new photos: class names and probabilities, by dense testing (Sect. 3.2)."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.load import Loaded, load_model
from ..core.device import Machine, resolve_device
from ..core.errors import ImageError, NotAnImageError, VerydeepError
from ..core.paths import files_matching
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings
from ..data.image_io import Pixels, as_pixels
from ..data.walk import HIDDEN, LINKS, SYSTEM, Skipped, files_below, is_system, unread_sentences
from .inference import InferenceModel, ResizeToScales, posteriors
from .protocols import Protocol, check_protocol, parse_protocol


@dataclass(frozen=True)
class Prediction:
    """One photo's best classes, the likeliest first: (class, probability) with probability 0 to 1.

    An SVM's ``kind`` of value is a score instead: any number, above 0 where it says yes.
    """

    image: str
    classes: tuple[tuple[str, float], ...]
    kind: Literal["probability", "score"] = "probability"

    def to_json(self) -> dict[str, Any]:
        """``{image, predictions: [{class, probability}]}``; of an SVM ``score`` in place of ``probability``."""
        rows = [{"class": name, self.kind: round(value, 6)} for name, value in self.classes]
        return {"image": self.image, "predictions": rows}


@dataclass(frozen=True)
class Classifier:
    """A trained net with what it needs to be asked: `predict` takes files and images in memory."""

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
        """Posteriors (N,K) of images; arguments as for `predict`, and unreadable images have a row of zeros."""
        images = listed(images)
        asked = parse_protocol(protocol) if protocol else usual_protocol(self.metadata)
        check_protocol(asked, self.metadata.crop)
        views = ResizeToScales.for_net(self.metadata, asked)

        def shown() -> Iterator[tuple[int, list[Pixels]]]:
            for index, image in enumerate(images):
                try:
                    yield index, views(as_pixels(image, name_of(image, index)))
                except ImageError as fault:
                    named = fault.named(name_of(image, index))
                    if faults is None:
                        raise named from None
                    faults[index] = str(named)

        total = len(images) * len(asked.scales)
        with self.machine.running(), (reporter or Silent()).track("asking", total) as advance:
            mean = np.array(self.metadata.mean)
            return posteriors(
                self.net, mean, asked, shown(), len(images), self.machine, lambda n: advance(n, "")
            ).posteriors

    def predict(
        self,
        images: Any,
        top: int = 5,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> list[Prediction]:
        """The best classes of each image.

        Args:
            images: one image or several, in a list, a generator or an array (N,H,W,3): paths, PIL images, open files,
                encoded bytes, uint8 arrays or tensors as `verydeep.data.image_io.as_pixels` takes them.
            top: how many classes, at least 1; all where there are fewer.
            protocol: such as ``dense@256,384``; by default dense at the Q of the training scale.
            faults: takes the sentences of unreadable images, by index, which are then left out.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None; the sentence names it. What is no image is a
                NotAnImageError, which is a TypeError too.
        """
        check_top(top)
        asked = listed(images)
        found = self.posteriors(asked, protocol, faults, reporter)
        return best_classes(asked, found, self.classes, top, faults or {})


def usual_protocol(metadata: Metadata) -> Protocol:
    """How a net is tested unless told otherwise: densely, at the Q of its training scale."""
    return Protocol("dense", (metadata.test_scale,), mirror=True)


def check_top(top: object) -> None:
    """Raises VerydeepError where a number of answers is none; NumPy's whole numbers are."""
    if not isinstance(top, int | np.integer) or top < 1:
        raise VerydeepError(f"top must be 1 or more, not {top!r}.")


def best_classes(
    asked: list[Any],
    found: NDArray[np.floating],
    classes: tuple[str, ...],
    top: int,
    left_out: Container[int],
    kind: Literal["probability", "score"] = "probability",
) -> list[Prediction]:
    """The ``top`` best classes of each image by its values (N,K), but of those ``left_out``."""
    best = np.argsort(-found, axis=1, kind="stable")[:, :top]
    return [
        Prediction(name_of(image, index), tuple((classes[k], float(row[k])) for k in ranks), kind)
        for index, (image, row, ranks) in enumerate(zip(asked, found, best, strict=True))
        if index not in left_out
    ]


def listed(images: Any) -> list[Any]:
    """One image, or several in a list, a generator or an array (N,H,W,C) or (N,C,H,W), as a list.

    Open files are read, as an image may be needed more than once; what is no image is told when it is used.

    Raises:
        NotAnImageError: neither an image nor something that has images in order.
    """
    shape, kind = getattr(images, "shape", None), getattr(getattr(images, "dtype", None), "kind", "")
    held = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    one_array = shape is not None and len(shape) != 4 and kind not in ("O", "U")  # those of paths are lists
    if held or one_array or hasattr(images, "read"):
        found = [images]
    elif isinstance(images, Iterable) and not isinstance(images, Mapping | Set):
        found = list(images)
    else:
        raise NotAnImageError(f"images are one image or a list of them, not a {type(images).__name__}.")
    return [_read(image) if hasattr(image, "read") else image for image in found]


def _read(file: Any) -> Any:
    """An open file's bytes, or the file itself where `as_pixels` tells what is wrong with it."""
    try:
        data = file.read()
    except (OSError, ValueError):
        return file
    return data if isinstance(data, bytes) else file


def name_of(image: Any, index: int) -> str:
    """What to call an image: its path, or its place in the list."""
    return str(image) if isinstance(image, str | os.PathLike) else f"image {index}"


def load_net(run: str | Path, last: bool, machine: MachineSettings) -> Classifier:
    """The net of a run's folder (its best, or ``last``) or of a file, ready to be asked.

    Raises:
        VerydeepError: as `verydeep.checkpoints.load.load_model`.
    """
    return place_classifier(load_model(run, last), machine)


def place_classifier(checkpoint: Loaded, settings: MachineSettings) -> Classifier:
    """The net of an opened file on the device of the settings."""
    machine = resolve_device(replace(settings, compile=False), checkpoint.metadata.multiply_adds)
    net = checkpoint.net()
    machine.place_model(net)
    return Classifier(net, checkpoint.metadata, machine)


def find_all(patterns: Iterable[str], reporter: Reporter | None = None) -> tuple[list[str], list[str]]:
    """The photos that several patterns stand for, each once, and the sentences of those that stand for none."""
    reporter = reporter or Silent()
    photos: dict[str, None] = {}
    problems: list[str] = []
    for pattern in patterns:
        try:
            photos |= dict.fromkeys(find_photos(pattern, problems, reporter))
        except ImageError as problem:
            problems.append(str(problem))
        except OSError as fault:  # a name that is too long, say
            problems.append(f"cannot read {pattern}: {fault.strerror or fault}.")
    return list(photos), problems


def find_photos(pattern: str | Path, problems: list[str] | None = None, reporter: Reporter | None = None) -> list[str]:
    """The photos a file name, a folder (its photos, sorted) or a glob stands for.

    Args:
        problems: takes the sentences on folders that cannot be read and on images of formats that are not read.

    Raises:
        ImageError: there are none.
        VerydeepError: a folder cannot be read, without ``problems``.
    """
    path = Path(pattern)
    if path.is_dir():
        return _photos_below(path, problems, reporter or Silent())
    if path.exists() or not glob.has_magic(str(pattern)):
        return [str(path)]
    found = [item for item in files_matching(str(pattern)) if not is_system(item, path)]
    if not found:
        raise ImageError(f"no file matches {pattern}.")
    return found


def _photos_below(folder: Path, problems: list[str] | None, reporter: Reporter) -> list[str]:
    skipped = Skipped(str(folder))
    found = sorted(map(str, files_below(folder, skipped, problems=problems)))
    unread = unread_sentences(skipped)
    passed_over = {kind: skipped.counts[kind] for kind in (HIDDEN, SYSTEM, LINKS) if kind in skipped.counts}
    if passed_over:
        reporter.say(f"{folder}: skipped {', '.join(f'{count} {kind}' for kind, count in passed_over.items())}")
    if problems is not None:
        problems += unread
    if not found:
        raise ImageError(" ".join([f"{folder} holds no photos that are read.", *([] if problems else unread)]))
    return found
