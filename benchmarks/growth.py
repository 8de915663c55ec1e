"""Scaling: images/s by batch size, image size and data-loading workers; time to open a pack by its entries.

python benchmarks/growth.py run      # some ten minutes of two cores
python benchmarks/growth.py write    # docs/pictures/growth.png, and the table in docs/scale.md
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.checkpoints.run_dir import environment
from verydeep.core.config import Scale
from verydeep.core.device import LoaderSettings, resolve_device
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import DataSettings, MachineSettings, TrainSettings
from verydeep.core.terminal import Terminal
from verydeep.data.dataloader import TrainingLoader
from verydeep.data.datasets.packed import CARD, FORMAT, ROW, ids_file, index_file
from verydeep.data.open import open_data
from verydeep.data.pack_writer import Packing, pack_data
from verydeep.deploy.benchmark.benchmark import benchmark
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS, PICTURE = TOP / "benchmarks" / "results" / "growth.json", TOP / "docs" / "pictures" / "growth.png"
BATCHES, SIDES, REPEATS = (1, 2, 4, 8, 16, 32), (224, 256, 384, 512), 3
ENTRIES, READERS, SCENES = (1_000, 10_000, 100_000, 1_000_000), (0, 1, 2, 4), 2000
NAMES = {
    "batch": ("images per batch", "images/s", "net D, 224x224"),
    "side": ("smallest side, 4:3", "images/s", "net D, dense with mirror images"),
    "readers": ("data-loading workers", "images/s", "from a raw pack, S = 256"),
    "entries": ("images in the index", "seconds", "opening a pack"),
}


def run() -> None:
    """Measures and stores."""
    terminal = Terminal()
    machine = resolve_device(MachineSettings(), 1e12)
    results: dict[str, list[list[float]]] = {"batch": [], "side": [], "readers": [], "entries": []}
    for batch in BATCHES:
        row = benchmark("infer", ["D"], batch, repeats=REPEATS, reporter=terminal)["rows"][0]
        results["batch"].append([batch, row["images_per_second"]])
    for side in SIDES:
        row = benchmark("dense", ["D"], size=side, repeats=REPEATS, reporter=terminal)["rows"][0]
        results["side"].append([side, row["images_per_second"]])
    results["readers"] = [[count, _reading(count)] for count in READERS]
    memory = []
    for entries in ENTRIES:
        seconds, size = _opening(entries)
        results["entries"].append([entries, seconds])
        memory.append([entries, size])
    write_json(RESULTS, {**results, "memory": memory, "environment": environment(machine.describe())})


def _reading(workers: int) -> float:
    """Photos a second of an epoch from a pack, the second one: the first maps its pages."""
    with tempfile.TemporaryDirectory() as directory:
        pack_data(DataSettings(f"digits:{SCENES}"), Path(directory) / "pack", Packing(256))
        dataset = open_data(DataSettings(str(Path(directory) / "pack"))).sets["train"]
        recipe = TrainSettings(net="D", S=Scale(256, 256), batch=64)
        loader = TrainingLoader(dataset, recipe, np.eye(3), 8192, LoaderSettings(workers))
        for epoch in (0, 1):
            start = time.perf_counter()
            seen = sum(len(batch.labels) for batch in loader.epoch(epoch))
            seconds = time.perf_counter() - start
    return round(seen / seconds, 1)


def _opening(entries: int) -> tuple[float, float]:
    """Seconds, and MB of memory beyond an empty start, of opening an index in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        index = np.zeros(entries, dtype=ROW)
        index["label"], index["subject"] = np.arange(entries) % 1000, np.arange(entries)
        np.save(index_file(folder, "train"), index)
        names = "\0".join(f"n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG" for n in range(entries))
        ids_file(folder, "train").write_text(names)
        sets = {"train": {"photos": entries, "ignored": 0, "shards": []}}
        metadata = {"format": FORMAT, "name": "made up", "form": "raw", "size": 256, "split_by_us": False}
        write_json(folder / CARD, {**metadata, "classes": list(map(str, range(1000))), "sets": sets})
        done = subprocess.run([sys.executable, __file__, "open", directory], capture_output=True, text=True, check=True)
    seconds, size = json.loads(done.stdout)
    return seconds, size


def opened(directory: str) -> None:
    """Opens a pack and prints what that took."""
    before = _most_memory()
    start = time.perf_counter()
    sets = open_data(DataSettings(directory)).sets
    seconds = time.perf_counter() - start
    after = _most_memory()
    assert len(sets["train"])
    print(json.dumps([round(seconds, 4), round((after - before) / 1024, 1)]))


def _most_memory() -> int:
    """Peak memory of this process in kB, without that of its parent."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["VmHWM"].split()[0])


def write() -> None:
    """The picture, and the table."""
    stored = read_json(RESULTS)
    _draw(stored)
    memory = dict(map(tuple, stored["memory"]))
    rows: list[list[Any]] = []
    for name, (across, down, what) in NAMES.items():
        for value, figure in stored[name]:
            more = f", {memory[value]:.0f} MB" if name == "entries" else ""
            rows.append([what, f"{value:,} {across}", f"{figure:,.4g} {down}{more}"])
    where = stored["environment"]
    note = (
        f"One run; images/s of the net are the median of {REPEATS}. {where['processor']}, {where['cores']} cores; "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    write_block(TOP / "docs" / "scale.md", "growth", f"{markdown_table(['what', 'size', 'result'], rows)}\n\n{note}")


def _draw(stored: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for ax, (name, (across, down, what)) in zip(axes.flat, NAMES.items(), strict=True):
        ax.plot(*zip(*stored[name], strict=True), marker="o", color="#1f5fa8")
        ax.set(xlabel=across, ylabel=down, title=what)
        if name == "entries":
            ax.set(xscale="log", yscale="log")
        else:
            ax.set_ylim(0, 1.1 * max(figure for _, figure in stored[name]))
    PICTURE.parent.mkdir(exist_ok=True)
    canvas.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    {"run": run, "write": write, "open": lambda: opened(sys.argv[2])}[sys.argv[1]]()  # type: ignore[no-untyped-call]
