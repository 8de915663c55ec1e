"""App. B: extracts descriptors of a data set into a features file, and resumes an interrupted extraction."""

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
from ..core.team import Team
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
    """Result of `extract_features`: the file, its content, the scales of this call, and how much it computed."""

    path: Path
    features: Features
    scales: tuple[int, ...]
    computed: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Numbers and names; ``computed`` counts descriptors, one per image and scale."""
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
    """Locks the folder of shards; removes it at the end where it is empty."""
    with only_one(parts):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                parts.rmdir()


def _kept_before(path: Path, dataset: Dataset, there: Features, readable: list[int], adds: bool) -> list[int]:
    """The images that the file has; unreadable ones were skipped.

    Raises:
        VerydeepError: scales are added, and other images can be read now.
    """
    known = set(there.ids)
    kept = [index for index, image in enumerate(dataset.ids) if image in known]
    if adds and kept != readable:
        raise VerydeepError(f"{path} has {len(there)} photos and {len(readable)} can be read now: give another --out.")
    return kept


def _metadata_differs(features: Features, there: Features) -> bool:
    """Whether the images' sets, or the folders of images and net, have changed since."""
    return (features.sets, features.data, features.recipe) != (there.sets, there.data, there.recipe)


class Extractor:
    """Extracts descriptors by one net; ``recipe`` is what another image's descriptor needs, but for the scales."""

    def __init__(
        self,
        net: FeatureNet,
        settings: FeatureSettings,
        machine: Machine,
        reporter: Reporter,
        team: Team | None = None,
    ) -> None:
        self.net, self.settings, self.machine, self.reporter = net, settings, machine, reporter
        self.team = team or Team()
        self.recipe = {
            "net": net.source,
            "layer": net.layer,
            "pool": settings.pool,
            "mirror": settings.mirror,
            "precision": machine.describe()["precision"],
            "resampling": net.resampling,
            "other_side": net.other_side,
        }
        machine.place_model(net.net)

    def key(self, dataset: Dataset) -> str:
        """A digest of all that descriptors depend on, but for the scales and the net's folder."""
        net = {name: value for name, value in self.net.source.items() if name != "file"}
        shown = [dataset.fingerprint(sizes=True), dataset.stamps(), dataset.source.shows]
        return hashlib.sha256(
            json.dumps({**self.recipe, "net": net, "photos": shown}, sort_keys=True).encode()
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
        """Extracts the descriptors that the file lacks and writes it; ``of`` says where the images are from."""
        key, start = self.key(dataset), time.monotonic()
        check_place(path.parent)
        if path.is_dir():
            raise VerydeepError(f"{path} is a folder: give a file that ends in .safetensors as --out.")
        # Shards of other nets and images have other names.
        parts = path.with_name(short_name(path.name, f".{key[:8]}.parts"))
        with _only_one(parts) if self.team.is_main else contextlib.nullcontext():
            there = self._there(path, key)
            shards = Shards(parts, key, self.team.rank, self.team.size)
            self.team.all_gather(None)  # no process writes a shard before all have listed them
            missing = tuple(scale for scale in scales if there is None or scale not in there.scales)
            before = shards.count
            faults = self._compute(dataset, missing, shards, skip) if missing else {}
            if self.team.size > 1:
                shards = Shards(parts, key)  # with those of the other processes
                self.team.all_gather(None)
            kept = [index for index in range(len(dataset)) if index not in faults]
            if there is not None:
                kept = _kept_before(path, dataset, there, kept, bool(missing))
            if not kept:
                raise ImageError(f"none of the {len(faults)} photos of {dataset.name} can be read.")
            new = {scale: shards.whole(scale, kept) for scale in missing}
            features = self._features(dataset, sets, kept, new, of, key, there)
            computed = shards.count - before
            if self.team.is_main:
                if missing or there is None or _metadata_differs(features, there):
                    self._there(path, key)  # another process may have written it since
                    save_features(path, features)
                shards.remove()
            self.team.all_gather(None)
        return Extraction(path, features, scales, computed, len(faults), time.monotonic() - start)

    def _there(self, path: Path, key: str) -> Features | None:
        """The file's present content; raises VerydeepError where it is of another net or other images."""
        if not path.exists():
            return None
        there = load_features(path)
        if there.key != key:
            raise VerydeepError(
                f"{path} holds other descriptors: {there.title} of {len(there)} photos of {there.data} (another net, "
                "layer, protocol, precision, or other photos): give another --out, or remove it."
            )
        return there

    def _features(
        self,
        dataset: Dataset,
        sets: tuple[str, ...],
        kept: list[int],
        new: dict[int, Any],
        of: dict[str, Any],
        key: str,
        there: Features | None,
    ) -> Features:
        """The file's new content; each scale records on which machine it was computed."""
        dataset = dataset.take(np.array(kept, dtype=np.int64))
        known, described = ({}, {}) if there is None else (there.scales, there.recipe["described"])
        if new:
            here = environment(self.machine.describe())
            described = {**described, **{str(scale): here for scale in new}}
        return Features(
            ids=dataset.ids,
            labels=dataset.labels,
            marks=dataset.marks,
            classes=dataset.classes,
            sets=tuple(sets[index] for index in kept),
            scales=dict(sorted({**known, **new}.items())),
            data=dataset.name,
            key=key,
            recipe={**self.recipe, **of, "described": described},
        )

    def _compute(self, dataset: Dataset, scales: tuple[int, ...], shards: Shards, skip: bool) -> dict[int, str]:
        """Fills the shards; returns the messages of unreadable images by index."""
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
        faults = {index: fault for share in self.team.all_gather(faults) for index, fault in share.items()}
        for message in faults.values():
            self.reporter.warn(f"skipped: {message}")
        return faults

    def _views(
        self,
        dataset: Dataset,
        left: list[int],
        scales: tuple[int, ...],
        shards: Shards,
        faults: dict[int, str] | None,
    ) -> Iterator[tuple[int, list[Pixels]]]:
        """The images ``left``, each at the scales that it lacks."""
        net = self.net
        views = ResizeToScales(Protocol("dense", scales, mirror=False), net.net.crop, net.resampling, net.other_side)
        for place, read in each_photo(dataset.take(np.array(left, dtype=np.int64)), views, self.machine.readers):
            index = left[place]
            if not isinstance(read, Fault):
                yield index, [view for scale, view in zip(scales, read, strict=True) if not shards.has(scale, index)]
            elif faults is None:
                raise ImageError(
                    f"{read.message} Add --bad-images skip to leave it out and keep the descriptors so far; "
                    "without that file all others are computed again."
                )
            else:
                faults[index] = read.message


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
    """Extracts a descriptor of every image of some data into a features file; computes only what the file lacks.

    Args:
        source: a run's folder, a checkpoint or a weight file.
        data: as `verydeep.data.open.open_data` takes it.
        out: the file; scales that it lacks are added.
        set_name: one set of the data only.
        splits: of data whose protocol draws splits (Caltech), only the images of the first ``splits``.
        classes: only the classes that match one of these patterns.
        folders: as in DataSettings.
        preprocessing: a key of `KNOWN` in `verydeep.checkpoints.preprocessing`, for weight files that do not record
            their pixels.
        bad_images: ``stop`` at or ``skip`` images that cannot be read.
        team: the processes that share the images (`verydeep.joined`); they need a folder that all of them see.

    Raises:
        VerydeepError: no such net, layer or data; Q below the crop of an FC layer; an unreadable image; a file
            that holds other images, another net or protocol.
    """
    settings, reporter = settings or FeatureSettings(), reporter or Silent()
    data_settings = from_json(DataSettings, {"data": lasting_name(data), "classes": classes, "folders": folders})
    dataset, sets = _images(data_settings, set_name, splits, reporter)
    net = open_feature_net(source, settings.layer, preprocessing)
    scales = settings.scales or (net.test_scale,)
    net.check_scales(scales)
    here = resolve_device(replace(machine or MachineSettings(), compile=False), net.multiply_adds)
    of = {"data": data_settings.data, "classes": list(classes), "set": set_name, "splits": splits}
    of |= {} if folders == "auto" else {"folders": folders}
    extractor = Extractor(net, settings, here, reporter, team)
    return extractor.into_file(Path(out), dataset, sets, scales, of, bad_images == "skip")


def _images(
    settings: DataSettings, set_name: str | None, splits: int | None, reporter: Reporter
) -> tuple[Dataset, tuple[str, ...]]:
    """The images, and the set of each."""
    data = open_data(settings, least_classes=1, several=True, empty_sets=True)
    for warning in data.warnings:
        reporter.warn(warning)
    if splits is not None:
        if data.unsplit is None or set_name is not None or splits < 1:
            raise VerydeepError(
                f"splits is a number of random splits of caltech101 or caltech256, at least 1, not {splits}."
            )
        several = [
            open_data(replace(settings, split_seed=seed), least_classes=1, several=True).sets for seed in range(splits)
        ]
        used = {image for sets in several for dataset in sets.values() for image in dataset.ids}
        whole, names = data.everything()
        return whole.take(np.array([i for i, image in enumerate(whole.ids) if image in used])), names[: len(used)]
    if set_name is None:
        return data.everything()
    dataset = data.set(set_name)
    return dataset, (set_name,) * len(dataset)
