"""Reports of directories: of one run or SVMs, or of several side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST
from ..core.errors import VerydeepError
from ..core.files import check_place
from .comparison import run_row, why_not_comparable, write_comparison, write_svm_comparison
from .run_reader import RunRecord, read_run
from .run_report import write_run_report
from .svm_report import SvmRecord, read_svms, write_svm_report

SEVERAL = "comparison.html"


def write_report(folders: str | Path | Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Writes the report of a run, a probe or SVMs; of several, one page that shows them side by side.

    Args:
        folders: one or more directories.
        out: the page; by default ``report.html`` in the directory, and of several ``comparison.html`` here.

    Returns:
        ``page``, with the row of a run, or the ``result.json`` of SVMs; for several directories ``runs``, ``pairs`` and
        ``differing``, or ``svms``; and ``faults``, why directories are left out of a comparison.

    Raises:
        VerydeepError: the directory, or every one of several, is none of these; nothing is left to compare; the page
            cannot be written, or would overwrite another file.
    """
    places = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if not places:
        raise VerydeepError("there is nothing to report on: pass the directory of a run (runs/…).")
    page = None if out is None else Path(out)
    if page is not None:
        if page.is_dir():
            raise VerydeepError(f"{page} is a directory: pass a file as --out, such as {page / SEVERAL}.")
        check_place(page.absolute().parent)
    return _one(places[0], page) if len(places) == 1 else _several(places, page or Path(SEVERAL))


def _one(folder: Path, page: Path | None) -> dict[str, Any]:
    if _of_svms(folder):
        svms, written = write_svm_report(folder, page)
        return {"page": str(written), **svms.result}
    run, written = write_run_report(folder, page)
    return {"page": str(written), **run_row(run)}


def _several(folders: list[Path], page: Path) -> dict[str, Any]:
    """Compares directories with the first that can be read; ``faults`` are the messages of those left out."""
    records: list[RunRecord | SvmRecord] = []
    unread: list[str] = []
    differ: list[str] = []
    seen: set[str] = set()
    for folder in folders:
        place = os.path.realpath(folder)
        if place in seen:
            differ.append(f"{folder} is listed twice: compare it with another directory.")
            continue
        seen.add(place)
        try:
            record = read_svms(folder) if _of_svms(folder) else read_run(folder)
        except VerydeepError as fault:
            unread.append(str(fault))
        except OSError as fault:  # a name that is too long, say
            unread.append(f"cannot read {folder}: {fault.strerror or fault}.")
        else:
            reason = why_not_comparable(records[0], record) if records else None
            differ.append(reason) if reason else records.append(record)
    if not records or (differ and len(records) == 1):
        raise VerydeepError([*differ, *unread][0])
    svms = [record for record in records if isinstance(record, SvmRecord)]
    runs = [record for record in records if isinstance(record, RunRecord)]
    compared = write_svm_comparison(svms, page) if svms else write_comparison(runs, page)
    return {"page": str(page), **compared, "faults": [*unread, *differ]}


def _of_svms(folder: Path) -> bool:
    """Whether a directory is of `verydeep svm` or `probe`."""
    return (folder / CLASSIFIER).is_file() and not any((folder / name).is_file() for name in (BEST, LAST))
