"""Do the tests notice? Mutation testing of the functions that decide figures, with the operators of cosmic-ray.

    python tests/external/mutation.py     # needs the extra `suites`: make suites

Of the places of `MODULES` that an operator can change, `MUTANTS` are drawn by `SEED`, from each module as many as its
share of the places; an operator is drawn for each. Annotations are left out: nothing evaluates them. A changed
operator stays of its kind (`KINDS`), since a shift of a float is noticed by any test.

A mutant is killed if a test of its module's unit tests fails, or takes far more time than with the module as it is. The
tests run in a fork of this process, which has imported the other libraries, on a copy of the sources.

A survivor gets a test, or is listed in ``mutants.json`` with a reason: ``equivalent`` ones, which compute the same, are
not counted; ``left`` ones count as survivors. The killed ones are kept in ``runs/mutants_killed.json`` and not run
again while their module is the same; remove the file after changes of tests that may notice less.
"""

from __future__ import annotations

import ast
import difflib
import gc
import hashlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from hypothesis import Phase, settings
from suites import HERE, TOP, SuiteResult, store, versions_of

from verydeep.core.files import read_json, write_json

# What is changed, below src/verydeep, and the tests that have to notice, below tests.
MODULES = {
    "evaluation/metrics": "evaluation/test_metrics.py",
    "evaluation/protocols": "evaluation/test_protocols.py",
    "data/boxes": "data/test_boxes.py",
    "localisation/merge": "localisation/test_merge.py",
    "training/optim": "training/test_optim.py",
    "transfer/splits": "transfer/test_splits.py",
    "transfer/solver": "transfer/test_svm.py",
    "transfer/svm": "transfer/test_svm.py",
}
MUTANTS, SEED, LEAST_KILLED = 600, 0, 90.0  # the last in percent of those that are not equivalent
KINDS = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"In", "NotIn"},
)
REASONS, KILLED = HERE / "mutants.json", TOP / "runs" / "mutants_killed.json"
IMPORTED = ("torch", "torch._dynamo", "numpy", "sklearn.svm", "sklearn.metrics", "PIL.Image", "safetensors.torch")
PYTEST = (
    *("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", f"--rootdir={TOP}"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of hypothesis, which is imported before
)
GIGABYTES = 6  # of memory, for a mutant that fills it


@dataclass(frozen=True)
class Mutant:
    """The ``occurrence``-th place of a module, counted from 0, that an operator can change."""

    module: str
    operator: str
    occurrence: int
    line: int

    @property
    def path(self) -> str:
        """Its module's file, from the top of the project."""
        return f"src/verydeep/{self.module}.py"

    @property
    def key(self) -> str:
        """What it is known by as long as its module is the same."""
        return f"{hashlib.sha256(original(self.module).encode()).hexdigest()[:12]} {self.operator} {self.occurrence}"

    def source(self) -> str:
        """Its module's source with the change."""
        changed: str = mutate_code(original(self.module), get_operator(self.operator)(), self.occurrence)
        return changed

    def change(self) -> tuple[str, str]:
        """The changed lines, before and after."""
        lines = list(difflib.ndiff(original(self.module).splitlines(), self.source().splitlines()))
        before, after = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in ("- ", "+ "))
        return "\n".join(before), "\n".join(after)


def original(module: str) -> str:
    """A module's source."""
    return (TOP / "src" / "verydeep" / f"{module}.py").read_text(encoding="utf8")


