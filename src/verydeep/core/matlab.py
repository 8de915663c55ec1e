"""MATLAB files, read by scipy in a separate process: ``python -m verydeep.core.matlab FILE``.

A few changed bytes can make scipy allocate terabytes, crash or hang (NOTES.md), so the memory and time of that process
are limited. A process pool would import the user's script, which then would need a main guard.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import VerydeepError

MOST_BYTES = 3 * 2**30  # of an unpacked file: net E has .6 GB
MOST_SECONDS = 600
COMPRESSED = 15  # the type of an element (miCOMPRESSED)
HEADER = 128
BROKEN = 2  # exit status for an error of scipy, whose text is on stdout


def read_mat(path: Path) -> dict[str, Any]:
    """Variables by name: structs as dicts, arrays of structs as lists, dimensions of 1 removed.

    Raises:
        VerydeepError: scipy is missing; the file is broken or unpacks to too many bytes.
    """
    if importlib.util.find_spec("scipy") is None:
        raise VerydeepError(f"reading {path} needs scipy: pip install 'verydeep[mat]'.")
    _check_size(path)
    command = [sys.executable, "-m", "verydeep.core.matlab", str(path)]
    try:
        child = subprocess.run(command, capture_output=True, check=False, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise VerydeepError(f"{path} is corrupted: reading it as a MATLAB file took over {MOST_SECONDS} s.") from None
    if child.returncode == BROKEN:
        reason = child.stdout.decode("utf8", "replace")
        raise VerydeepError(f"{path} is corrupted or truncated: not a complete MATLAB file ({reason}).")
    if child.returncode:
        raise VerydeepError(f"{path} is corrupted: reading it as a MATLAB file crashed, or took too much memory.")
    content: dict[str, Any] = pickle.loads(child.stdout)
    return content


def _check_size(path: Path) -> None:
    """Unpacks a file's compressed elements piece by piece; raises VerydeepError for too many bytes."""
    total = 0
    with path.open("rb") as file:
        file.seek(HEADER)
        while len(tag := file.read(8)) == 8:
            kind, size = (int(value) for value in np.frombuffer(tag, dtype="<u4"))
            end = file.tell() + size
            if kind == COMPRESSED:
                unpack = zlib.decompressobj()
                try:
                    while not unpack.eof and (piece := unpack.unconsumed_tail or file.read(min(2**16, size))):
                        total += len(unpack.decompress(piece, 2**22))
                        if total > MOST_BYTES:
                            raise VerydeepError(
                                f"{path} would unpack to more than {MOST_BYTES:,} bytes, and is not loaded."
                            )
                except zlib.error:
                    return  # scipy reports it
            file.seek(end)


def main() -> int:
    """Reads the file named on the command line and writes its content, pickled, to stdout."""
    from scipy.io import loadmat

    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 * MOST_BYTES, resource.RLIM_INFINITY))
    try:
        # With `mat_dtype`, as MATLAB stores doubles of integer value, such as biases of 0, in a smaller type.
        content = pickle.dumps(loadmat(sys.argv[1], simplify_cells=True, mat_dtype=True))
    except Exception as error:  # scipy raises many types for broken files
        sys.stdout.buffer.write(" ".join(str(error)[:80].split()).encode("utf8", "replace"))
        return BROKEN
    sys.stdout.buffer.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
