"""App. B: descriptors of a data set into a file, resumed where they were interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.run_dir import environment
from ..core.config import from_json
from ..core.device import Machine, resolve_device
from ..core.errors import ImageError, VerydeepError
from ..core.files import check_place, only_one, short_name
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, FeatureSettings, MachineSettings
from ..core.team import SingleProcess, Team
from ..data.dataloader import each_photo
from ..data.image_io import Pixels
from ..data.open import Dataset, lasting_name, open_data
from ..data.workers import Fault
from ..evaluation.inference import ResizeToScales
from ..evaluation.protocols import Protocol
from .backbone import FeatureNet, open_feature_net
from .descriptors import descriptors
from .features_file import Features, Shards, load_features, save_features


@dataclass(frozen=True)
class Extraction:
    """What `extract_features` did: the file, what it holds, the scales asked for, and how much this call computed."""

    path: Path
    features: Features
    scales: tuple[int, ...]
    computed: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Numbers and names; ``computed`` counts descriptors, one a photo and scale."""
        dimensions = next(iter(self.features.scales.values())).shape[1]
        return {
            "file": str(self.path),
            "images": len(self.features),
            "classes": len(self.features.classes),
            "scales": list(self.features.scales),
            "dimensions": dimensions,
            "layer": self.features.recipe["layer"],
            "data": self.features.data,
            "computed": self.computed,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
        }


@contextlib.contextmanager
def _only_one(parts: Path) -> Iterator[None]:
    """The folder of shards for this process alone; it is left only where it holds some."""
    with only_one(parts):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                parts.rmdir()


def _kept_before(path: Path, dataset: Dataset, there: Features, readable: list[int], asked: bool) -> list[int]:
    """The photos that the file has, of which some may have been skipped.

    Raises:
        VerydeepError: scales are added, and other photos can be read now.
    """
    known = set(there.ids)
    kept = [index for index, photo in enumerate(dataset.ids) if photo in known]
    if asked and kept != readable:
        raise VerydeepError(f"{path} has {len(there)} photos and {len(readable)} can be read now: give another --out.")
    return kept


def _metadata_differs(features: Features, there: Features) -> bool:
    """Whether the photos' sets, or where they and the net are, have changed since."""
    return (features.sets, features.data, features.recipe) != (there.sets, there.data, there.recipe)


