"""App. A: the sets of a box net's data: what is tested, what t is tuned on, what a constant box is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .checkpoints import Card
from .config import DataSettings, from_json
from .data import Data, Dataset, lasting_boxes, lasting_name, open_data, relabel
from .data.located import located
from .errors import VerydeepError
from .progress import Reporter


@dataclass(frozen=True)
class BoxSets:
    """A set to be tested, its photos all with boxes where classes are known, and the training side's sets."""

    tested: Dataset
    opened: Data
    classes: tuple[str, ...]
    apart: str
    faults: dict[str, list[str]]
    reporter: Reporter

    def place(self, dataset: Dataset) -> str:
        """Where, in a run's evaluations, what is found of a set goes; apart for data not the run's own."""
        return str(Path(self.apart) / dataset.set_name)

    def dev(self, most: int) -> Dataset | None:
        """At most so many photos of the dev part, evenly spread, with their boxes; None where there is none."""
        return self._some("dev", most)

    def train(self, most: int) -> Dataset | None:
        """The same of the training part."""
        return self._some("train", most)

    def _some(self, name: str, most: int) -> Dataset | None:
        if name not in self.opened.sets:
            return None
        found = relabel(self.opened.sets[name], self.classes)
        if not len(found) or found.find_boxes is None:
            return None
        chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(np.int64))
        return located(found.take(chosen), False, self.reporter).dataset


def open_box_sets(
    card: Card,
    data: str | None,
    boxes: tuple[str, ...],
    set_name: str | None,
    strict: bool,
    reporter: Reporter,
) -> BoxSets:
    """The sets for testing a box net.

    Args:
        data, boxes: others than those it was trained on.
        set_name: by default the reported set, or all photos of other, unsplit data.
        strict: photos of unknown classes and faults of boxes are errors; else they are left out or mended, and told.

    Raises:
        VerydeepError: no such data or set; no photo with a box of a known class.
    """
    trained_on = from_json(DataSettings, card.data)
    asked = trained_on if data is None else replace(trained_on, data=lasting_name(data), boxes=())
    asked = replace(asked, boxes=lasting_boxes(boxes)) if boxes else asked
    same = asked == trained_on
    opened = open_data(asked if same else replace(asked, classes=()), least_classes=1)
    chosen = opened.set(set_name or ("all" if opened.split_by_us and not same else opened.reported))
    known = relabel(chosen, card.classes, strict)
    faults: dict[str, list[str]] = {}
    if len(known) < len(chosen):
        kept = set(known.ids)
        faults["class"] = [chosen.where(index) for index, photo in enumerate(chosen.ids) if photo not in kept]
        unknown = sorted(set(chosen.classes) - set(card.classes))
        reporter.warn(
            f"{len(faults['class'])} photos of classes the net does not know ({', '.join(unknown[:5])}): left out"
        )
    if not len(known):
        raise VerydeepError(f"{chosen.name} has no photo of a class that the net knows.")
    if known.labelled:
        found = located(known, strict, reporter)
        known, faults = found.dataset, {**faults, **found.faults}
    return BoxSets(known, opened, card.classes, "" if same else f"of-{Path(asked.data).name}", faults, reporter)
