"""App. B: extracts descriptors of a dataset into a features file, and resumes an interrupted extraction."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.run_dir import environment
from ..core.config import from_json
from ..core.device import Machine, resolve_device
from ..core.errors import ImageError, VerydeepError
from ..core.files import check_place, only_one, short_name
from ..core.progress import Reporter
from ..core.settings import DataSettings, FeatureSettings, MachineSettings
from ..core.team import Team
from ..core.terminal import default_reporter
from ..data.image_io import Pixels
from ..data.open import Dataset, lasting_name, open_data, open_images
from ..evaluation.agreement import DESCRIPTORS, agreed_machine
from ..evaluation.inference import readable_images
from .backbone import FeatureNet, open_feature_net
from .descriptors import Array, descriptors
from .features_file import Features, Shards, load_features, save_features


@dataclass(frozen=True)
class Extraction:
    """The result of `extract_features`: the file, its content, the scales of this call, and how much it computed."""

    path: Path
    features: Features
    scales: tuple[int, ...]
    computed: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Counts and names; ``computed`` is the number of descriptors, one per image and scale."""
        dimensions = next(iter(self.features.scales.values())).shape[1]
        return {
            "file": str(self.path),
            "images": len(self.features),
            "classes": len(self.features.classes),
            "scales": list(self.features.scales),
            "dimensions": dimensions,
            "layer": self.features.recipe["layer"],
            "precision": self.features.recipe["precision"],
            "data": self.features.data,
            "computed": self.computed,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
        }


@contextlib.contextmanager
def _only_one(parts: Path) -> Iterator[None]:
    """Locks the directory of shards, and removes it at the end if it is empty."""
    with only_one(parts):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                parts.rmdir()


def _stored_images(path: Path, dataset: Dataset, stored: Features, readable: list[int], adds: bool) -> list[int]:
    """The indices of the file's images; unreadable ones were skipped.

    Raises:
        VerydeepError: scales are added, and other images are readable now.
    """
    known = set(stored.ids)
    kept = [index for index, image in enumerate(dataset.ids) if image in known]
    if adds and kept != readable:
        raise VerydeepError(
            f"{path} has {len(stored)} images, and {len(readable)} are readable now: use another --out."
        )
    return kept


def _parts_folder(path: Path, key: str) -> Path:
    """The directory of a file's shards; those of other nets and images have other names."""
    return path.with_name(short_name(path.name, f".{key[:8]}.parts"))


