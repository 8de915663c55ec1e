"""App. A: the sets of a box net's data: what is tested, what t is tuned on, what a constant box is made of."""

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
    """A set to be tested, its photos all with boxes where classes are known, and what the net was trained on.

    ``own`` are the net's own data, None where they are not there any more: its training side's sets are taken from
    them, without any photo that is tested.
    """

    tested: Dataset
    own: Data | None
    classes: tuple[str, ...]
    apart: str
    faults: dict[str, list[str]]
    bad: frozenset[str]
    reporter: Reporter

    def place(self, dataset: Dataset) -> str:
        """Where, in a run's evaluations, what is found of a set goes; apart for data not the run's own."""
        return str(Path(self.apart) / dataset.set_name)

    def dev(self, most: int) -> Dataset | None:
        """At most so many photos of the dev part, evenly spread, with their boxes; None where there are none."""
        return self._some("dev", most)

    def train(self, most: int) -> Dataset | None:
        """The same of the training part."""
        return self._some("train", most)

    def _some(self, name: str, most: int) -> Dataset | None:
        if self.own is None or name not in self.own.sets or self.own.sets[name].find_boxes is None:
            return None
        found = relabel(self.own.sets[name], self.classes)
        # Of the same photos, whatever boxes they have now.
        tested = set(self.tested.ids) if self.tested.source == found.source else set()
        kept = [index for index, photo in enumerate(found.ids) if photo not in tested and photo not in self.bad]
        if not kept:
            return None
        chosen = np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).astype(np.int64))
        return located(found.take(np.array(kept, dtype=np.int64)[chosen]), False, Silent()).dataset


def open_box_sets(
    metadata: Metadata,
    bad: frozenset[str],
    data: str | None,
    boxes: tuple[str, ...],
    set_name: str | None,
    strict: bool,
    reporter: Reporter,
) -> BoxSets:
    """The sets for testing a box net.

    Args:
        bad: photos of the run's own data that could not be read.
        data, boxes: others than those it was trained on.
        set_name: by default the reported set, or all photos of other, unsplit data.
        strict: photos of unknown classes and faults of boxes are errors; else they are left out or mended, and told.

    Raises:
        VerydeepError: no such data or set; no photo with a box of a known class.
    """
    trained_on = metadata.data_settings
    asked, own = _asked(metadata, trained_on, data, boxes)
    same = own or asked == trained_on
    other = not own and asked.data != trained_on.data  # other boxes of the same photos leave them split as they were
    opened = open_data(asked if same else replace(asked, classes=()), least_classes=1)
    chosen = opened.set(set_name or ("all" if opened.split_by_us and other else opened.reported))
    known = relabel(chosen, metadata.classes, strict)
    faults: dict[str, list[str]] = {}
    if len(known) < len(chosen):
        kept = set(known.ids)
        faults["class"] = [chosen.where(index) for index, photo in enumerate(chosen.ids) if photo not in kept]
        unknown = [chosen.classes[n] for n in np.flatnonzero(places_in(metadata.classes, chosen.classes) < 0)]
        reporter.warn(
            f"{len(faults['class'])} photos of classes the net does not know ({', '.join(unknown[:5])}): left out"
        )
    if not len(known):
        raise VerydeepError(f"{chosen.name} has no photo of a class that the net knows.")
    if known.labelled:
        found = located(known, strict, reporter)
        known, faults = found.dataset, {**faults, **found.faults}
    apart = "" if same else short_name(f"of-{Path(asked.data).name}")
    return BoxSets(known, opened if same else _own(trained_on), metadata.classes, apart, faults, bad, reporter)


def _asked(
    metadata: Metadata, trained_on: DataSettings, data: str | None, boxes: tuple[str, ...]
) -> tuple[DataSettings, bool]:
    """The data to be tested, and whether they are the run's own at another place."""
    if data is None:
        check_still_there(trained_on)
        asked = trained_on
    elif not boxes and _are_own(metadata, moved(trained_on, data)):
        return moved(trained_on, data), True
    else:
        asked = replace(trained_on, data=lasting_name(data), boxes=(), folders="auto")
    return (replace(asked, boxes=lasting_boxes(boxes)) if boxes else asked), False


def _are_own(metadata: Metadata, asked: DataSettings) -> bool:
    """Whether data are the photos and boxes that a net was trained on, at another place."""
    if not asked.boxes:
        return False
    try:
        opened = open_data(asked, least_classes=1)
        sets = {name: located(opened.set(name), False, Silent()).dataset for name in ("train", "dev")}
    except VerydeepError:
        return False
    return replace(opened, sets=sets).fingerprint() == metadata.data_fingerprint


def _own(settings: DataSettings) -> Data | None:
    """The data a net was trained on; None where they are gone."""
    try:
        return open_data(settings, least_classes=1)
    except VerydeepError:
        return None
