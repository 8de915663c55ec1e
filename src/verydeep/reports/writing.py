"""Reports written anew from what folders hold: of one run or SVM, or several side by side; `write_report`, the verb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import VerydeepError
from ..files import check_place
from ..runs import BEST, CLASSIFIER, LAST
from .compared import run_row, write_comparison
from .compared_svms import write_svm_comparison
from .recorded import read_run
from .runs import write_run_report
from .svms import svm_told, write_svm_report

SEVERAL = "comparison.html"


def write_report(folders: str | Path | Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Writes the report of a run, a probe or SVMs; of several, one page that shows them side by side.

    Args:
        folders: one or more.
        out: the page; by default ``report.html`` in the folder, and of several ``comparison.html`` here.

    Returns:
        ``page``, and of a run its row, of SVMs what ``result.json`` holds; of several ``runs``, ``pairs`` and
        ``differing``, or ``svms``.

    Raises:
        VerydeepError: a folder is none of these, is given twice, or is of other data or another kind than the first;
            the page cannot be written, or something else is in its place.
    """
    places = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if not places:
        raise VerydeepError("there is nothing to report on: give the folder of a run (runs/…).")
    page = None if out is None else Path(out)
    if page is not None:
        if page.is_dir():
            raise VerydeepError(f"{page} is a folder: give --out a file, such as {page / SEVERAL}.")
        check_place(page.absolute().parent)
    return _one(places[0], page) if len(places) == 1 else _several(places, page or Path(SEVERAL))


def _one(folder: Path, page: Path | None) -> dict[str, Any]:
    if _of_svms(folder):
        told, made = write_svm_report(folder, page)
        return {"page": str(made), **told}
    run, made = write_run_report(folder, page)
    return {"page": str(made), **run_row(run)}


def _several(folders: list[Path], page: Path) -> dict[str, Any]:
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise VerydeepError(f"{folder} is given twice: a run is compared with others.")
        seen.add(folder.resolve())
    kinds = [_of_svms(folder) for folder in folders]
    if all(kinds):
        return {"page": str(page), **write_svm_comparison(folders, [svm_told(folder) for folder in folders], page)}
    runs = [read_run(folder) for folder, svms in zip(folders, kinds, strict=True) if not svms]
    if any(kinds):
        raise VerydeepError(
            f"{folders[kinds.index(True)]} holds SVMs and {runs[0].folder} a run: compare folders of one kind."
        )
    return {"page": str(page), **write_comparison(runs, page)}


def _of_svms(folder: Path) -> bool:
    """Whether a folder is one of `verydeep svm` or `probe`."""
    return (folder / CLASSIFIER).is_file() and not any((folder / name).is_file() for name in (BEST, LAST))
