"""Parsers under changed bytes: each of many files from strangers is read, or refused with a sentence, soon.

    python tests/fuzz/fuzzing.py --seconds 600 [--parsers images,csv] [--jobs 2]   # into results, then the page
    python tests/fuzz/fuzzing.py --parsers csv --read FOLDER   # reads the stored files of a fault again
    python tests/fuzz/fuzzing.py --page    # docs/reliability.md from what is stored

Seeds are good files (`corpus`), which are changed (`mutators`); what is refused in a way not seen before is a seed of
others. Each parser is fuzzed in a process of its own, which may take 4 GB more than it had. A fault is what raises
anything but a `VerydeepError`, a warning too, takes five seconds of a processor, or ends the process, which a minute
of a processor or ten minutes of silence do too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

from findings import Tried
from harness import Outcome
from mutations import Draw
from mutators import Files, changed
from own_corpus import files_of
from targets import NAMES, READERS, WITH_PYARROW, Parser, parsers

from verydeep.checkpoints.run_dir import environment
from verydeep.core.errors import VerydeepError
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[2]
RESULTS, PAGE = TOP / "tests" / "fault_injection" / "results" / "fuzz.json", TOP / "docs" / "reliability.md"
GUIDED = TOP / "tests" / "external" / "results" / "guided_fuzzing.json"  # by tests/external/guided_fuzzing.py
SLOW, HANGS = 5.0, 60.0  # seconds of a processor for one input: a fault, and the end of the process
SILENT = 600.0  # seconds
MORE_MEMORY = 4 * 2**30
MOST_SEEDS, LARGEST_SEED = 400, 1_000_000  # bytes
IN_A_ROW = 10  # seconds a parser in the row of the torture
TOLD_EVERY = 2.0
Way = tuple[str, ...]
Work = Callable[[str, float, int, Path], None]  # of a parser's process: as `child`


class Fuzzing:
    """A parser and its seeds at work in a folder; `run` gives it changed files."""

    def __init__(self, name: str, parser: Parser, place: Path, first: int = 0) -> None:
        self.parser, self.place, self.first, self.found = parser, place / name, first, Tried()
        self._seeds = [*parser.seeds]
        self._ways: set[Way] = set()
        self._told = time.monotonic()
        (self.place / "now").mkdir(parents=True, exist_ok=True)
        for files in parser.seeds:
            self._written(files)
            parser.read(self.place / "now")

    @property
    def number(self) -> int:
        """That of the trial at work, counted on from an earlier process's."""
        return self.first + self.found.tried

    def run(self, seconds: float, most: float = float("inf")) -> Tried:
        """Tries for some seconds, or so many files; trial by trial what is in ``now`` is being read."""
        began = time.monotonic()
        while time.monotonic() - began < seconds and self.found.tried < most:
            draw = Draw((13, self.number))
            among = self.parser.seeds if draw.chance(0.5) else self._seeds
            self.attempt(changed(draw.one(among), self.other(draw), draw))
            self.found.seconds = time.monotonic() - began
        self.tell()
        return self.found

    def other(self, draw: Draw) -> Files:
        """Files that pieces may be taken from."""
        return draw.one(self._seeds)

    def attempt(self, files: Files) -> None:
        """One trial; what was found is written down every few seconds."""
        (self.place / "number").write_text(str(self.number))
        self._try(files)
        self.found.tried += 1
        if time.monotonic() - self._told > TOLD_EVERY:
            self._told = time.monotonic()
            self.tell()

    def tell(self) -> None:
        """Writes down what was found so far."""
        self.found.ways = len(self._ways)
        write_json(self.place / "told.json", self.found.to_json())

    def _try(self, files: Files) -> None:
        self._written(files)
        took, fault = self._once()
        self.found.slowest = max(self.found.slowest, took)
        if took > SLOW:
            self._keep("slow", f"{took:.1f} s", files)
        if fault is None:
            self.found.read += 1
            return
        way = _way(fault)
        if not isinstance(fault, VerydeepError):
            self._keep(f"{type(fault).__name__} at {way[0]}", "".join(traceback.format_exception(fault)), files)
        else:
            self.found.sentences.add(_gist(str(fault), self.place))
        if way not in self._ways:
            self._ways.add(way)
            if len(self._seeds) < MOST_SEEDS and sum(map(len, files.values())) < LARGEST_SEED:
                self._seeds.append(files)

    def _once(self) -> tuple[float, Exception | None]:
        began = seconds_used()
        signal.setitimer(signal.ITIMER_PROF, HANGS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.parser.read(self.place / "now")
            return seconds_used() - began, None
        except Exception as fault:
            return seconds_used() - began, fault
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _written(self, files: Files) -> None:
        _write(self.place / "now", files)

    def _keep(self, name: str, told: str, files: Files) -> None:
        if name not in self.found.faults:
            _write(self.place / f"fault-{self.number}", files)
            shown = told.encode("ascii", "backslashreplace").decode().rstrip()
            print(shown, file=sys.stderr)
            self.found.faults[name] = shown.rpartition("\n")[2][:200] + f" (fault-{self.number})"


def seconds_used() -> float:
    """Seconds of a processor that this process and its children have used: a busy machine is no parser's fault."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _way(fault: BaseException) -> Way:
    """Where a file was refused: the lines that raised, the innermost first, of what it came from too."""
    lines: list[str] = []
    one: BaseException | None = fault
    while one is not None and len(lines) < 40:
        frames = traceback.extract_tb(one.__traceback__)
        lines += [f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)]
        one = one.__context__
    return tuple(lines)


def _gist(sentence: str, place: Path) -> str:
    """A sentence without the names and numbers of one file."""
    gist = re.sub(r"\d+|'[^']*'|\"[^\"]*\"|\(.*\)", "#", sentence.replace(str(place), ""))
    return gist[:150].encode("ascii", "backslashreplace").decode()


def child(name: str, seconds: float, first: int, place: Path) -> None:
    """The process of one parser."""
    log_to(place / f"{name}.stderr")
    work = Fuzzing(name, parsers(place / "seeds" / f"{name}-{first}")[name], place, first)
    limit_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work.run(seconds)
    work.found.megabytes = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    work.tell()


def log_to(path: Path) -> None:
    """Standard error of this process goes to a file, standard output nowhere: --help may be typed."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def limit_memory() -> None:
    """Lets this process take so many bytes more."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE_MEMORY, resource.RLIM_INFINITY))


def watched(name: str, seconds: float, place: Path, work: Work = child, method: str = "spawn", first: int = 0) -> Tried:
    """Fuzzes a parser in a process begun by a method of multiprocessing, and begun again where it ends or hangs."""
    context, whole = multiprocessing.get_context(method), Tried()
    while True:
        shutil.rmtree(place / name / "now", ignore_errors=True)
        for file in ("told.json", "number"):
            (place / name / file).unlink(missing_ok=True)
        process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=work, args=(name, seconds - whole.seconds, first, place)
        )
        process.start()
        ended = _ended(process, place / name / "number")
        told = place / name / "told.json"
        part = Tried.of(read_json(told)) if told.is_file() else Tried(seconds=TOLD_EVERY)
        if ended:
            if not (place / name / "number").is_file():
                raise RuntimeError(f"the process of {name} {ended} before its first trial; see {place / name}.stderr")
            number = int((place / name / "number").read_text() or first)  # empty where the end was in its writing
            shutil.copytree(place / name / "now", place / name / f"end-{number}", dirs_exist_ok=True)
            part.faults[ended] = f"trial {number} (end-{number})"
            first = number + 1
        whole.add(part)
        if not ended or whole.seconds > seconds - TOLD_EVERY or len(whole.faults) >= 20:
            return whole


def _ended(process: BaseProcess, number: Path) -> str:
    """How a process ended; empty where it did by itself."""
    at, since = "", time.monotonic()
    while process.is_alive():
        time.sleep(0.2)
        now = number.read_text() if number.is_file() else ""
        if now != at:
            at, since = now, time.monotonic()
        if now and time.monotonic() - since > SILENT:  # not while it begins
            process.kill()
            process.join()
            return f"no answer for {SILENT:.0f} s"
    if process.exitcode == -signal.SIGPROF:
        return f"{HANGS:.0f} s of a processor"
    return "" if process.exitcode == 0 else f"the process ended with {process.exitcode}"


def read_again(name: str, folder: Path) -> int:
    """Reads the stored files of a fault in this process; 1, and the fault on stderr, where it is still there."""
    with tempfile.TemporaryDirectory() as place:
        work = Fuzzing(name, Parser(READERS[name], []), Path(place))
        work.attempt(files_of(folder, ("",)))
    return int(bool(work.found.faults))


def fuzzed(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """The row of the torture: each parser for some seconds."""
    seconds = float(os.environ.get("FUZZ_SECONDS", str(IN_A_ROW)))
    found = _all(list(NAMES)[:trials], seconds, place, 2, lambda name, tried: advance())
    faults = [f"{name}: {fault}: {told}" for name, tried in found.items() for fault, told in tried.faults.items()]
    figures = {"files": float(sum(tried.tried for tried in found.values())), "seconds a parser": seconds}
    return Outcome(trials, faults, figures)


def _all(
    names: list[str], seconds: float, place: Path, jobs: int, done: Callable[[str, Tried], object]
) -> dict[str, Tried]:
    def one(name: str) -> Tried:
        found = watched(name, seconds, place)
        done(name, found)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def page() -> None:
    """Puts what is stored into docs/reliability.md."""
    stored = read_json(RESULTS)["parsers"] if RESULTS.is_file() else {}
    guided = read_json(GUIDED)["details"] if GUIDED.is_file() else {}
    rows, known = [], {**NAMES, **WITH_PYARROW}
    for name in (name for name in known if name in stored or name in guided):
        numbers = [""] * 8
        if told := stored.get(name):
            numbers = [f"{told[key]:,.0f}" for key in ("seconds", "tried", "read")]
            numbers += [str(len(told["sentences"])), str(told["ways"]), f"{told['slowest']:.2f}"]
            numbers += [str(len(told["faults"])), told["commit"]]
        more = [f"{guided[name][key]:,.0f}" if name in guided else "" for key in ("seconds", "tried", "edges")]
        rows.append([f"`{name}`", known[name], *numbers, *more])
    heads = [
        *("", "what is read", "seconds", "files", "read", "sentences", "ways refused", "slowest, s", "faults"),
        *("commit", "guided, s", "guided, files", "edges"),
    ]
    write_block(PAGE, "fuzz", markdown_table(heads, rows))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Parsers under changed bytes.")
    parser.add_argument("--seconds", type=float, default=IN_A_ROW)
    parser.add_argument("--parsers", default=",".join(NAMES))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.read:
        limit_memory()
        return read_again(options.parsers, options.read)
    if options.page:
        page()
        return 0
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    failed: list[str] = []
    here = environment({})

    def done(name: str, found: Tried) -> None:
        print(f"{name}: {found.seconds:.0f} s, {found.tried} files, {found.read} read", flush=True)
        for fault, told in found.faults.items():
            print(f"    {fault}: {told}", flush=True)
        failed.extend(found.faults)
        stored = read_json(RESULTS) if RESULTS.is_file() else {"parsers": {}}
        stored["parsers"][name] = {**found.to_json(), "commit": here["commit"], "time": here["time"]}
        write_json(RESULTS, {**stored, "environment": here})

    _all(options.parsers.split(","), options.seconds, place, options.jobs, done)
    page()
    print(place)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
