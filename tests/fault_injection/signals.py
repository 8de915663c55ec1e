"""R2: SIGTERM, SIGINT and SIGUSR1 while a command is in a step, a save, a test, and to the process that reads."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from evaluation_signals import ASKED, asked, prepared
from harness import TRAIN, Outcome, command, differences, done, each, environment
from process_watch import Watched, watched

from verydeep.checkpoints.checkpoint import Metadata, load_checkpoint, save_checkpoint
from verydeep.models.vgg import create_net

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EPOCHS, PATIENCE = 8, 10.0
STEPS = 15  # of an epoch
KINDS = ("test", "evaluate", "save", "reader", "step", "features", "group", "predict", "beginning", "step")


def signals(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial sends a signal to a command at work, looks at what is left, and lets it go on to its end."""
    # A job in the background ignores Ctrl-C, and so would the commands that it begins.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    base: list[object] = [*TRAIN, "--width", 1 / 16, "--max-epochs", EPOCHS, "--quiet"]
    done(*base, "--out", "whole", cwd=place)
    spans = prepared(place, {KINDS[number % len(KINDS)] for number in range(trials)})
    waits: list[float] = []
    hits = {"in_steps": 0, "in_tests": 0, "in_saves": 0}

    def one(number: int) -> list[str]:
        rng, kind = np.random.default_rng([2, number]), KINDS[number % len(KINDS)]
        which = SIGNALS[(number + number // len(KINDS)) % len(SIGNALS)]
        if kind in ASKED:
            return asked(kind, which, place, f"{kind}-{number}", float(rng.uniform(0, spans[kind])))
        going = watched([*base, "--out", f"trial-{number}"], place, f"trial-{number}")
        if kind == "reader":
            return _reader(going, which, place, number)
        saving = _moment(going, kind, rng)
        going.tell(which, whole_group=kind == "group")
        faults = going.ended(which, PATIENCE)
        waits.append(going.waited)
        run = place / f"trial-{number}"
        if not (run / "last.safetensors").exists():
            return faults + _never_begun(going, kind, run)
        faults += _saved(going, run)
        hits[_hit(run, saving)] += 1
        return faults + _to_the_end(base, place, run)

    found = each(trials, one, advance)
    return Outcome(trials, found.faults, {**hits, "slowest_stop_seconds": max(waits, default=0.0)})


def signals_and_the_save_of_d(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """The long form: with how long the save of a full net D takes here, which a signal in a save waits for."""
    found = signals(place, trials, advance)
    (place / "full").mkdir()
    child = subprocess.run(
        [sys.executable, __file__, str(place / "full")], capture_output=True, text=True, check=True, env=environment()
    )
    return Outcome(trials, found.faults, {**found.figures, **json.loads(child.stdout)})


def _moment(going: Watched, kind: str, rng: np.random.Generator) -> bool:
    """Waits for a random moment of a kind; whether a file was being written then."""
    run = going.place / going.name
    if kind == "beginning":
        going.until(going.listens)
        time.sleep(float(rng.uniform(0, 3.0)))
        return False
    after = int(rng.integers(1, EPOCHS - 3))
    going.until(lambda: _lines(run) >= after)
    if kind == "save":
        for _ in range(int(rng.integers(0, 4))):  # some saves later, and at any point of one
            going.until(lambda: _writes(run))
            going.until(lambda: not _writes(run))
        return going.until(lambda: _writes(run))
    if kind == "test":  # which has a process of its own to read
        going.until(lambda: len(going.children()) > 1)
    time.sleep(float(rng.uniform(0, 0.05)))
    return _writes(run)


def _lines(run: Path) -> int:
    return (run / "log.jsonl").read_text().count("\n") if (run / "log.jsonl").exists() else 0


def _writes(run: Path) -> bool:
    return run.is_dir() and any(path.name.endswith(".tmp") for path in run.iterdir())


def _hit(run: Path, saving: bool) -> str:
    """Where a signal found a training, told by where it stopped."""
    state = load_checkpoint(run / "last.safetensors").metadata.state
    return "in_saves" if saving else "in_tests" if state["batch"] == STEPS else "in_steps"


def _never_begun(going: Watched, kind: str, run: Path) -> list[str]:
    """A training that was told before its first step leaves nothing."""
    faults = [] if kind == "beginning" else [f"{kind}: no checkpoint was saved: {going.told[-300:]}"]
    return faults + ([f"{run.name} was left by a training that took no step"] if run.exists() else [])


def _saved(going: Watched, run: Path) -> list[str]:
    """What is told, and what is kept, are of the same step."""
    state = load_checkpoint(run / "last.safetensors").metadata.state
    sentence = f"interrupted at step {state['step']}, saved"
    logged = _lines(run) * STEPS
    faults = [] if sentence in going.told else [f"the checkpoint is of step {state['step']}: {going.told[-300:]}"]
    return faults if logged <= state["step"] <= logged + STEPS else [*faults, f"step {state['step']} after {logged}"]


def _reader(going: Watched, which: signal.Signals, place: Path, number: int) -> list[str]:
    """A signal to the process that reads alone: it is the other's to end, and the training goes on."""
    run = place / f"trial-{number}"
    going.until(lambda: _lines(run) >= 2)
    told = going.children()
    for child in told:
        going.tell(which, child)
    faults = [] if told else ["no process reads"]
    return faults + going.ended(None, 300.0) + differences(place / "whole", run)


def _to_the_end(base: list[object], place: Path, run: Path) -> list[str]:
    ended = command(*base, "--out", run.name, "--resume", cwd=place)
    if ended.returncode:
        return [f"resumed, it ended with {ended.returncode}: {ended.stderr[-300:]}"]
    return differences(place / "whole", run)


def _save_of_d(place: Path) -> None:
    """In a process of its own: saves a net D of full width with momentum, twice as a training does; to stdout."""
    torch.set_num_threads(1)
    net = create_net("D", 1000, 224, 1.0, "glorot", 0, "up")
    metadata = Metadata("D", 224, 1.0, tuple(map(str, range(1000))), (0.0, 0.0, 0.0), 256)
    momentum = {name: torch.full_like(value, 0.5) for name, value in net.named_parameters()}
    path, seconds = place / "last.safetensors", []
    for _ in range(2):
        began = time.monotonic()
        save_checkpoint(path, net, metadata, momentum, place / "previous.safetensors")
        seconds.append(time.monotonic() - began)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {"save_of_full_D_seconds": max(seconds), "gigabytes_on_disk": path.stat().st_size / 2**30}
    print(json.dumps({**figures, "gigabytes_of_memory": gigabytes}))


if __name__ == "__main__":
    _save_of_d(Path(sys.argv[1]))