def places(module: str) -> dict[tuple[int, int], list[Mutant]]:
    """The mutants at each place (line and column) that can be changed, in order."""
    found: dict[tuple[int, int], list[Mutant]] = defaultdict(list)
    source = original(module)
    nodes, skipped = list(ast_nodes(get_ast(source))), list(_annotations(source))
    for name in filter(_wanted, operator_names()):
        operator = get_operator(name)()
        changed = [(node, start) for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (node, start) in enumerate(changed):
            unpacks = node.parent is not None and node.parent.type == "dictorsetmaker" and node.get_code(False) == "**"
            if not unpacks and not any(first <= start < last for first, last in skipped):
                found[start].append(Mutant(module, name, occurrence, start[0]))
    return dict(sorted(found.items()))


def _wanted(name: str) -> bool:
    """Whether an operator needs no arguments, and changes a sign into one of its kind."""
    _, *pair = name.partition("/")[2].split("_")
    return not get_operator(name).arguments() and (
        not pair or pair[0] == "Delete" or any(set(pair) <= kind for kind in KINDS)
    )


def _annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end."""
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def draw() -> list[Mutant]:
    """At most `MUTANTS`, one a place, in an order whose every beginning is spread over the modules as the whole."""
    by_module = {module: list(places(module).values()) for module in MODULES}
    total = sum(map(len, by_module.values()))
    ranked = []
    for module, found in by_module.items():
        rng = random.Random(f"{SEED} {module}")
        drawn = [rng.choice(mutants) for mutants in found]
        rng.shuffle(drawn)
        count = min(len(drawn), MUTANTS * len(drawn) // total)
        ranked += [(rank / count, mutant) for rank, mutant in enumerate(drawn[:count])]
    return [mutant for _, mutant in sorted(ranked, key=lambda row: row[0])]


def passes(module: str, source: str, tree: Path, seconds: float) -> bool:
    """Whether a module's tests pass with this source, in at most these seconds of CPU time.

    Args:
        tree: the copy of ``src``, first of `sys.path`; no bytecode of it is written.
    """
    path = tree / "verydeep" / f"{module}.py"
    path.write_text(source, encoding="utf8")
    process = os.fork()
    if not process:
        try:
            os._exit(_run_tests(TOP / "tests" / MODULES[module], tree, round(seconds)))
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    path.write_text(original(module), encoding="utf8")
    return status == 0


def _run_tests(tests: Path, tree: Path, seconds: int) -> int:
    """Runs tests in this process, which a limit may end."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES << 30,) * 2)
    signal.alarm(200 * seconds)  # for a mutant that waits; of a busy machine the process may get a hundredth
    output = os.open(tree.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    for name in [name for name in sys.modules if name.split(".")[0] == "verydeep"]:
        del sys.modules[name]
    return int(pytest.main([*PYTEST, f"--basetemp={tree.parent / 'pytest'}", str(tests)]))


def prepare() -> None:
    """Imports what tests import, for all forks."""
    for name in IMPORTED:
        importlib.import_module(name)
    # Not a failing example's simplest form: that it fails is enough.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
    sys.dont_write_bytecode = True
    gc.freeze()


def survivors(mutants: list[Mutant], tree: Path) -> list[Mutant]:
    """The mutants that no test notices; those that one does are kept in a file."""
    killed: list[str] = read_json(KILLED)["killed"] if KILLED.exists() else []
    left, limits = [], dict[str, float]()
    for number, mutant in enumerate(mutants):
        if mutant.key in killed:
            continue
        module = mutant.module
        if module not in limits:
            limits[module] = 10 + 4 * _seconds(module, tree)
        if passes(module, mutant.source(), tree, limits[module]):
            left.append(mutant)
            print(f"{number}: {mutant.path}:{mutant.line}:", " -> ".join(mutant.change()), flush=True)
        else:
            killed.append(mutant.key)
            write_json(KILLED, {"killed": killed})
    return left


def _seconds(module: str, tree: Path) -> float:
    """CPU seconds of a module's tests."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not passes(module, original(module), tree, 300):
        output = (tree.parent / "output.txt").read_text(encoding="utf8", errors="replace")
        raise SystemExit(f"{output[-2000:]}\n{MODULES[module]} fails, or takes 300 s, before anything is changed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime


def verdict(mutant: Mutant, reasons: list[dict[str, str]]) -> dict[str, Any]:
    """A survivor as it is stored, with its reason where there is one."""
    before, after = mutant.change()
    known = {"module": mutant.module, "before": before, "after": after}
    reason = next((row for row in reasons if known.items() <= row.items()), {"verdict": "unread"})
    return {**known, "line": mutant.line, "operator": mutant.operator, **reason}


def summary(mutants: list[Mutant], rows: list[dict[str, Any]]) -> SuiteResult:
    """What is stored, from all mutants and the survivors."""
    verdicts = Counter(row["verdict"] for row in rows)
    counted = len(mutants) - verdicts["equivalent"]
    killed = len(mutants) - len(rows)
    by_module = {
        module: {
            "mutants": sum(mutant.module == module for mutant in mutants),
            **Counter(row["verdict"] for row in rows if row["module"] == module),
        }
        for module in MODULES
    }
    return SuiteResult(
        "changed lines of what decides figures, against its unit tests",
        versions_of("cosmic-ray"),
        len(mutants),
        [f"{row['module']}:{row['line']}: {row['after']}" for row in rows if row["verdict"] == "unread"],
        {"killed": killed, "equivalent": verdicts["equivalent"], "killed of the others, %": 100 * killed / counted},
        {"modules": by_module, "survivors": rows},
    )


def main() -> int:
    """Runs the mutants that are not known to be killed; 1 where too few are, or a survivor has no reason."""
    mutants = draw()
    KILLED.parent.mkdir(exist_ok=True)
    prepare()
    with tempfile.TemporaryDirectory() as place:
        tree = Path(shutil.copytree(TOP / "src", Path(place) / "src", ignore=shutil.ignore_patterns("__pycache__")))
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
        reasons = read_json(REASONS)["mutants"]
        result = summary(mutants, [verdict(mutant, reasons) for mutant in survivors(mutants, tree)])
    store("mutation", result)
    return int(bool(result.faults) or result.figures["killed of the others, %"] < LEAST_KILLED)


if __name__ == "__main__":
    sys.exit(main())
