"""One photo by `verydeep predict`, from the prompt to the answer: seconds, processor seconds, memory, and its parts.

    NET_E=run PHOTO=file python benchmarks/cold_start.py run [CHECKOUT]
    python benchmarks/cold_start.py write    # into docs/scale.md

CHECKOUT is the folder of another version of this project, whose command takes turns with this one's. The files are in
the system's cache. The parts are measured in a process that does what the command does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.terminal import Terminal
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "benchmarks" / "results" / "cold_start.json"
TURNS = 7
PARTS = """
import json, os, sys, time
seconds, processor = [time.perf_counter()], [time.process_time()]
def end():
    seconds.append(time.perf_counter())
    processor.append(time.process_time())
import torch
end()
import verydeep
from verydeep.transfer.load import load
end()
net = load(sys.argv[1])
end()
net.predict(sys.argv[2])
end()
net.predict(sys.argv[2])
end()
print(json.dumps([[after - before for before, after in zip(part, part[1:])] for part in (seconds, processor)]))
"""
NAMES = ("import torch", "import verydeep", "open the run: hash and weights", "first photo", "second photo")


def run(other: str | None) -> None:
    """Measures and stores."""
    versions = {"here": TOP, **({} if other is None else {"before": Path(other).resolve()})}
    words = [os.environ["NET_E"], os.environ["PHOTO"]]
    commands: dict[str, list[list[float]]] = {name: [] for name in versions}
    parts: list[Any] = []
    with Terminal().track("measuring in turns", TURNS + 1) as advance:
        for turn in range(TURNS + 1):
            for name, top in versions.items():
                measured = _command(top, words)
                if turn:
                    commands[name].append(measured)
            words_of_parts = [sys.executable, "-c", PARTS, *words]
            waiting = {**_of(TOP), "OMP_WAIT_POLICY": "passive"}  # as the command sets it
            done = subprocess.run(words_of_parts, env=waiting, stdout=subprocess.PIPE, check=True)
            if turn:
                parts.append(json.loads(done.stdout))
            advance(1, "")
    commits = {name: _commit(top) for name, top in versions.items()}
    write_json(RESULTS, {"commands": commands, "parts": parts, "commits": commits, "environment": environment({})})


def _of(top: Path) -> dict[str, str]:
    """The environment in which Python imports the package of a checkout."""
    return {**os.environ, "PYTHONPATH": str(top / "src")}


def _command(top: Path, words: list[str]) -> list[float]:
    """Seconds, processor seconds, and largest memory in bytes of the command."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "verydeep", "predict", *words],
        env=_of(top),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"predict of {top} ended with status {child.returncode}")
    return [time.perf_counter() - began, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss]


def _commit(top: Path) -> str:
    words = ["git", "-C", str(top), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def write() -> None:
    """Writes what is stored into docs/scale.md."""
    stored = read_json(RESULTS)
    rows = []
    for name, turns in stored["commands"].items():
        memory = statistics.median(turn[2] for turn in turns)
        title = f"`predict`, commit {stored['commits'][name]}"
        rows.append([title, _seconds(turns, 0), _seconds(turns, 1), f"{memory / 1e6:.0f}"])
    for number, name in enumerate(NAMES):
        turns = [[part[number] for part in turn] for turn in stored["parts"]]
        rows.append([f"– {name}", _seconds(turns, 0), _seconds(turns, 1), ""])
    where = stored["environment"]
    note = (
        f"Net E whole, one photo; median (least–most) of {len(stored['parts'])} turns. {where['processor']}, torch "
        f"{where['versions']['torch']}, {where['time'][:10]}."
    )
    table = markdown_table(["", "seconds", "processor seconds", "largest memory, MB"], rows)
    write_block(TOP / "docs" / "scale.md", "cold_start", f"{table}\n\n{note}")


def _seconds(turns: list[list[float]], number: int) -> str:
    values = [turn[number] for turn in turns]
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2] if len(sys.argv) > 2 else None)
    else:
        write()
