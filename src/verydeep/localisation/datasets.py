"""App. A: the sets of a localisation model: to test on, to tune t on, to compute a constant box from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..checkpoints.checkpoint import Metadata
from ..core.errors import VerydeepError
from ..core.files import short_name
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings
from ..data.box_targets import located
from ..data.class_names import places_in
from ..data.open import Data, Dataset, check_still_there, lasting_boxes, lasting_name, moved, open_data, relabel


@dataclass(frozen=True)
class BoxSets:
    """The set to test on, whose images all have boxes where classes are known, and the data of the training.

    ``own`` are the data that the model was trained on, None where they are gone: dev and training images are taken
    from them, without any image that is tested.
    """

    tested: Dataset
    own: Data | None
    classes: tuple[str, ...]
    apart: str
    faults: dict[str, list[str]]
    bad: frozenset[str]
    reporter: Reporter

    def place(self, dataset: Dataset) -> str:
        """The folder of a set's results in a run's evaluations; its own for data that the run was not trained on."""
        return str(Path(self.apart) / dataset.set_name)

    def dev(self, most: int) -> Dataset | None:
        """At most ``most`` images of the dev part, evenly spread, with their boxes; None where there are none."""
        return self._evenly("dev", most)

    def train(self, most: int) -> Dataset | None:
        """The same of the training part."""
        return self._evenly("train", most)

    def _evenly(self, name: str, most: int) -> Dataset | None:
        if self.own is None or name not in self.own.sets or self.own.sets[name].find_boxes is None:
            return None
        dataset = relabel(self.own.sets[name], self.classes)
        # Of the same images, whatever boxes they have now.
        tested = set(self.tested.ids) if self.tested.source == dataset.source else set()
        kept = [index for index, image in enumerate(dataset.ids) if image not in tested and image not in self.bad]
        if not kept:
            return None
        chosen = np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).astype(np.int64))
        return located(dataset.take(np.array(kept, dtype=np.int64)[chosen]), False, Silent()).dataset


def open_box_sets(
    metadata: Metadata,
    bad: frozenset[str],
    data: str | None,
    boxes: tuple[str, ...],
    set_name: str | None,
    strict: bool,
    reporter: Reporter,
) -> BoxSets:
    """The sets for testing a localisation model.

    Args:
        bad: images of the run's own data that could not be read.
        data, boxes: in place of those it was trained on.
        set_name: by default the reported set, or all images of other, unsplit data.
        strict: raise an error for images of unknown classes and for faulty boxes; else leave them out or repair them,
            with a warning.

    Raises:
        VerydeepError: no such data or set; no image with a box of a known class.
    """
    trained_on = metadata.data_settings
    settings, own = _test_settings(metadata, trained_on, data, boxes)
    same = own or settings == trained_on
    other = not own and settings.data != trained_on.data  # with other boxes the same images stay split as they were
    opened = open_data(settings if same else replace(settings, classes=()), least_classes=1)
    chosen = opened.set(set_name or ("all" if opened.split_by_us and other else opened.reported))
    known = relabel(chosen, metadata.classes, strict)
    faults: dict[str, list[str]] = {}
    if len(known) < len(chosen):
        kept = set(known.ids)
        faults["class"] = [chosen.where(index) for index, image in enumerate(chosen.ids) if image not in kept]
        unknown = [chosen.classes[n] for n in np.flatnonzero(places_in(metadata.classes, chosen.classes) < 0)]
        reporter.warn(
            f"left out {len(faults['class'])} photos of classes that the model does not have ({', '.join(unknown[:5])})"
        )
    if not len(known):
        raise VerydeepError(f"{chosen.name} has no photo of any of the model's classes.")
    if known.labelled:
        checked = located(known, strict, reporter)
        known, faults = checked.dataset, {**faults, **checked.faults}
    apart = "" if same else short_name(f"of-{Path(settings.data).name}")
    return BoxSets(known, opened if same else _own(trained_on), metadata.classes, apart, faults, bad, reporter)


def _test_settings(
    metadata: Metadata, trained_on: DataSettings, data: str | None, boxes: tuple[str, ...]
) -> tuple[DataSettings, bool]:
    """The data to test on, and whether they are the run's own in another folder."""
    if data is None:
        check_still_there(trained_on)
        settings = trained_on
    elif not boxes and _are_own(metadata, moved(trained_on, data)):
        return moved(trained_on, data), True
    else:
        settings = replace(trained_on, data=lasting_name(data), boxes=(), folders="auto")
    return (replace(settings, boxes=lasting_boxes(boxes)) if boxes else settings), False


def _are_own(metadata: Metadata, settings: DataSettings) -> bool:
    """Whether data are the images and boxes that a model was trained on, in another folder."""
    if not settings.boxes:
        return False
    try:
        opened = open_data(settings, least_classes=1)
        sets = {name: located(opened.set(name), False, Silent()).dataset for name in ("train", "dev")}
    except VerydeepError:
        return False
    return replace(opened, sets=sets).fingerprint() == metadata.data_fingerprint


def _own(settings: DataSettings) -> Data | None:
    """The data a model was trained on; None where they are gone."""
    try:
        return open_data(settings, least_classes=1)
    except VerydeepError:
        return None
