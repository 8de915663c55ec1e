"""R3: disks that are full or cannot be written, folders that go away, temporary folders elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from harness import TRAIN, Outcome, done, each, environment, words

from verydeep.checkpoints.checkpoint import load_checkpoint

ROOM = (0, 1, 2, 3, 4, 12)  # tenths of a checkpoint that are free on the disk


def disks(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial lets a run go on where it cannot be saved: one sentence, status 2, and the old checkpoint."""
    done(*TRAIN, "--max-epochs", 1, "--out", "whole", cwd=place)
    others = (_read_only, _gone, _no_folder, _tmpdir_elsewhere)

    def one(number: int) -> list[str]:
        way = number % (len(ROOM) + len(others))
        return _full(place, number, ROOM[way]) if way < len(ROOM) else others[way - len(ROOM)](place, number)

    return each(trials, one, advance)


Told = tuple[int, str, str]  # a command's status and words, and what its disk then holds


def _mounted(place: Path, number: int, size: int, before: str, typed: list[object], **more: str) -> Told:
    """Runs a command on a small disk of its own that holds the run; with the last checkpoint's hash then."""
    disk = place / f"disk-{number}"
    disk.mkdir()
    start = " ".join(f"'{word}'" for word in words(*typed))
    script = (
        f"mount -t tmpfs -o size={size} tmpfs {disk} && cp -r {place / 'whole'} {disk}/run && {before} {start}; "
        f"echo status $?; sha256sum {disk}/run/last.safetensors; ls -A {disk}/run; "
    )
    ended = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(**more),
    )
    status = ended.stdout.partition("status ")[2].partition("\n")
    return int(status[0] or -1), ended.stderr, status[2]


def _judged(place: Path, told: Told, names: str) -> list[str]:
    status, words_told, left = told
    faults = []
    if status != 2 or words_told.count("verydeep: ") != 1 or "Traceback" in words_told:
        faults.append(f"status {status}: {words_told[-300:]}")
    if names not in words_told:
        faults.append(f"the sentence does not name {names}: {words_told[-300:]}")
    if load_checkpoint(place / "whole" / "last.safetensors").sha256 not in left:
        faults.append("the old checkpoint is not there")
    return faults + [f"{name} was left" for name in left.split() if name.endswith(".tmp")]


def _full(place: Path, number: int, tenths: int) -> list[str]:
    whole = place / "whole"
    size = sum(path.stat().st_size for path in whole.iterdir()) + 20 * 4096
    size += tenths * (whole / "last.safetensors").stat().st_size // 10
    typed = [*TRAIN, "--quiet", "--resume", "--max-epochs", 40, "--out", place / f"disk-{number}" / "run"]
    if tenths > 10:  # a save takes room for one more than the two that are kept
        status, told, _ = _mounted(place, number, size, "", typed)
        return [] if status == 0 else [f"room enough, and status {status}: {told[-300:]}"]
    return _judged(place, _mounted(place, number, size, "", typed), "safetensors")


def _read_only(place: Path, number: int) -> list[str]:
    disk = place / f"disk-{number}"
    typed = [*TRAIN, "--quiet", "--resume", "--max-epochs", 2, "--out", disk / "run"]
    told = _mounted(place, number, 50_000_000, f"mount -o remount,ro {disk} &&", typed)
    return _judged(place, told, str(disk / "run"))


def _no_folder(place: Path, number: int) -> list[str]:
    (place / f"file-{number}").write_text("a file")
    ended = subprocess.run(
        words(*TRAIN, "--quiet", "--max-epochs", 1, "--out", place / f"file-{number}" / "run"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    fine = ended.returncode == 2 and f"file-{number} is not a folder" in ended.stderr
    return [] if fine else [f"status {ended.returncode}: {ended.stderr[-300:]}"]


def _gone(place: Path, number: int) -> list[str]:
    """The run's folder is removed while it trains: it is made again, or told of."""
    run = place / f"gone-{number}"
    shutil.copytree(place / "whole", run)
    going = subprocess.Popen(
        words(*TRAIN, "--quiet", "--resume", "--max-epochs", 400, "--out", run),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    time.sleep(4)
    there = going.poll() is None
    shutil.rmtree(run, ignore_errors=True)
    _, told = going.communicate(timeout=300)
    fine = there and going.returncode in (0, 2) and "Traceback" not in told
    return [] if fine else [f"status {going.returncode}: {told[-300:]}"]


def _tmpdir_elsewhere(place: Path, number: int) -> list[str]:
    """A temporary folder on another disk, which has no room: nothing of a run is written there."""
    disk = place / f"disk-{number}"
    typed = [*TRAIN, "--quiet", "--resume", "--max-epochs", 2, "--out", place / f"elsewhere-{number}"]
    shutil.copytree(place / "whole", place / f"elsewhere-{number}")
    status, told, _ = _mounted(place, number, 10_000_000, "", typed, TMPDIR=str(disk))
    return [] if status == 0 else [f"status {status}: {told[-300:]}"]
