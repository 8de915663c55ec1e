"""The page of suspect images: near duplicates across sets, doubtful labels, near duplicates within sets."""

from __future__ import annotations

from pathlib import Path

from ..data.open import Data
from ..transfer.suspects import Group, Suspect, Suspects, name_of
from .figures import photo_or_none
from .html import Tile, tiles, write_page
from .run_reader import short_name

SUSPECTS_PAGE = "suspects.html"
MOST_GROUPS, MOST_COPIES, MOST_LABELS = 40, 6, 60  # with their images on the page; the table lists all


def write_suspects_page(path: Path, found: Suspects, opened: Data) -> Path:
    """Writes the page; raises VerydeepError if it cannot be written, or would overwrite a file that is not a report."""
    leaks, others = ([group for group in found.groups if group.leak == leak] for leak in (True, False))
    labels = [suspect for suspect in found.suspects if suspect.suggested]
    labels.sort(key=lambda suspect: (suspect.reason != "label", -suspect.score))
    context = {
        "title": f"Suspect images of {short_name(opened.name)}",
        **{"found": found, "counts": found.counts, "leaks": leaks, "others": others, "labels": labels},
        "leak_rows": [_group_tiles(found, group, opened) for group in leaks[:MOST_GROUPS]],
        "other_rows": [_group_tiles(found, group, opened) for group in others[:MOST_GROUPS]],
        "label_tiles": tiles(
            (photo_or_none(opened.sets[suspect.set].source.read, suspect.image), _label_text(suspect))
            for suspect in labels[:MOST_LABELS]
        ),
    }
    return write_page(path, "suspects.html", context)


def _label_text(suspect: Suspect) -> str:
    return f"{suspect.image}\nlabel {suspect.label}\nsuggested {suspect.suggested}\n{suspect.set}, {suspect.score:.2f}"


def _group_tiles(found: Suspects, group: Group, opened: Data) -> tuple[Group, list[Tile]]:
    """A group with its first images, the kept one first."""
    images, listed = found.images, {suspect.image for suspect in found.suspects}
    shown = []
    for i in group.images[:MOST_COPIES]:
        image, its_set = images.ids[i], images.sets[i]
        label, state = name_of(images, i) or "no label", "listed" if image in listed else "kept"
        pixels = photo_or_none(opened.sets[its_set].source.read, image)
        shown.append((pixels, f"{image}\n{its_set}, {label}\n{state}"))
    return group, tiles(shown)
