"""Sect. 4 on a page: a run's tests, and of one of them the errors by class, what is confused, and the worst photos."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import VerydeepError
from ..data.image_io import Pixels
from ..evaluation.scores import FILE_NAME, load_scores
from .figures import mistakes
from .html import beside, folded, paragraph, part, picture, table, tiles
from .run_reader import EvalRecord, RunRecord

Read = Callable[[str], Pixels]
FIRST_CLASSES, MOST_MISTAKES = 12, 16
ERROR_NAMES = {
    "top1_error": "top-1 error",
    "gt_class_error": "GT-class error",
    "localisation_error": "localisation error",
}
BOX_ERRORS = {
    "gt_class_error": "the true class's box",
    "localisation_error": "localisation: no guess of the right class with a right box",
    "classification_error": "of it, no guess of the right class",
    "box_only_error": "of it, the right class and a wrong box",
    "one_guess_error": "localisation with one guess",
    "localisation_error_without_blacklisted": "localisation, as the devkit counts",
    "constant_box_error": "for comparison: the best constant box",
}


def tests_table(run: RunRecord) -> str:
    """All tests of a run, each with its error and interval; empty without any."""
    if not run.tests:
        return ""
    rows = []
    for test in run.tests:
        of = "" if test.checkpoint in run.current else "an earlier net"
        rate = test.told.get("images_per_second")
        more = "" if test.of_boxes else _percent(test.told, "top5_error")
        rows.append(
            (
                *(test.name, test.photos, f"{test.told['images']:,}", test.value, test.interval, more),
                *("" if rate is None else f"{rate:,.1f}", of),
            )
        )
    heads = ["test", "photos of", "photos", ERROR_NAMES[run.tests[0].error]]
    heads += ["95 % interval", "top-5 error", "photos/s", "of"]
    kept = [number for number in range(len(heads)) if number < 4 or any(row[number] for row in rows)]
    shown = [[row[number] for number in kept] for row in rows]
    return table("Tests of this run's net", [heads[number] for number in kept], shown)


def _percent(told: dict[str, Any], name: str) -> str:
    return "" if told.get(name) is None else f"{told[name]:.2f} %"


def test_blocks(test: EvalRecord, read: Read | None) -> list[str]:
    """One test in detail.

    Args:
        read: a photo's pixels by its id; None where the test's photos are gone, or nobody knows where they are.
    """
    return _box_blocks(test) if test.of_boxes else _class_blocks(test, read)


def _class_blocks(test: EvalRecord, read: Read | None) -> list[str]:
    rows = sorted(test.told.get("classes") or [], key=lambda row: (-row["top1_error"], str(row["class"])))
    if not rows:
        return [paragraph("The classes of these photos are not known, so there are no errors.")]
    by_class = [(row["class"], f"{row['images']:,}", f"{row['top1_error']:.1f} %") for row in rows]
    heads = ["class", "photos", "top-1 error"]
    first = table(f"{test.name}: the classes, the worst first", heads, by_class[:FIRST_CLASSES], share=2)
    if len(by_class) > FIRST_CLASSES:
        rest = table("The other classes", heads, by_class[FIRST_CLASSES:], share=2)
        first += folded(f"{len(by_class) - FIRST_CLASSES} more classes", rest)
    confused = [(pair["class"], pair["taken_for"], f"{pair['images']:,}") for pair in test.told.get("confused") or []]
    second = table(f"{test.name}: what is confused most", ["class", "taken for", "photos"], confused)
    return [
        beside(part("Errors by class", first), part("Confused pairs", second) if confused else ""),
        part("The most confident mistakes", *_mistakes(test, read)),
    ]


def _mistakes(test: EvalRecord, read: Read | None) -> Sequence[str]:
    """Photos where they can be read; else the picture that was made when they could."""
    if test.told.get("top1_error") == 0:
        return [paragraph("None: every photo is right.")]
    if read is not None:
        with contextlib.suppress(VerydeepError):
            found = mistakes(load_scores(test.folder / FILE_NAME), read, MOST_MISTAKES)
            if any(pixels is not None for pixels, _ in found):
                text = "Wrong photos whose right class got the least probability: the class, and what it was taken for."
                return [paragraph(text, "note"), tiles(found, "a photo of")]
    return _stored(test, "mistakes.png", "Photos that were wrong, with their class and what they were taken for")


def _stored(test: EvalRecord, name: str, alt: str) -> Sequence[str]:
    """A picture that the test left in its folder, or a sentence in its place."""
    try:
        return [picture((test.folder / name).read_bytes(), alt, f"{alt}, {test.name}.", "wide")]
    except OSError:
        return [paragraph(f"There is no picture: the photos are gone, and {name} is not in the test's folder.")]


def _box_blocks(test: EvalRecord) -> list[str]:
    told = test.told
    rows = [
        (text, f"{told[name]:.2f} %", _interval(told, name))
        for name, text in BOX_ERRORS.items()
        if told.get(name) is not None
    ]
    if not rows:
        return [paragraph("The boxes of these photos are not known, so there are no errors.")]
    shown = "Green are the true boxes, red is the box that the net gives the true class"
    blocks = [table(f"{test.name}: errors of boxes", ["error", "", "95 % interval"], rows)]
    for kind, name, none in (("Right", "right.png", 100), ("Wrong", "wrong.png", 0)):
        if told.get("gt_class_error") == none:
            blocks.append(part(f"{kind} boxes", paragraph("None.")))
        else:
            blocks.append(part(f"{kind} boxes", *_stored(test, name, f"{kind} boxes. {shown}")))
    return blocks


def _interval(told: dict[str, Any], name: str) -> str:
    ends = told.get(f"{name}_interval")
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f} %"
