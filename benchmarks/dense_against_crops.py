"""Sect. 3.2: how much time dense evaluation saves: net D at 224, three scales with mirror images, against 150 crops.

    python benchmarks/dense_against_crops.py run      # some minutes on a CPU
    python benchmarks/dense_against_crops.py write    # into docs/testing.md

One process, one net, the same noise photos of 500x375 pixels, the same machine settings; the two take
turns, so that whatever else the machine does falls on both. What counts is their ratio.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from verydeep.checkpoints.run_dir import environment
from verydeep.core.device import resolve_device
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import MachineSettings
from verydeep.evaluation.inference import ResizeToScales, posteriors
from verydeep.evaluation.protocols import parse_protocol
from verydeep.models.architectures import net_facts
from verydeep.models.vgg import create_net
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "dense_against_crops.json"
PROTOCOLS = ("dense@256,384,512", "crops@256,384,512")
TURNS, PHOTOS = 3, {"cpu": 1, "cuda": 64, "mps": 4}


def run() -> None:
    """Measures and stores."""
    machine = resolve_device(MachineSettings(), net_facts("D").multiply_adds)
    net = create_net("D").eval()
    machine.place_model(net)
    rng = np.random.default_rng(0)
    count = PHOTOS[machine.device.type]
    photos = [rng.integers(0, 256, (375, 500, 3)).astype(np.uint8) for _ in range(count)]
    seconds: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    adds = {}
    with machine.running():
        for turn in range(TURNS + 1):  # the first warms up
            for name in PROTOCOLS:
                protocol = parse_protocol(name)
                start = time.monotonic()
                views = enumerate(map(ResizeToScales(protocol, 224), photos))
                result = posteriors(net, np.full(3, 120.0), protocol, views, count, machine)
                adds[name] = result.multiply_adds
                if turn:
                    seconds[name].append((time.monotonic() - start) / count)
    ratios = [crops / dense for dense, crops in zip(seconds[PROTOCOLS[0]], seconds[PROTOCOLS[1]], strict=True)]
    where = environment(machine.describe())
    write_json(RESULTS, {"seconds": seconds, "multiply_adds": adds, "ratios": ratios, "environment": where})


def write() -> None:
    """Writes the stored measurement into the page."""
    stored = read_json(RESULTS)
    rows = [
        [name, f"{stored['multiply_adds'][name] / 1e9:.0f}", f"{1 / statistics.median(stored['seconds'][name]):.3f}"]
        for name in PROTOCOLS
    ]
    where, ratios = stored["environment"], stored["ratios"]
    note = (
        f"Dense evaluation is {statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f} in "
        f"{len(ratios)} turns). Net D, 4:3 photos, {where['precision']}, {where['device']}: {where['processor']}, "
        f"{where['cores']} cores; torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    table = markdown_table(["protocol", "G multiply-adds per photo", "photos/s"], rows)
    write_block(TOP / "docs" / "testing.md", "dense-against-crops", f"{table}\n\n{note}")


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") is None, "OMP_NUM_THREADS would bound the threads of both"
    {"run": run, "write": write}[sys.argv[1]]()