class Extractor:
    """Extracts descriptors with one net; ``recipe`` is all that another image's descriptor needs, except the scales."""

    def __init__(
        self, net: FeatureNet, settings: FeatureSettings, machine: Machine, reporter: Reporter, team: Team | None = None
    ) -> None:
        self.net, self.settings, self.machine, self.reporter = net, settings, machine, reporter
        self.team = team or Team()
        self.recipe = {
            "net": net.source,
            "layer": net.layer,
            "pool": settings.pool,
            "mirror": settings.mirror,
            "precision": machine.precision,
            "resampling": net.metadata.resampling,
            "other_side": net.metadata.other_side,
        }
        machine.place_model(net.net)

    def on(self, machine: Machine) -> Extractor:
        """The same on another machine."""
        return Extractor(self.net, self.settings, machine, self.reporter, self.team)

    def has_begun(self, path: Path, dataset: Dataset) -> bool:
        """Whether the file, or shards of an interrupted extraction beside it, are of this net, machine and images."""
        if path.is_dir():
            return False
        key = self.key(dataset)
        try:
            return _parts_folder(path, key).is_dir() or (path.is_file() and load_features(path).key == key)
        except VerydeepError:
            return False

    def sample(self, dataset: Dataset, indices: Sequence[int], scale: int) -> Array:
        """Descriptors (n,D) of the readable images at some indices, at one scale."""
        found: dict[int, Array] = {}
        views = readable_images(dataset, indices, self.net.resize((scale,)), self.machine, "", {})
        label = f"trying {self.machine.precision}"
        with self.machine.running(), self.reporter.track(label, len(indices)) as advance:
            for _, several, rows in descriptors(
                self.net, views, self.settings.pool, self.settings.mirror, self.machine
            ):
                found.update(zip(several, rows, strict=True))
                advance(len(several), "")
        return np.array([found[index] for index in sorted(found)], dtype=np.float32)

    def key(self, dataset: Dataset) -> str:
        """A digest of all that descriptors depend on, except the scales and the net's directory."""
        net = {name: value for name, value in self.net.source.items() if name != "file"}
        images = [dataset.fingerprint(sizes=True), dataset.stamps(), dataset.source.shows]
        recipe = json.dumps({**self.recipe, "net": net, "photos": images}, sort_keys=True)
        return hashlib.sha256(recipe.encode()).hexdigest()

    def into_file(
        self,
        path: Path,
        dataset: Dataset,
        sets: tuple[str, ...],
        scales: tuple[int, ...],
        of: dict[str, Any],
        skip: bool,
    ) -> Extraction:
        """Extracts the descriptors that the file lacks and writes it; ``of`` records where the images are from."""
        key, start = self.key(dataset), time.monotonic()
        check_place(path.parent)
        if path.is_dir():
            raise VerydeepError(f"{path} is a folder: pass a file that ends in .safetensors as --out.")
        parts = _parts_folder(path, key)
        with _only_one(parts) if self.team.is_main else contextlib.nullcontext():
            stored = self._load(path, key)
            shards = Shards(parts, key, self.team.rank, self.team.size)
            self.team.all_gather(None)  # no process writes a shard before all have listed them
            missing = tuple(scale for scale in scales if stored is None or scale not in stored.scales)
            before = shards.count
            faults = self._compute(dataset, missing, shards, skip) if missing else {}
            if self.team.size > 1:
                shards = Shards(parts, key)  # with those of the other processes
                self.team.all_gather(None)
            kept = [index for index in range(len(dataset)) if index not in faults]
            if stored is not None:
                kept = _stored_images(path, dataset, stored, kept, bool(missing))
            if not kept:
                raise ImageError(f"no image of {dataset.name} can be read: `verydeep data check` lists the reasons.")
            new = {scale: shards.whole(scale, kept) for scale in missing}
            taken = dataset.take(np.array(kept, dtype=np.int64))
            features = self._features(taken, tuple(sets[index] for index in kept), new, of, key, stored)
            computed = shards.count - before
            if self.team.is_main:
                if missing or stored is None or features.metadata != stored.metadata:
                    self._load(path, key)  # another process may have written it since
                    save_features(path, features)
                if set(shards.rows) <= set(features.scales):  # others are of an interrupted extraction of more scales
                    shards.remove()
            self.team.all_gather(None)
        return Extraction(path, features, scales, computed, len(faults), time.monotonic() - start)

    def finished(self, path: Path, dataset: Dataset) -> tuple[Features | None, Shards]:
        """The file's content, None without a file, and the shards beside it; raises VerydeepError as `into_file`."""
        key = self.key(dataset)
        return self._load(path, key), Shards(_parts_folder(path, key), key)

    def _load(self, path: Path, key: str) -> Features | None:
        """The file's content, None without a file; raises VerydeepError if it is of another net or other images."""
        if not path.exists():
            return None
        stored = load_features(path)
        if stored.key != key:
            raise VerydeepError(
                f"{path} already contains different descriptors: {stored.title} of {len(stored)} images of "
                f"{stored.data} (another net, layer, protocol, precision, or other images): use another "
                "--out, or remove it."
            )
        return stored

    def _features(
        self,
        dataset: Dataset,
        sets: tuple[str, ...],
        new: dict[int, Any],
        of: dict[str, Any],
        key: str,
        stored: Features | None,
    ) -> Features:
        """The file's new content; each scale records on which machine it was computed."""
        known, described = ({}, {}) if stored is None else (stored.scales, stored.recipe["described"])
        if new:
            here = environment(self.machine.describe())
            described = {**described, **{str(scale): here for scale in new}}
        return Features(
            ids=dataset.ids,
            labels=dataset.labels,
            marks=dataset.marks,
            classes=dataset.classes,
            sets=sets,
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
        label = f"{self.net.layer}@{','.join(map(str, scales))} of {len(dataset)} images"
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
        self, dataset: Dataset, left: list[int], scales: tuple[int, ...], shards: Shards, faults: dict[int, str] | None
    ) -> Iterator[tuple[int, list[Pixels]]]:
        """The images at ``left``, each at the scales that it lacks."""
        advice = (
            "Add --bad-images skip to leave it out and keep the descriptors so far; if the file is removed, "
            "all others are computed again."
        )
        for index, views in readable_images(dataset, left, self.net.resize(scales), self.machine, advice, faults):
            yield index, [view for scale, view in zip(scales, views, strict=True) if not shards.has(scale, index)]


