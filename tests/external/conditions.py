"""The quick tests and the demo under other conditions than a developer's: order, place, time, language, user, limits.

    python tests/external/conditions.py                       # all of CONDITIONS, one after the other: an hour
    python tests/external/conditions.py scarce busy           # these
    python tests/external/conditions.py plain PYTHON          # an interpreter with other versions

Each runs in a clone of the last commit. Conditions need root, to become another user or to limit memory,
pytest-randomly (the extra `suites`), and Debian's packages `locales` and `iproute2`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suites import RESULTS, TOP, SuiteResult, store

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json
from verydeep.deploy.benchmark.busy import busy

NOBODY, GIGABYTES, CORES, BUSY = 65534, 2, 1.0, 4
CGROUPS = Path("/sys/fs/cgroup")
TESTS = ["-m", "pytest", "--dist", "loadfile", "-m", "not slow", "-r", "fE", "--tb", "short"]
DEMO = ["-m", "verydeep", "demo", "--out", "demo"]
VERSIONS = "import json, sys, torch; print(json.dumps([sys.version.split()[0], torch.__version__]))"


@dataclass(frozen=True)
class Condition:
    """What is unusual, and how it is brought about.

    Attributes:
        what: a sentence's part, for the table.
        folder: the name of the clone.
        options: of pytest.
        workers: of pytest-xdist, each of a gigabyte.
        variables: of the environment.
        user: whether a user without rights runs the tests, whose home cannot be written.
        before: words that start the command.
        limited: whether the processes share so much memory and time of one core.
        load: the number of busy processes beside it.
    """

    what: str
    folder: str = "checkout"
    options: tuple[str, ...] = ("-p", "no:randomly")
    workers: int = 2
    variables: dict[str, str] = field(default_factory=dict)
    user: bool = False
    before: tuple[str, ...] = ()
    limited: bool = False
    load: int = 0


CONDITIONS = {
    "strange": Condition(
        "random order, a user without rights, umask 077, a home that cannot be written, a path with spaces, quotes and "
        "non-ASCII letters, Turkish, and the time zone 14 hours east",
        folder="Bob's photos – größer, 写真",
        options=("-p", "randomly", "-p", "no:cacheprovider"),
        variables={"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "<+14>-14"},
        user=True,
        before=("sh", "-c", 'umask 077; exec "$@"', "sh"),
    ),
    "scarce": Condition(
        f"no network, {GIGABYTES} GB of memory and the time of one core for all processes together, LANG=C",
        variables={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
        before=("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"),
        workers=1,
        limited=True,
    ),
    "busy": Condition(f"{BUSY} busy processes on two cores", load=BUSY),
    "plain": Condition("other versions"),
}


@contextmanager
def limits() -> Iterator[tuple[str, ...]]:
    """Words that start a command whose processes share GIGABYTES and CORES; both forms of control groups."""
    one = (CGROUPS / "cgroup.controllers").exists()
    name = f"verydeep-tests-{os.getpid()}"
    groups = [CGROUPS / name] if one else [CGROUPS / kind / name for kind in ("memory", "cpu")]
    for group in groups:
        group.mkdir()
    period = 100_000
    if one:
        (groups[0] / "memory.max").write_text(str(GIGABYTES * 2**30))
        (groups[0] / "cpu.max").write_text(f"{int(CORES * period)} {period}")
    else:
        (groups[0] / "memory.limit_in_bytes").write_text(str(GIGABYTES * 2**30))
        (groups[1] / "cpu.cfs_quota_us").write_text(str(int(CORES * period)))
    enter = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in groups)
    try:
        yield ("sh", "-c", f'{enter}; exec "$@"', "sh")
    finally:
        for group in groups:
            group.rmdir()


def run(condition: Condition, python: str, place: Path) -> dict[str, Any]:
    """What the tests and the demo told, and how long they took."""
    clone, home = place / condition.folder, place / "home"
    subprocess.run(["git", "clone", "--quiet", f"file://{TOP}", str(clone)], check=True)
    home.mkdir()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home), **condition.variables}
    variables |= {"PYTHONPATH": str(clone / "src"), "TMPDIR": str(place / "tmp"), "LOCPATH": str(place / "locales")}
    (place / "tmp").mkdir(mode=0o777)
    if "LC_ALL" in condition.variables:
        _make_locale(condition.variables["LC_ALL"], place / "locales")
    begin = list(condition.before)
    if condition.user:
        place.chmod(0o755)
        home.chmod(0o555)
        (place / "tmp").chmod(0o777)
        subprocess.run(["chown", "--recursive", f"{NOBODY}:{NOBODY}", str(clone)], check=True)
        begin += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with busy(condition.load), limits() if condition.limited else nullcontext(()) as enter:
        began = time.monotonic()
        told = [
            subprocess.run(
                [*enter, *begin, python, *words], cwd=clone, env=variables, capture_output=True, text=True, check=False
            )
            for words in ([*TESTS, "--numprocesses", str(condition.workers), *condition.options], DEMO)
        ]
    return _found(told[0], told[1]) | {"what": condition.what, "minutes": round((time.monotonic() - began) / 60, 1)}


def _make_locale(name: str, folder: Path) -> None:
    """Compiles a locale into a folder of our own; C is there already."""
    folder.mkdir()
    language, _, charset = name.partition(".")
    if charset:
        subprocess.run(["localedef", "-i", language, "-f", charset, str(folder / name)], check=True)


def _found(tests: subprocess.CompletedProcess[str], demo: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """How many tests passed, and a sentence for each failure."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", tests.stdout)}
    faults = re.findall(r"^(?:FAILED|ERROR) (.*)$", tests.stdout, re.MULTILINE)
    if tests.returncode and not faults:
        faults = [f"pytest ended with {tests.returncode}: {(tests.stdout + tests.stderr)[-2000:]}"]
    if demo.returncode:
        faults.append(f"the demo ended with {demo.returncode}: {demo.stderr[-2000:]}")
    return {**counts, "faults": faults}


