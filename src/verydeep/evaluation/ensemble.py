"""Sect. 4.4: ensembles of nets or protocols, by averaging stored posteriors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import checkpoint_sha256
from ..checkpoints.run_dir import run_of_evaluation
from ..core.errors import VerydeepError
from ..core.files import check_place, read_json, write_json
from .metrics import TOPS, mcnemar, summarise, top_errors, wrong_images
from .scores import FILE_NAME, Scores, fusion_shares, load_scores, mean_scores, save_scores
from .submission import write_classification


def fuse(
    files: Iterable[str | Path] | str | Path,
    weights: Iterable[float] | None = None,
    out: str | Path | None = None,
    server_file: str | Path | None = None,
    devkit: str | Path | None = None,
) -> dict[str, Any]:
    """Averages stored posteriors; returns the errors of the fusion and of its parts, and a paired test of any two.

    Args:
        files: scores files, or the directories that `evaluate` wrote.
        weights: one per file, equal by default; only their ratios matter.
        out: directory for ``scores.npz`` and ``result.json`` of the fusion; by default nothing is written.
        server_file: a submission to write for ILSVRC's server; needs ``devkit``, the directory of ILSVRC or its devkit.

    Returns:
        ``parts`` and ``fusion`` with errors in percent and 95 % intervals; ``pairs`` with McNemar's test.

    Raises:
        VerydeepError: a file is missing, broken or of an earlier checkpoint of its run; the files differ in images,
            set or classes; no files are given.
    """
    if (server_file is None) != (devkit is None):
        raise VerydeepError(
            "--server-file and --devkit must be used together: the devkit has the ILSVRC2012_ID of each class."
        )
    files = [files] if isinstance(files, str | Path) else list(files)
    names = [str(file) for file in files]
    _check_places(files, out, server_file, devkit)
    several = [load_current(Path(file)) for file in files]
    fused = mean_scores(several, names, weights)
    shares = fusion_shares(len(several), weights)
    parts = [
        {"file": name, "run": scores.run, "protocol": scores.protocol, "weight": share, **top_errors(scores)}
        for name, scores, share in zip(names, several, shares, strict=True)
    ]
    summary = {"parts": parts, "fusion": summarise(fused), "pairs": _pairs(several, fused)}
    if out is not None:
        save_scores(Path(out) / FILE_NAME, fused)
        write_json(Path(out) / "result.json", {**summary, "folder": str(out)})
    if server_file is not None and devkit is not None:
        write_classification(Path(server_file), fused, Path(devkit))
    return {**summary, "folder": None if out is None else str(out)}


def load_current(path: Path) -> Scores:
    """Loads a scores file; one in a run directory must be of the run's current checkpoint.

    Raises:
        VerydeepError: as `load_scores`, or the run's checkpoint has changed.
    """
    scores = load_scores(path)
    checkpoint = run_of_evaluation(path)
    if checkpoint is not None and checkpoint_sha256(checkpoint) != scores.checkpoint:
        raise VerydeepError(
            f"{path} was computed with a different checkpoint than {checkpoint} (their hashes differ): "
            "evaluate it again with `verydeep evaluate`."
        )
    return scores


def _check_places(
    files: Sequence[str | Path], out: str | Path | None, server_file: str | Path | None, devkit: str | Path | None
) -> None:
    """Raises VerydeepError where an output would overwrite an input, a run or another evaluation."""
    inputs = {(Path(file) / FILE_NAME if Path(file).is_dir() else Path(file)).resolve() for file in files}
    if out is not None:
        folder = Path(out)
        check_place(folder)
        if (folder / FILE_NAME).resolve() in inputs:
            raise VerydeepError(f"{out} contains one of the files to fuse: use another --out.")
        before = folder / "result.json"
        if before.exists() and "parts" not in read_json(before):
            raise VerydeepError(f"{out} contains the result of a run or an evaluation: use another --out.")
    if server_file is not None and devkit is not None:
        place = Path(server_file).resolve()
        check_place(place.parent)
        if place in inputs or (place.exists() and Path(devkit).resolve() in place.parents):
            raise VerydeepError(f"{server_file} is an input, or among the devkit's files: use another --server-file.")


def _pairs(parts: list[Scores], fused: Scores) -> list[dict[str, Any]]:
    """McNemar's test of every pair; files are numbered from 1, and 0 is the fusion if there are several."""
    if not fused.labelled:
        return []
    numbered = list(enumerate(parts, start=1)) + ([(0, fused)] if len(parts) > 1 else [])
    wrong = [(number, [wrong_images(scores, k) for _, k in TOPS]) for number, scores in numbered]
    rows = []
    for (number, first), (other, second) in itertools.combinations(wrong, 2):
        for (name, _), in_first, in_second in zip(TOPS, first, second, strict=True):
            if in_first is not None and in_second is not None:
                test = mcnemar(in_first, in_second, fused.subjects)
                rows.append({"first": number, "second": other, "error": name, **test})
    return rows
