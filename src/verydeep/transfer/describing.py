"""App. B: `extract_features`, the verb: which photos are described, by which net, into which file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.config import from_json
from ..core.device import resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, FeatureSettings, MachineSettings
from ..core.team import Team
from ..data.open import Dataset, lasting_name, open_data
from .backbone import open_feature_net
from .extract import Extraction, Extractor


def extract_features(
    source: str | Path,
    data: str,
    out: str | Path,
    set_name: str | None = None,
    splits: int | None = None,
    classes: tuple[str, ...] = (),
    settings: FeatureSettings | None = None,
    preprocessing: str = "recorded",
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
    folders: str = "auto",
) -> Extraction:
    """Describes every photo of some data once and writes a features file; what a file has is not computed again.

    Args:
        source: a run's folder, a checkpoint or a weight file.
        data: as `verydeep.data.open.open_data` takes it.
        out: the file; scales that it lacks are added to it.
        set_name: one set of the data only.
        splits: of data whose protocol draws splits (Caltech), only the photos of the first so many.
        classes: only the classes that match one of these patterns.
        folders: as in DataSettings.
        preprocessing: a key of `KNOWN` in `verydeep.checkpoints.preprocessing`, for weight files that do not record
            their pixels.
        bad_images: ``stop`` or ``skip`` photos that cannot be read.
        team: the processes that share the photos (`verydeep.joined`); they need a folder that all of them see.

    Raises:
        VerydeepError: no such net, layer or data; Q below the crop of an FC layer; an unreadable photo; a file that
            is there and of other photos, another net or protocol.
    """
    settings, reporter = settings or FeatureSettings(), reporter or Silent()
    asked = from_json(DataSettings, {"data": lasting_name(data), "classes": classes, "folders": folders})
    dataset, sets = _photos(asked, set_name, splits, reporter)
    net = open_feature_net(source, settings.layer, preprocessing)
    scales = settings.scales or (net.test_scale,)
    net.check_scales(scales)
    here = resolve_device(replace(machine or MachineSettings(), compile=False), net.multiply_adds)
    of = {"data": asked.data, "classes": list(classes), "set": set_name, "splits": splits}
    of |= {} if folders == "auto" else {"folders": folders}
    extractor = Extractor(net, settings, here, reporter, team)
    return extractor.into_file(Path(out), dataset, sets, scales, of, bad_images == "skip")


def _photos(
    settings: DataSettings, set_name: str | None, splits: int | None, reporter: Reporter
) -> tuple[Dataset, tuple[str, ...]]:
    """The photos to describe, and the set of each."""
    data = open_data(settings, least_classes=1, several=True, empty_sets=True)
    for sentence in data.warnings:
        reporter.warn(sentence)
    if splits is not None:
        if data.unsplit is None or set_name is not None or splits < 1:
            raise VerydeepError(
                f"splits counts the random splits of caltech101 or caltech256, from 1 up, not {splits}."
            )
        several = [
            open_data(replace(settings, split_seed=seed), least_classes=1, several=True).sets for seed in range(splits)
        ]
        used = {photo for sets in several for found in sets.values() for photo in found.ids}
        whole, names = data.everything()
        return whole.take(np.array([i for i, photo in enumerate(whole.ids) if photo in used])), names[: len(used)]
    if set_name is None:
        return data.everything()
    dataset = data.set(set_name)
    return dataset, (set_name,) * len(dataset)
