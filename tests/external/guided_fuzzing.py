"""Coverage-guided fuzzing by atheris (libFuzzer) of the parsers of tests/fuzz: inputs that reach new code are kept.

    make fuzz FUZZ_SECONDS=600    # for each parser, added to what earlier runs did
    python tests/external/guided_fuzzing.py --seconds 600 [--parsers tfjs,yolo] [--corpus FOLDER]

Readers, seeds, limits and what counts as a fault are those of tests/fuzz/fuzzing.py. Half of the changes are made by
its mutators, which keep checksums and lengths valid, half by libFuzzer. Coverage is that of verydeep and of the
packages in INSTRUMENTED. An input is a zip archive of some files; with --corpus a run begins with those that the last
one kept.

Seconds are a processor's. They and the number of inputs are added to those stored by earlier runs. A fault stays in the
stored result until reading its files again succeeds, which each run tries first.

The inputs that were kept are not in the repository: they are whole files, megabytes of weights among them, and depend
on the code that they reached. Seeds are made by tests/fuzz/corpus.py, and a fault becomes a test of its kind.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzing import Fuzzing

INSTRUMENTED = (
    *("verydeep", "json", "csv", "tarfile", "zipfile", "xml", "safetensors", "yaml", "PIL", "h5py"),
    *("starlette", "fastapi", "uvicorn", "h11"),
)
FLAGS = ("-len_control=0", "-reload=0", "-timeout=600", "-rss_limit_mb=0", "-use_value_profile=1")
NAME = "guided_fuzzing"
WINDOW = 4096  # bytes of a file that libFuzzer changes
GROWTH = 100_000  # bytes that an input may have over twice the largest seed: more is for tests/fuzz, and slow
CORPUS, SEEDS = "corpus", "seeds"  # folders of a parser's inputs
SUMS = ("seconds", "tried", "read")


def packed(files: dict[str, bytes]) -> bytes:
    """Files as one input."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name])
    return data.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    """The way back; empty for libFuzzer's first input, and for one that a killed process has not written to its end."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def child(name: str, seconds: float, first: int, place: Path) -> None:
    """The process of one parser, which ends itself: a fork of one that has the parsers' modules with counters."""
    import atheris
    from fuzzing import Fuzzing, limit_memory, log_to, seconds_used
    from targets import DEAR, READERS, Parser

    log_to(place / f"{name}.stderr")
    seeds = [unpacked(path.read_bytes()) for path in sorted((place / name / SEEDS).iterdir())]
    if name in DEAR:
        _read_mat_in_forks()
    with atheris.instrument_imports(include=INSTRUMENTED):
        work = Fuzzing(name, Parser(READERS[name], seeds), place, first)  # reads the seeds, which imports more
    limit_memory()
    began, checked = seconds_used(), time.monotonic()

    def test_one_input(data: bytes) -> None:
        nonlocal checked
        if files := unpacked(data):
            work.attempt(files)
        if time.monotonic() - checked > 1:
            checked = time.monotonic()
            work.found.seconds = seconds_used() - began
            if work.found.seconds > seconds:
                work.tell()
                os._exit(0)

    longest = 2 * max(len(packed(files)) for files in seeds) + GROWTH
    own = (f"-artifact_prefix={place / name}/", f"-max_len={longest}", f"-seed={first + 1}")
    words = [sys.argv[0], *FLAGS, *own, str(place / name / CORPUS)]
    atheris.Setup(words, test_one_input, custom_mutator=lambda data, most, seed: _changed(work, data, most, seed))
    atheris.Fuzz()


def _changed(work: Fuzzing, data: bytes, most: int, seed: int) -> bytes:
    """Another input: by a mutator of the files' format, or one file by libFuzzer's own."""
    import atheris
    from mutations import Draw
    from mutators import changed

    draw = Draw((seed,))
    files = unpacked(data) or work.other(draw)
    if draw.chance(0.5):
        files = changed(files, work.other(draw), draw)
    else:
        name = draw.one(sorted(files))
        data = files[name]
        start = draw.one((0, max(0, len(data) - WINDOW), draw.below(len(data) + 1)))  # weights are mostly numbers
        middle = atheris.Mutate(data[start : start + WINDOW], 2 * WINDOW)
        files = {**files, name: data[:start] + middle + data[start + WINDOW :]}
    found = packed(files)
    return found if len(found) <= most else b""


def _read_mat_in_forks() -> None:
    """MATLAB files are read in a process of their own, which takes half a second to start: a fork has scipy already."""
    import scipy.io  # noqa: F401

    from verydeep.core import matlab

    vars(matlab)["subprocess"] = SimpleNamespace(run=_in_fork, TimeoutExpired=subprocess.TimeoutExpired)


