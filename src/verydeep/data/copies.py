"""Images that are in several sets as equal files, which makes the error of one of the sets too low.

Only files of equal size are read, and no files if those have more than `MOST_HASHED` bytes, as ILSVRC's do. `verydeep
data check` also finds equal pixels in other files, and by descriptors other copies.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict

from ..core.errors import ImageError
from .dataset import MOST_HASHED, Data

Place = tuple[str, int]  # of an image: its set, and its index there


def copies_across_sets(data: Data) -> list[list[Place]]:
    """The images of equal files of which not all are in one set; none of data that are not image files in a folder."""
    by_size: dict[int, list[Place]] = defaultdict(list)
    for name, dataset in data.sets.items():
        if dataset.source.root is None:
            return []
        for index, image in enumerate(dataset.ids):
            for file in dataset.source.files(image)[:1]:
                with contextlib.suppress(OSError):  # reported when the images are read
                    by_size[file.stat().st_size].append((name, index))
    alike = {size: places for size, places in by_size.items() if _across(places)}
    if sum(size * len(places) for size, places in alike.items()) > MOST_HASHED:
        return []
    by_content: dict[bytes, list[Place]] = defaultdict(list)
    for places in alike.values():
        for name, index in places:
            dataset = data.sets[name]
            with contextlib.suppress(ImageError):
                if (encoded := dataset.source.encoded(dataset.ids[index])) is not None:
                    by_content[hashlib.sha256(encoded).digest()].append((name, index))
    return [places for places in by_content.values() if _across(places)]


def _across(places: list[Place]) -> bool:
    return len({name for name, _ in places}) > 1


def copies_message(data: Data) -> str | None:
    """One line on the images of `copies_across_sets`; None without any."""
    copies = copies_across_sets(data)
    if not copies:
        return None
    first = dict(copies[0])  # an image of each set
    shown = " and ".join(f"{data.sets[name].where(index)} ({name})" for name, index in first.items())
    count = sum(map(len, copies))
    return (
        f"{count} images are equal files in several sets, such as {shown}: errors on them are too low; `verydeep data "
        "check` lists them"
    )
