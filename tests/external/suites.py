"""Suites that others wrote: what they found here, and the table of docs/reliability.md made from it.

    python tests/external/suites.py     # the table, from what is stored

A script that runs a suite calls `store`, which writes ``results/NAME.json``: the date, commit, versions, the number of
cases, and faults that are still there. What a suite has found over time is in ``findings/NAME.json``, where each
fault has the test that holds its kind since (``fixed_by``), or the reason why it stays (``left``):

    {"found": [{"fault": "one sentence without its full stop", "fixed_by": "tests/data/test_image_io.py::test_name"},
               {"fault": "one more", "left": "the reason"}]}

A new suite adds its own two files; nothing else names them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

HERE, TOP = Path(__file__).parent, Path(__file__).resolve().parents[2]
RESULTS, FINDINGS, PAGE = HERE / "results", HERE / "findings", TOP / "docs" / "reliability.md"
HEADS = ("suite", "versions", "cases", "found", "fixed", "left, and why", "date, commit")


@dataclass
class SuiteResult:
    """One run of a suite.

    Attributes:
        suite: what was run against what, a few words.
        versions: of the suite's packages, or commits of its repositories.
        cases: how many inputs were tried.
        faults: a sentence for each case that did not end as it has to.
        figures: measurements worth showing, such as the slowest case in seconds.
        details: verdicts by case, for the stored file alone.
    """

    suite: str
    versions: dict[str, str]
    cases: int
    faults: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of installed packages."""
    return {name: version(name) for name in packages}


def store(name: str, result: SuiteResult) -> None:
    """Writes a suite's result, then the table; ``name`` is that of its files."""
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", {**asdict(result), "environment": environment({})})
    write_page()


def findings(name: str) -> list[dict[str, str]]:
    """What a suite has found over time."""
    path = FINDINGS / f"{name}.json"
    found: list[dict[str, str]] = read_json(path)["found"] if path.is_file() else []
    return found


def write_page() -> None:
    """Puts the table, and what was found, into docs/reliability.md."""
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    table = markdown_table(HEADS, [_row(name) for name in names])
    found = [_line(name, finding) for name in names for finding in findings(name) if "fixed_by" in finding]
    write_block(PAGE, "suites", "\n".join([table, *(["", "Found and fixed:", "", *found] if found else [])]))


def _row(name: str) -> list[object]:
    stored = read_json(RESULTS / f"{name}.json")
    found = findings(name)
    left = [f"{finding['fault']}: {finding['left']}" for finding in found if "left" in finding]
    left += [f"not fixed: {fault}" for fault in stored["faults"]]
    versions = ", ".join(f"{package} {number}" for package, number in stored["versions"].items())
    figures = "".join(f"; {what}: {value:,.4g}" for what, value in stored["figures"].items())
    when = f"{stored['environment']['time'][:10]}, {stored['environment']['commit']}"
    fixed = sum("fixed_by" in finding for finding in found)
    cases = f"{stored['cases']:,}{figures}"
    return [stored["suite"], versions, cases, len(found) + len(stored["faults"]), fixed, "; ".join(left) or "-", when]


def _line(name: str, finding: dict[str, str]) -> str:
    return f"- {name}: {finding['fault']} (`{finding['fixed_by'].rpartition('::')[2]}`)"


if __name__ == "__main__":
    write_page()
