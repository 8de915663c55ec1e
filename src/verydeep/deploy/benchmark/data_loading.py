"""Data loading speed on one core: from files, with reduced decoding, and from a packed dataset, in random order."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...core.config import Scale
from ...core.device import ONE_BY_ONE, resolve_device
from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ...data.dataloader import TrainingLoader
from ...data.open import Dataset, open_data
from ...data.pack_writer import Packing, pack_sets
from .runner import Contender, Options, compare

SIDES = ((375, 500), (1200, 1600), (2400, 3200))  # height and width of the generated images
GRAIN, QUALITY, CLASSES = 8, 90, 2
SCALE, CROP, DROPOUT_UNITS = 256, 224, 8192


def load_images(data: str | None, count: int, options: Options) -> dict[str, Any]:
    """Images a second of the training loader in this process, beside a plain Pillow pipeline.

    Args:
        data: as `verydeep.data.open.open_data` takes it; without, JPEGs of several sizes are generated.
        count: the number of images.

    Raises:
        VerydeepError: no such data.
    """
    machine = resolve_device(MachineSettings(device="cpu", workers=0, threads=1), 1e12)
    sets = []
    with tempfile.TemporaryDirectory() as folder:
        sources = [(data, data)] if data else _generated(Path(folder), count)
        for number, (name, source) in enumerate(sources):
            opened = open_data(DataSettings(source), least_classes=1)
            train = opened.sets["train"]
            if train.source.encoded(train.ids[0]) is None:
                raise VerydeepError(f"{name} is not a folder of images or tar files: use one, or leave it out.")
            subset = train.take(np.arange(min(count, len(train))))
            pack = Path(folder) / f"pack-{number}"
            pack_sets(replace(opened, sets={"train": subset}), DataSettings(source), pack, Packing(SCALE))
            packed = open_data(DataSettings(str(pack)), least_classes=1).sets["train"]
            contenders = _contenders(subset, packed)
            measured = compare(contenders, options.repeats, machine, options.reporter, options.load)
            sets.append(measured.to_json(photos=name, count=len(subset)))
    return {"what": "data", "S": SCALE, "crop": CROP, "repeats": options.repeats, "sets": sets}


def _contenders(files: Dataset, pack: Dataset) -> list[Contender]:
    recipe = TrainSettings(net="D", S=Scale(SCALE, SCALE), crop=CROP, batch=min(64, len(files)))
    readers = {
        "Pillow": lambda: _pillow(files),
        "files": _epoch(files, recipe),
        "files, decoded coarsely": _epoch(files, replace(recipe, decoding="reduced")),
        "raw pack": _epoch(pack, recipe),
    }
    return [Contender(name, once, len(files)) for name, once in readers.items()]


def _epoch(dataset: Dataset, recipe: TrainSettings) -> Callable[[], object]:
    loader = TrainingLoader(dataset, recipe, np.eye(3), DROPOUT_UNITS, ONE_BY_ONE)
    return lambda: [len(batch.labels) for batch in loader.epoch(0)]


def _pillow(dataset: Dataset) -> None:
    """Decode, resize, crop at random: what a plain loader does with each image."""
    rng = np.random.default_rng(0)
    for index in range(len(dataset)):
        encoded = dataset.source.encoded(dataset.ids[index])
        assert encoded is not None
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        factor = SCALE / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        left, top = (int(rng.integers(0, side - CROP + 1)) for side in image.size)
        np.asarray(image.crop((left, top, left + CROP, top + CROP))).transpose(2, 0, 1).copy()


def _generated(place: Path, count: int) -> list[tuple[str, str]]:
    """Folders of JPEGs with shapes and grain, one for each of `SIDES`."""
    rng, sources = np.random.default_rng(0), []
    for height, width in SIDES:
        folder = place / f"{width}x{height}"
        for number in range(2 * count):
            rough = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
            smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
            grain = rng.integers(-GRAIN, GRAIN + 1, smooth.shape, dtype=np.int16)
            path = folder / f"class-{number % CLASSES}" / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        sources.append((f"{width}x{height}", str(folder)))
    return sources
