"""The torture: faults put into real commands, row by row; what they leave is compared to the bit.

    python tests/fault_injection/run.py             # rows that have no result of this commit yet, then the page
    python tests/fault_injection/run.py R1 R4       # these rows, anew
    python tests/fault_injection/run.py --page      # docs/reliability.md from what is stored

`make test` has a short form of each (tests/fault_injection/test_fault_injection.py).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corrupt_checkpoints import damages
from crash_resume import kills
from dataset_layouts import CASES as FOLDERS
from dataset_layouts import folders
from disk_full import disks
from fuzzing import fuzzed
from harness import Row
from long_runs import long_runs
from malformed_images import photos
from malicious_files import CASES as HOSTILE
from malicious_files import hostile
from nonfinite_numbers import TRIALS as LOST_NUMBERS
from nonfinite_numbers import lost_numbers
from peer_failure import peers
from published_cases import tested
from sharding import counting
from signals import signals_and_the_save_of_d
from targets import NAMES
from two_machines import machines
from world_size_change import regrouped

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.terminal import Terminal
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[2]
RESULTS, PAGE = Path(__file__).with_name("results"), TOP / "docs" / "reliability.md"
ROWS = (
    Row(
        "R1",
        "SIGKILL at random moments of training and saving, one process and two",
        "no checkpoint lost; after going on, weights, momentum and log are the unbroken run's to the bit",
        200,
        kills,
    ),
    Row(
        "R2",
        "SIGINT, SIGTERM, SIGUSR1 in a step, a save, a test, while a command begins or works, to a process that reads",
        "saved at the step it was at, within 10 s; status 130, 143, 138; goes on to the unbroken run's end to the bit; "
        "no process and no temporary file left",
        40,
        signals_and_the_save_of_d,
    ),
    Row(
        "R3",
        "disk full, read-only, no folder, folder gone, temporary folder on another disk",
        "one sentence that names the path; the old checkpoint whole; nothing half-written",
        12,
        disks,
    ),
    Row(
        "R4",
        "checkpoints truncated, with a bit flipped, of another net, class count, rate or set of layers",
        "noticed and named; `--resume` goes on from the one before, to the unbroken run's end",
        230,
        damages,
    ),
    Row(
        "R5",
        "files made on purpose: pickles under every name, archives with members outside, links, bombs; names with "
        "codes of terminals, lines, tags",
        "no code run, nothing written outside, one sentence; no raw code in the terminal, no tag in a page",
        len(HOSTILE),
        hostile,
    ),
    Row(
        "R6",
        "odd photos, PngSuite, photos with bytes changed",
        "read or refused as wanted, within 5 s and 300 MB; no photo gets another's answer",
        705,
        photos,
    ),
    Row(
        "R7",
        "folders: empty, hidden, unreadable, stray files, links in circles, odd and long names, one class, one photo, "
        "photos in two sets, classes that training lacks",
        "one sentence that names the place, or counted and told; classes in the order of their names, twice the same",
        len(FOLDERS),
        folders,
    ),
    Row(
        "R8",
        "a process that reads raises, is killed, is silent; no shared memory",
        "the photo is named; no hang beyond the timeout; no process left",
        8,
        tested("test_workers.py"),
    ),
    Row(
        "R9",
        "NaN or infinity in a photo, the loss, its gradient, a weight, a file; a rate or momentum far too high",
        "stops at that step, named, with what to try; the last good checkpoint stays and can be gone on from",
        LOST_NUMBERS,
        lost_numbers,
    ),
    Row(
        "R10",
        "sets of 1 to 17 photos, batches of 1 to 5, by 1 to 4 processes: evaluation and features",
        "each photo is counted once; errors are the same whole numbers, figures those of one process within 1e-6",
        340,
        counting,
    ),
    Row(
        "R11",
        "a run goes on with another number of workers, or of processes at the same global batch",
        "workers: to the bit; processes: the same order, losses and weights in float64 within 1e-9",
        12,
        regrouped,
    ),
    Row(
        "R12",
        "one of two processes of a job dies (SIGKILL) or hangs (SIGSTOP), with torchrun's restarts and without",
        "the other ends within --peer-timeout, naming rank and cause; restarted, it is the unbroken run to the bit",
        8,
        peers,
    ),
    Row(
        "R13",
        "published cases of errors, average precision, overlap, response normalisation; faults of ILSVRC and Caltech",
        "every published figure met (one of them rounds, which the test works out); every fault mended or counted",
        1,
        tested(
            *("test_metrics.py", "test_voc.py", "test_boxes.py", "test_published_faults.py"),
            "test_vgg.py::test_lrn_meets_published_cases",
        ),
    ),
    Row(
        "R14",
        "two machines: the link is cut, 40 ms and 1 % loss, silence for half of --peer-timeout, a third one joins",
        "cut: both sides end within --peer-timeout and say why, and go on by --resume; always the run of one machine "
        "to the bit",
        4,
        machines,
    ),
    Row(
        "R15",
        "45 minutes of a server with mixed load, of a training, and of one whose reader is killed every minute; a "
        "training killed 100 times in a row",
        "memory and open files stay what they were, photos keep their responses, broken trainings have the unbroken "
        "one's log or end to the bit",
        100,
        long_runs,
    ),
    Row(
        "F",
        "files from strangers with changed bytes, texts, lengths and structure, for a while a parser (table below)",
        "read, or refused with a sentence, within 5 s and 4 GB; the process lives on",
        len(NAMES),
        fuzzed,
    ),
)


def run(chosen: list[str]) -> int:
    """Runs rows and stores what they found; 1 where one failed."""
    failed = 0
    commit = environment({})["commit"]
    for row in ROWS:
        stored = RESULTS / f"{row.name}.json"
        if row.name not in chosen if chosen else _is_done(stored, commit):
            continue
        place, began = Path(tempfile.mkdtemp(prefix=f"torture-{row.name}-")), time.monotonic()
        with Terminal().track(f"{row.name}: {row.fault}", row.trials) as advance:
            found = row.work(place, row.trials, lambda advance=advance: advance(1, ""))  # type: ignore[misc]
        told = {**asdict(found), "seconds": round(time.monotonic() - began), "environment": environment({})}
        write_json(stored, {"row": row.name, **told})
        failed += bool(found.faults)
        if not found.faults:
            shutil.rmtree(place)
    page()
    return int(failed > 0)


def _is_done(stored: Path, commit: str | None) -> bool:
    return stored.is_file() and read_json(stored)["environment"]["commit"] == commit


def page() -> None:
    """Puts the stored results into docs/reliability.md."""
    rows = []
    for row in ROWS:
        stored = RESULTS / f"{row.name}.json"
        if not stored.is_file():
            rows.append([row.name, row.fault, row.passed, "not run", "", ""])
            continue
        told: dict[str, Any] = read_json(stored)
        good = told["trials"] - min(told["trials"], len(told["faults"]))
        more = ", ".join(f"{name} {value:.3g}" for name, value in told["figures"].items())
        when = f"{told['environment']['time'][:10]}, {told['environment']['commit']}"
        rows.append([row.name, row.fault, row.passed, f"{good} of {told['trials']}", more, when])
    heads = ["", "fault", "what has to happen", "as it has to", "figures", "when"]
    write_block(PAGE, "torture", markdown_table(heads, rows))


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        page()
    else:
        sys.exit(run(sys.argv[1:]))
