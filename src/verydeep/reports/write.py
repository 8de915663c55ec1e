"""Reports written anew from what folders hold: of one run or SVM, or several side by side; `write_report`, the verb."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST
from ..core.errors import VerydeepError
from ..core.files import check_place
from .compared_svms import why_not_comparable_svms, write_svm_comparison
from .comparison import run_row, why_not_comparable, write_comparison
from .run_reader import read_run
from .run_report import write_run_report
from .svm_report import svm_told, write_svm_report

SEVERAL = "comparison.html"


def write_report(folders: str | Path | Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Writes the report of a run, a probe or SVMs; of several, one page that shows them side by side.

    Args:
        folders: one or more.
        out: the page; by default ``report.html`` in the folder, and of several ``comparison.html`` here.

    Returns:
        ``page``, and of a run its row, of SVMs what ``result.json`` holds; of several ``runs``, ``pairs`` and
        ``differing``, or ``svms``; and ``faults``, the sentences of folders that are left out of a comparison.

    Raises:
        VerydeepError: the folder, or every one of several, is none of these; without those that are left out there is
            nothing to compare; the page cannot be written, or something else is in its place.
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
    """Compares the folders with the first that can be read; ``faults`` are the sentences of those left out."""
    read: list[tuple[Path, Any]] = []
    unread: list[str] = []
    odd: list[str] = []
    seen: set[str] = set()
    for folder in folders:
        place = os.path.realpath(folder)
        if place in seen:
            odd.append(f"{folder} is given twice: a run is compared with others.")
            continue
        seen.add(place)
        try:
            one = (folder, svm_told(folder) if _of_svms(folder) else read_run(folder))
        except VerydeepError as fault:
            unread.append(str(fault))
        except OSError as fault:  # a name that is too long, say
            unread.append(f"cannot read {folder}: {fault.strerror or fault}.")
        else:
            reason = _why_not_comparable(read[0], one) if read else None
            odd.append(reason) if reason else read.append(one)
    if not read or (odd and len(read) == 1):
        raise VerydeepError([*odd, *unread][0])
    places, told = [folder for folder, _ in read], [one for _, one in read]
    compared = write_svm_comparison(places, told, page) if isinstance(told[0], dict) else write_comparison(told, page)
    return {"page": str(page), **compared, "faults": [*unread, *odd]}


def _why_not_comparable(first: tuple[Path, Any], other: tuple[Path, Any]) -> str | None:
    """The sentence for folders of different kinds, protocols or photos; None for others."""
    svms = [isinstance(told, dict) for _, told in (first, other)]
    if svms[0] != svms[1]:
        of_svms, run = (first[0], other[0]) if svms[0] else (other[0], first[0])
        return f"{of_svms} holds SVMs and {run} a run: compare folders of one kind."
    return why_not_comparable_svms(first, other) if svms[0] else why_not_comparable(first[1], other[1])


def _of_svms(folder: Path) -> bool:
    """Whether a folder is one of `verydeep svm` or `probe`."""
    return (folder / CLASSIFIER).is_file() and not any((folder / name).is_file() for name in (BEST, LAST))