class Extractor:
    """A net at work on data sets; ``recipe`` is what another photo's descriptor needs, but for the scales."""

    def __init__(
        self,
        net: FeatureNet,
        settings: FeatureSettings,
        machine: Machine,
        reporter: Reporter,
        team: Team | None = None,
    ) -> None:
        self.net, self.settings, self.machine, self.reporter = net, settings, machine, reporter
        self.team = team or SingleProcess()
        self.recipe = {
            "net": net.told,
            "layer": net.layer,
            "pool": settings.pool,
            "mirror": settings.mirror,
            "precision": machine.describe()["precision"],
            "resampling": net.resampling,
            "other_side": net.other_side,
        }
        machine.place_model(net.net)

    def key(self, dataset: Dataset) -> str:
        """A digest of all that descriptors depend on, but for the scales and where the net's file lies."""
        told = {name: value for name, value in self.net.told.items() if name != "file"}
        shown = [dataset.fingerprint(sizes=True), dataset.stamps(), dataset.source.shows]
        return hashlib.sha256(
            json.dumps({**self.recipe, "net": told, "photos": shown}, sort_keys=True).encode()
        ).hexdigest()

    def into_file(
        self,
        path: Path,
        dataset: Dataset,
        sets: tuple[str, ...],
        scales: tuple[int, ...],
        of: dict[str, Any],
        skip: bool,
    ) -> Extraction:
        """Describes what the file lacks and writes it; ``of`` tells where the photos are from."""
        key, began = self.key(dataset), time.monotonic()
        check_place(path.parent)
        if path.is_dir():
            raise VerydeepError(f"{path} is a folder: give a file that ends in .safetensors as --out.")
        parts = path.with_name(
            short_name(path.name, f".{key[:8]}.parts")
        )  # those of other nets and photos are left alone
        with _only_one(parts) if self.team.is_main else contextlib.nullcontext():
            there = self._there(path, key)
            shards = Shards(parts, key, self.team.rank, self.team.size)
            self.team.all_gather(None)  # nobody writes a shard before all have seen which are there
            missing = tuple(scale for scale in scales if there is None or scale not in there.scales)
            before = shards.count
            faults = self._compute(dataset, missing, shards, skip) if missing else {}
            if self.team.size > 1:
                shards = Shards(parts, key)  # with what the others wrote
                self.team.all_gather(None)
            kept = [index for index in range(len(dataset)) if index not in faults]
            if there is not None:
                kept = _kept_before(path, dataset, there, kept, bool(missing))
            if not kept:
                raise ImageError(f"none of the {len(faults)} photos of {dataset.name} can be read.")
            found = {scale: shards.whole(scale, kept) for scale in missing}
            features = self._features(dataset, sets, kept, found, of, key, there)
            computed = shards.count - before
            if self.team.is_main:
                if missing or there is None or _metadata_differs(features, there):
                    self._there(path, key)  # another process may have written it since
                    save_features(path, features)
                shards.remove()
            self.team.all_gather(None)
        return Extraction(path, features, scales, computed, len(faults), time.monotonic() - began)

    def _there(self, path: Path, key: str) -> Features | None:
        """What the file holds already; raises VerydeepError where it is of something else."""
        if not path.exists():
            return None
        there = load_features(path)
        if there.key != key:
            raise VerydeepError(
                f"{path} holds descriptors of {there.title} of {len(there)} photos of {there.data}, not those "
                "asked for (another net, layer, protocol, precision or photos): give another --out, or remove it."
            )
        return there

    def _features(
        self,
        dataset: Dataset,
        sets: tuple[str, ...],
        kept: list[int],
        found: dict[int, Any],
        of: dict[str, Any],
        key: str,
        there: Features | None,
    ) -> Features:
        """The file's new content; each scale tells where it was described."""
        dataset = dataset.take(np.array(kept, dtype=np.int64))
        known, described = ({}, {}) if there is None else (there.scales, there.recipe["described"])
        if found:
            here = environment(self.machine.describe())
            described = {**described, **{str(scale): here for scale in found}}
        return Features(
            ids=dataset.ids,
            labels=dataset.labels,
            marks=dataset.marks,
            classes=dataset.classes,
            sets=tuple(sets[index] for index in kept),
            scales=dict(sorted({**known, **found}.items())),
            data=dataset.name,
            key=key,
            recipe={**self.recipe, **of, "described": described},
        )

    def _compute(self, dataset: Dataset, scales: tuple[int, ...], shards: Shards, skip: bool) -> dict[int, str]:
        """Fills the shards; returns the sentences of unreadable photos by index."""
        left = [i for i in range(len(dataset)) if any(not shards.has(scale, i) for scale in scales)]
        left = [left[place] for place in self.team.shard(len(left))]
        faults: dict[int, str] = {}
        total = sum(not shards.has(scale, index) for scale in scales for index in left)
        label = f"{self.net.layer}@{','.join(map(str, scales))} of {len(dataset)} photos"
        with self.machine.running(), self.reporter.track(label, total) as advance:
            try:
                views = self._views(dataset, left, scales, shards, faults if skip else None)
                pool, mirror = self.settings.pool, self.settings.mirror
                for scale, indices, rows in descriptors(self.net, views, pool, mirror, self.machine):
                    shards.add(scale, indices, rows)
                    advance(len(indices), "")
            finally:
                shards.flush()
        faults = {index: told for theirs in self.team.all_gather(faults) for index, told in theirs.items()}
        for sentence in faults.values():
            self.reporter.warn(f"skipped: {sentence}")
        return faults

    def _views(
        self,
        dataset: Dataset,
        left: list[int],
        scales: tuple[int, ...],
        shards: Shards,
        faults: dict[int, str] | None,
    ) -> Iterator[tuple[int, list[Pixels]]]:
        """The photos ``left`` at the scales that are missing of them."""
        net = self.net
        views = ResizeToScales(Protocol("dense", scales, mirror=False), net.net.crop, net.resampling, net.other_side)
        for place, found in each_photo(dataset.take(np.array(left, dtype=np.int64)), views, self.machine.readers):
            index = left[place]
            if not isinstance(found, Fault):
                yield index, [view for scale, view in zip(scales, found, strict=True) if not shards.has(scale, index)]
            elif faults is None:
                raise ImageError(
                    f"{found.message} Leave it out with --bad-images skip, which keeps what is described so far; "
                    "without that photo the others are described anew."
                )
            else:
                faults[index] = found.message


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