def main(words: list[str]) -> int:
    """Runs conditions and stores each as it ends; 1 where something failed."""
    python = next((word for word in words if word not in CONDITIONS), sys.executable)
    versions = json.loads(subprocess.run([python, "-c", VERSIONS], capture_output=True, check=True).stdout)
    stored = RESULTS / "conditions.json"
    found: dict[str, Any] = read_json(stored)["details"] if stored.exists() else {}
    for name in [word for word in words if word in CONDITIONS] or list(CONDITIONS):
        with tempfile.TemporaryDirectory(prefix="conditions-") as folder:
            result = run(CONDITIONS[name], python, Path(folder))
        where = environment({})
        key = " ".join([name, *versions]) if name == "plain" else name
        found[key] = {
            **result,
            "python": versions[0],
            "torch": versions[1],
            **{k: where[k] for k in ("time", "commit")},
        }
        store("conditions", summary(found))
    return int(any(result["faults"] for result in found.values()))


def summary(found: dict[str, Any]) -> SuiteResult:
    """The row of all conditions run so far."""
    faults = [f"{name}: {fault.splitlines()[0]}" for name, result in found.items() for fault in result["faults"]]
    figures = {f"passed, {name}": float(result["passed"]) for name, result in found.items()}
    cases = sum(result["passed"] + result.get("failed", 0) for result in found.values())
    versions = {"Python": _listed(found, "python"), "torch": _listed(found, "torch")}
    suite = "the quick tests and the demo, with " + "; ".join(
        dict.fromkeys(result["what"] for result in found.values())
    )
    return SuiteResult(suite, versions, cases, faults, figures, found)


def _listed(found: dict[str, Any], key: str) -> str:
    return ", ".join(sorted({result[key] for result in found.values()}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
