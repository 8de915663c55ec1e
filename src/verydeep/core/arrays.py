"""NumPy's ``.npz`` files, which are zip archives: a small one may unpack to more than the memory of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import VerydeepError

MOST_BYTES = 16 * 2**30  # posteriors of 200,000 images and 21,000 classes


@contextmanager
def opened_arrays(path: Path) -> Iterator[np.lib.npyio.NpzFile[Any]]:
    """The arrays of an ``.npz`` file by name, each read on access.

    Raises:
        VerydeepError: they take more than `MOST_BYTES`.
        Exception: NumPy and zipfile raise many types for files that are missing or broken.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        size = sum(part.file_size for part in stored.zip.infolist())  # zipfile reads no more than it says
        if size > MOST_BYTES:
            most = MOST_BYTES / 2**30
            raise VerydeepError(
                f"{path} unpacks to {size / 2**30:,.0f} GB of arrays: more than {most:.0f} GB is not read."
            )
        yield stored
