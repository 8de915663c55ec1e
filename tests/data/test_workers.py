"""Data-loading workers: killed, hanging, without shared memory, left alone; by the real commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import Command, make_photos
from verydeep.core.device import LoaderSettings
from verydeep.core.errors import VerydeepError
from verydeep.data.workers import Fault, WatchedLoader

SIZE = ["--crop", 32, "--width", 1 / 32, "--S", "36", "--batch", 8, "--threads", 1, "--start", "none"]
TRAIN = ["train", "A", "--data", "photos", "--out", "run", *SIZE, "--max-epochs", 9999, "--workers", 1, "--quiet"]


class Begun:
    """A training that is going on, and its one process that reads."""

    def __init__(self, place: Path, *more: object) -> None:
        words = [sys.executable, "-m", "verydeep", *map(str, (*TRAIN, *more))]
        self.run = place / "run"
        self.process = subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True)
        log = self.run / "log.jsonl"
        for _ in range(6000):
            if log.exists() and log.read_text().count("\n") >= 2:
                break
            time.sleep(0.01)
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        self.reader = int(children.stdout.split()[0])

    def ended(self) -> str:
        """What it tells at its end."""
        _, told = self.process.communicate(timeout=60)
        assert "Traceback" not in told
        return told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGKILL, "data-loading worker was killed, perhaps for lack of memory, while "),
        (signal.SIGSTOP, "data-loading worker timed out after 2 s while "),
    ],
)
def test_a_worker_that_dies_or_hangs_ends_the_command_with_a_message(
    photos: Path, number: signal.Signals, sentence: str
) -> None:
    """The checkpoint stays, nothing hangs, no process is left."""
    begun = Begun(photos.parent, "--read-timeout", 2)
    os.kill(begun.reader, number)
    told = begun.ended()
    assert begun.process.returncode == 2, told
    assert sentence in told
    assert (begun.run / "last.safetensors").exists()
    assert not Path(f"/proc/{begun.reader}").exists()


@pytest.mark.slow
def test_a_suspended_job_continues(photos: Path) -> None:
    """As Ctrl-Z and `fg` do: the readers were not silent, nobody was there."""
    begun = Begun(photos.parent, "--read-timeout", 2)
    both = (begun.process.pid, begun.reader)
    for process in both:
        os.kill(process, signal.SIGSTOP)
    time.sleep(3)
    for process in reversed(both):
        os.kill(process, signal.SIGCONT)
    log = begun.run / "log.jsonl"
    before = log.read_text().count("\n")
    for _ in range(3000):
        if log.read_text().count("\n") > before + 2:
            break
        time.sleep(0.01)
    begun.process.terminate()
    told = begun.ended()
    assert begun.process.returncode == 143, told
    assert log.read_text().count("\n") > before + 2


@pytest.mark.slow
def test_a_worker_ends_with_its_parent_process(photos: Path) -> None:
    begun = Begun(photos.parent)
    begun.process.kill()
    begun.ended()
    for _ in range(300):
        if not Path(f"/proc/{begun.reader}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{begun.reader}").exists()


def test_images_are_loaded_with_a_long_temporary_folder_name(photos: Path, tmp_path: Path) -> None:
    """A socket's path is bounded, and schedulers set TMPDIR to long ones."""
    long = tmp_path / ("job-" + 80 * "9")
    long.mkdir()
    words = [sys.executable, "-m", "verydeep", *map(str, TRAIN), "--max-epochs", "1", "--read-timeout", "20"]
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run(
        words, cwd=photos.parent, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert (photos.parent / "run" / "result.json").exists()


def test_a_terminated_command_removes_unfinished_files(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "verydeep", "data", "pack", "digits:1500", "pack", "--size", "400", "--workers", "1"]
    going = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if list(tmp_path.glob("pack/.*.tmp")):
            break
        time.sleep(0.01)
    going.terminate()
    _, told = going.communicate(timeout=60)
    assert going.returncode == 143, told
    assert told.endswith("verydeep: interrupted.\n")
    assert "Traceback" not in told
    assert not list(tmp_path.glob("pack/.*"))


def test_too_little_shared_memory_is_an_error_before_loading(photos: Path) -> None:
    inside = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {} -m verydeep {}"
    script = inside.format(sys.executable, " ".join(map(str, TRAIN)))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=photos.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("this machine lets nobody mount a small /dev/shm")
    assert done.returncode == 2
    assert "of shared memory, and 0 MB are free: free space in /dev/shm" in done.stderr
    assert "Traceback" not in done.stderr


def test_named_pipes_do_not_block(command: Command, photos: Path) -> None:
    os.mkfifo(photos / "red" / "pipe.png")
    told = command("data", "check", photos)
    assert told.status == 2
    assert "pipe.png: not a regular file" in told.stdout


class Flaky:
    """An item that cannot be read the first times."""

    def __init__(self, failures: int, may_pass: bool) -> None:
        self.left, self.may_pass = failures, may_pass

    def __getitem__(self, index: int) -> object:
        self.left -= 1
        return Fault("no answer", self.may_pass) if self.left >= 0 else torch.tensor(index)


@pytest.mark.parametrize(("failures", "retries", "may_pass", "read"), [(2, 2, True, True), (3, 2, True, False)])
def test_reading_is_retried_after_io_errors(
    monkeypatch: pytest.MonkeyPatch, failures: int, retries: int, may_pass: bool, read: bool
) -> None:
    paused: list[float] = []
    monkeypatch.setattr("verydeep.data.workers.time.sleep", paused.append)
    items = WatchedLoader(Flaky(failures, may_pass), range(1), str, LoaderSettings(0, 600, retries))
    (found,) = list(items)
    assert isinstance(found, torch.Tensor) == read
    assert paused == [1.0, 2.0]


def test_reading_a_broken_image_is_not_retried() -> None:
    items = Flaky(1, may_pass=False)
    (found,) = list(WatchedLoader(items, range(1), str, LoaderSettings(0, 600, 5)))
    assert isinstance(found, Fault)
    assert items.left == 0


class Failing:
    """Items of which the second raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index: int) -> int:
        if index == 1:
            raise self.error
        return index


def name(index: int) -> str:
    return f"photo {index}"


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_in_a_worker_names_the_image(count: int) -> None:
    (_, fault, _) = list(WatchedLoader(Failing(MemoryError()), range(3), name, LoaderSettings(count)))
    assert fault == Fault("photo 1 cannot be read (MemoryError).")
    with pytest.raises(RuntimeError, match="while photo 1 was read"):  # a mistake of ours keeps its traceback
        list(WatchedLoader(Failing(KeyError("x")), range(3), name, LoaderSettings(count)))


def test_full_shared_memory_has_a_message() -> None:
    fault = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
    with pytest.raises(VerydeepError, match=r"of shared memory, and .* MB are free: free space in /dev/shm"):
        list(WatchedLoader(Failing(fault), range(3), name, LoaderSettings(1)))


@pytest.mark.parametrize(
    "words",
    [["train", "A", "--data", "digits", *SIZE, "--workers", 1, "--out", "run"], ["demo", "--out", "run"]],
)
def test_a_training_stopped_while_loading_leaves_no_files(tmp_path: Path, words: list[object]) -> None:
    going = subprocess.Popen(
        [sys.executable, "-m", "verydeep", *map(str, words)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert going.stderr is not None
    told = ""
    while "10 classes, images:" not in told and (line := going.stderr.readline()):
        told += line
    going.terminate()
    told += going.communicate(timeout=60)[1]
    assert going.returncode == 143, told
    assert "verydeep: interrupted before the first step: nothing was saved; run the command again." in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_loader_settings(command: Command, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 4)
    for words, told in (
        (["--read-timeout", 0], "must be 1 or more"),
        (["--read-retries", 11], "read-retries must be 0 to 10"),
    ):
        assert told in command("train", "A", "--data", photos, *SIZE, *words, cwd=tmp_path).mistake()


def test_too_little_shared_memory_raises_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verydeep.data.workers._shared_memory", lambda: 0)
    with pytest.raises(VerydeepError, match="need about 1 MB of shared memory"):
        WatchedLoader(Failing(KeyError()), range(3), name, LoaderSettings(2))
