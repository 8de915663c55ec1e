"""App. A: the datasets of an evaluation: to evaluate on, to tune t on, and to find the best constant box in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..checkpoints.checkpoint import Checkpoint, Metadata
from ..checkpoints.run_dir import bad_images
from ..core.errors import VerydeepError
from ..core.files import short_name
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings
from ..data.box_targets import located
from ..data.class_names import places_in
from ..data.open import Data, Dataset, check_still_there, lasting_boxes, lasting_name, moved, open_data, relabel


@dataclass(frozen=True)
class BoxSets:
    """The dataset to evaluate on, whose labelled images all have boxes, and the data that the model was trained on.

    ``own`` is the training's data, None if they no longer exist: dev and training images are taken from them, without
    images of ``tested``. ``apart`` is the directory name of results on other data than the run's, ``bad`` the images
    of the run that cannot be read.
    """

    tested: Dataset
    own: Data | None
    classes: tuple[str, ...]
    apart: str
    faults: dict[str, list[str]]
    bad: frozenset[str]

    def place(self, dataset: Dataset) -> str:
        """The directory of a set's results below a run's evaluations; separate for other data than the run's."""
        return str(Path(self.apart) / dataset.set_name)

    def evenly(self, name: str, most: int) -> Dataset | None:
        """At most ``most`` images of a set of the training's data, evenly spaced, with boxes; None without any."""
        if self.own is None or name not in self.own.sets or self.own.sets[name].find_boxes is None:
            return None
        dataset = relabel(self.own.sets[name], self.classes)
        # The same images, whatever their boxes are now.
        tested = set(self.tested.ids) if self.tested.source == dataset.source else set()
        kept = dataset.without(tested | self.bad)
        return located(kept.evenly(most), False, Silent()).dataset if len(kept) else None


def open_box_sets(
    checkpoint: Checkpoint,
    data: str | None,
    reporter: Reporter,
    boxes: tuple[str, ...] = (),
    set_name: str | None = None,
    strict: bool = False,
) -> BoxSets:
    """Opens the datasets for evaluating a localisation model, or the maps of a classifier.

    Args:
        data, boxes: instead of those it was trained on.
        set_name: by default the reported set, or all images of other, unsplit data.
        strict: raise an error for images of unknown classes and for faulty boxes; otherwise these are left out or
            repaired, with a warning.

    Raises:
        VerydeepError: no such data or set; no image with a box of a known class.
    """
    metadata = checkpoint.metadata
    trained_on = metadata.data_settings if metadata.data else DataSettings()
    settings, own = _test_settings(metadata, trained_on, data, boxes)
    same = own or settings == trained_on
    other = not own and settings.data != trained_on.data  # the same images with other boxes keep their split
    opened = open_data(settings if same else replace(settings, classes=()), least_classes=1, empty_sets=not same)
    chosen = opened.set(set_name or ("all" if opened.split_by_us and other else opened.reported))
    known = relabel(chosen, metadata.classes, strict)
    faults: dict[str, list[str]] = {}
    if len(known) < len(chosen):
        kept = set(known.ids)
        faults["class"] = [chosen.where(index) for index, image in enumerate(chosen.ids) if image not in kept]
        unknown = [chosen.classes[n] for n in np.flatnonzero(places_in(metadata.classes, chosen.classes) < 0)]
        reporter.warn(f"skipped {len(faults['class'])} images of unknown classes ({', '.join(unknown[:5])})")
    if not len(known):
        raise VerydeepError(
            f"{chosen.name} has no images of the model's classes: use data with classes that the model was trained on."
        )
    if known.labelled:
        checked = located(known, strict, reporter)
        known, faults = checked.dataset, {**faults, **checked.faults}
    apart = "" if same else short_name(f"of-{Path(settings.data).name}")
    bad = bad_images(checkpoint.path.parent)
    own_data = opened if same else _own(trained_on) if metadata.data else None
    return BoxSets(known, own_data, metadata.classes, apart, faults, bad)


def _test_settings(
    metadata: Metadata, trained_on: DataSettings, data: str | None, boxes: tuple[str, ...]
) -> tuple[DataSettings, bool]:
    """The data to evaluate on, and whether they are the run's own in another directory."""
    if data is None:
        check_still_there(trained_on)
        settings = trained_on
    elif not boxes and _are_own(metadata, moved(trained_on, data)):
        return moved(trained_on, data), True
    else:
        settings = replace(trained_on, data=lasting_name(data), boxes=(), folders="auto", exclude=None, group_by=None)
    return (replace(settings, boxes=lasting_boxes(boxes)) if boxes else settings), False


def _are_own(metadata: Metadata, settings: DataSettings) -> bool:
    """Whether data are the images and boxes that a model was trained on, in another directory."""
    if not settings.boxes:
        return False
    try:
        opened = open_data(settings, least_classes=1)
        sets = {name: located(opened.set(name), False, Silent()).dataset for name in ("train", "dev")}
    except VerydeepError:
        return False
    return replace(opened, sets=sets).fingerprint() == metadata.data_fingerprint


def _own(settings: DataSettings) -> Data | None:
    """The data a model was trained on; None if they no longer exist."""
    try:
        return open_data(settings, least_classes=1)
    except VerydeepError:
        return None