@dataclass(frozen=True)
class PreparedExtraction:
    """The net, images and file of an extraction; `run` extracts.

    ``sets`` has the set of each image; ``of`` records where the images are from.
    """

    extractor: Extractor
    path: Path
    dataset: Dataset
    sets: tuple[str, ...]
    scales: tuple[int, ...]
    of: dict[str, Any]

    def run(self, skip: bool) -> Extraction:
        """Extracts what the file lacks; ``skip`` leaves out unreadable images."""
        return self.extractor.into_file(self.path, self.dataset, self.sets, self.scales, self.of, skip)

    def left(self) -> dict[int, int]:
        """By scale, how many descriptors the file and the shards of an interrupted extraction lack.

        Raises:
            VerydeepError: the file is of other images, another net or protocol.
        """
        stored, shards = self.extractor.finished(self.path, self.dataset)
        return {
            scale: 0
            if stored is not None and scale in stored.scales
            else sum(not shards.has(scale, index) for index in range(len(self.dataset)))
            for scale in self.scales
        }


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
        source, data, …: as of `prepare_extraction`.
        bad_images: ``stop`` or ``skip`` on unreadable images.

    Raises:
        VerydeepError: as `prepare_extraction`; an unreadable image; a file of other images, another net or protocol.
    """
    prepared = prepare_extraction(
        *(source, data, out, set_name, splits, classes, settings, preprocessing, machine, reporter, team, folders)
    )
    return prepared.run(bad_images == "skip")


def prepare_extraction(
    source: str | Path,
    data: str,
    out: str | Path,
    set_name: str | None = None,
    splits: int | None = None,
    classes: tuple[str, ...] = (),
    settings: FeatureSettings | None = None,
    preprocessing: str = "recorded",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
    folders: str = "auto",
) -> PreparedExtraction:
    """Opens the images and the net of an extraction.

    Args:
        source: a run, a checkpoint or a weight file.
        data: as `verydeep.open_data` takes it, or a folder of images without class folders, which have no label.
        out: the file; missing scales are added.
        set_name: only this set of the data.
        splits: for data whose protocol draws random splits (Caltech), only the images of the first ``splits``.
        classes: only the classes that match one of these patterns.
        folders: as in DataSettings.
        preprocessing: a key of `verydeep.checkpoints.preprocessing.KNOWN`, for weight files that do not record theirs.
        team: the processes that share the images (`verydeep.joined`); they need a directory that all of them can read.

    Raises:
        VerydeepError: no such net, layer or data; Q below the crop of an FC layer.
    """
    settings, reporter = settings or FeatureSettings(), reporter or default_reporter()
    data_settings = from_json(DataSettings, {"data": lasting_name(data), "classes": classes, "folders": folders})
    dataset, sets = _images(data_settings, set_name, splits, reporter)
    net = open_feature_net(source, settings.layer, preprocessing)
    scales = settings.scales or (net.metadata.test_scale,)
    net.check_scales(scales)
    device = resolve_device(replace(machine or MachineSettings(), compile=False), net.multiply_adds)
    of = {"data": data_settings.data, "classes": list(classes), "set": set_name, "splits": splits}
    of |= {} if folders == "auto" else {"folders": folders}
    extractor = _in_agreed_precision(Extractor(net, settings, device, reporter, team), Path(out), dataset, scales)
    return PreparedExtraction(extractor, Path(out), dataset, sets, scales, of)


def _in_agreed_precision(exact: Extractor, path: Path, dataset: Dataset, scales: tuple[int, ...]) -> Extractor:
    """The extractor in the precision that `agreed_machine` chooses by the first scale, or chose for the file before."""
    if not exact.machine.may_lower:
        return exact
    rounded = exact.on(exact.machine.in_bf16())
    for extractor in (rounded, exact):
        if extractor.has_begun(path, dataset):
            return extractor

    def of_sample(machine: Machine, indices: Sequence[int]) -> Array:
        return exact.on(machine).sample(dataset, indices, scales[0])

    settings, net = exact.settings, exact.net
    work = len(dataset) * len(scales) * (1 + settings.mirror) * net.multiply_adds
    arguments = (exact.machine, len(dataset), work, of_sample, DESCRIPTORS, exact.reporter, exact.team)
    return exact.on(agreed_machine(*arguments)[0])


def _images(
    settings: DataSettings, set_name: str | None, splits: int | None, reporter: Reporter
) -> tuple[Dataset, tuple[str, ...]]:
    """The images, and the set of each."""
    data = open_images(settings)
    for warning in data.warnings:
        reporter.warn(warning)
    if splits is not None:
        if data.unsplit is None or set_name is not None or splits < 1:
            raise VerydeepError(
                f"--splits must be a number of random splits of caltech101 or caltech256, at least 1, not {splits}."
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