def _in_fork(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs `verydeep.core.matlab` for the command's file."""
    from verydeep.core import matlab

    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if not process:
            for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE):
                signal.signal(number, signal.SIG_DFL)  # not libFuzzer's handlers
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            sys.argv, sys.stdout = command[-2:], io.TextIOWrapper(output)
            status = matlab.main()
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        output.seek(0)
        return subprocess.CompletedProcess(command, status, output.read())


def make_seeds(place: Path) -> None:
    """Good files of each parser as inputs, once for a folder of corpora."""
    from targets import NAMES, seeds

    if all((place / name / SEEDS).is_dir() for name in NAMES):
        return
    with tempfile.TemporaryDirectory() as folder:
        made = seeds(Path(folder))
    for name in NAMES:
        for inputs in (place / name / SEEDS, place / name / CORPUS):
            inputs.mkdir(parents=True, exist_ok=True)
            for data in map(packed, made[name]):
                (inputs / hashlib.sha1(data).hexdigest()).write_bytes(data)


def still_there(name: str, faults: dict[str, str], place: Path) -> dict[str, str]:
    """The faults of earlier runs that the parser still has, or whose files are not here."""
    left = {}
    for fault, shown in faults.items():
        folder = place / name / shown.rpartition("(")[2].rstrip(")")
        reading = multiprocessing.get_context("spawn").Process(target=_read_again, args=(name, folder))
        if folder.is_dir():
            reading.start()
            reading.join()
        if reading.exitcode != 0:
            left[fault] = shown
    return left


def _read_again(name: str, folder: Path) -> None:
    from fuzzing import limit_memory, read_again

    limit_memory()
    sys.exit(read_again(name, folder))


def fuzz(name: str, seconds: float, place: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    """A parser's run, added to the earlier ones."""
    from fuzzing import watched

    from verydeep.checkpoints.run_dir import environment

    log = place / f"{name}.stderr"
    log.unlink(missing_ok=True)
    faults = still_there(name, earlier.get("faults", {}), place)
    found = watched(name, seconds, place, child, "fork", earlier.get("tried", 0))
    reached = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", log.read_text(encoding="utf8", errors="replace"))
    edges, kept = map(int, reached[-1]) if reached else (0, 0)
    return {
        **{key: round(earlier.get(key, 0) + getattr(found, key)) for key in SUMS},
        "runs": earlier.get("runs", 0) + 1,
        "slowest": max(found.slowest, earlier.get("slowest", 0.0)),
        **{"edges": edges, "kept": kept, "faults": {**faults, **found.faults}},
        **{key: environment({})[key] for key in ("commit", "time")},
    }


def save(details: dict[str, dict[str, Any]]) -> None:
    """Stores the results of all parsers, and writes the tables."""
    from fuzzing import page
    from suites import SuiteResult, store, versions_of

    faults = [f"{name}: {fault}" for name, told in details.items() for fault in told["faults"]]
    minutes = [told["seconds"] / 60 for told in details.values()]
    figures = {
        **{"parsers": len(details), "minutes a parser, least": min(minutes), "most": max(minutes)},
        "edges": sum(told["edges"] for told in details.values()),
    }
    inputs = sum(told["tried"] for told in details.values())
    what = "parsers of files from strangers, under changes that reach new code"
    store(NAME, SuiteResult(what, versions_of("atheris"), inputs, faults, figures, dict(sorted(details.items()))))
    page()


def _import_with_counters() -> None:
    """Imports the parsers, with counters in their code."""
    import atheris

    for module in [module for module in sys.modules if module.partition(".")[0] in INSTRUMENTED]:
        del sys.modules[module]
    with atheris.instrument_imports(include=INSTRUMENTED):
        import targets  # noqa: F401


def main() -> int:
    """The command; 1 where a parser has a fault."""
    parser = argparse.ArgumentParser(description="Parsers under changes that reach new code.")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--parsers", default="", help="all by default")
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    place = options.corpus or Path(tempfile.mkdtemp(prefix="guided-fuzzing-"))
    _import_with_counters()
    from suites import RESULTS
    from targets import NAMES

    from verydeep.core.files import read_json

    names = options.parsers.split(",") if options.parsers else list(NAMES)
    make_seeds(place)
    stored = RESULTS / f"{NAME}.json"
    details: dict[str, Any] = read_json(stored)["details"] if stored.is_file() else {}
    for name in names:
        details[name] = found = fuzz(name, options.seconds, place, details.get(name, {}))
        print(f"{name}: {found['seconds']:.0f} s, {found['tried']} inputs, {found['edges']} edges", flush=True)
        for fault, shown in found["faults"].items():
            print(f"    {fault}: {shown}", flush=True)
        save(details)
    print(place)
    return int(any(details[name]["faults"] for name in names))


if __name__ == "__main__":
    sys.exit(main())
