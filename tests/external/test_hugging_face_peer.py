"""Data sets that Hugging Face's `datasets` writes, read by us as by itself; needs ``pip install verydeep[suites]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_photos
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data

datasets = pytest.importorskip("datasets", reason="needs the extra `suites`: make suites")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder of photos, opened by `datasets`, with two sets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    make_photos(tmp_path / "photos")
    whole = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "photos"), cache_dir=str(tmp_path / "cache"))
    return whole["train"].train_test_split(test_size=0.3, seed=0)


@pytest.mark.parametrize("form", ["to_parquet", "shards", "save_to_disk", "one"])
def test_every_image_and_label_is_the_same(form: str, photos: Any, tmp_path: Path) -> None:
    place = tmp_path / "written"
    if form == "to_parquet":
        for name, part in photos.items():
            part.to_parquet(place / "data" / f"{name}-00000-of-00001.parquet")
    elif form == "shards":
        photos.save_to_disk(place, num_shards={"train": 3, "test": 2})
    elif form == "save_to_disk":
        photos.save_to_disk(place)
    else:
        photos["train"].save_to_disk(place)
    data = open_data(DataSettings(str(place)))
    whole, sets = data.everything()
    assert data.classes == tuple(photos["train"].features["label"].names)
    if form == "one":
        theirs = list(photos["train"])
    else:
        assert len(data.sets["test"]) == len(photos["test"])
        assert set(sets) == {"train", "dev", "test"}
        theirs = [*photos["test"], *photos["train"]]  # as our ids are sorted
    assert len(whole) == len(theirs)
    for index, row in enumerate(theirs):
        assert whole.labels[index] == row["label"]
        np.testing.assert_array_equal(whole.pixels(index), np.asarray(row["image"].convert("RGB")))
