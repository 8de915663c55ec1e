"""The commands of docs/own_photos.md on a small folder of real photos with planted faults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SHARED = TOP.parent / "shared"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data" / "caltech101").is_dir(), reason="no Caltech-101")
def test_the_walk_finds_what_is_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of the page asserts what each command finds; here with fewer and smaller photos."""
    monkeypatch.syspath_prepend(TOP / "examples")
    sys.modules.pop("commands", None)
    from own_photos import plant, walk

    planted = plant(tmp_path, SHARED / "data" / "caltech101", 25, 5, 4)
    net = SHARED / "weights" / "net_d_conv_ilsvrc.safetensors"
    flags = "--preprocessing caffe --scales 128 --mirror no --threads 1 --workers 0"
    steps = walk(planted, str(net), flags, 10)
    assert steps["planted"] == {"images": 129, "wrong": 5, "copies": 4}
