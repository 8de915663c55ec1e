"""MATLAB files, read by scipy in a process of its own: ``python -m verydeep.core.matlab FILE``.

A few changed bytes can make scipy allocate terabytes, crash or hang (NOTES.md), so that process has bounded memory and
time. A process pool would start by importing the user's script, which then needs a main guard; this one does not.
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

MOST_BYTES = 3 * 2**30  # that a file may unpack to: net E has .6 GB
MOST_SECONDS = 600
COMPRESSED = 15  # an element's type, by MATLAB's description of its format
HEADER = 128
BROKEN = 2  # exit status where scipy raised an error, whose text is on stdout


def read_mat(path: Path) -> dict[str, Any]:
    """Variables by name: structs as dicts, arrays of structs as lists, without dimensions of 1.

    Raises:
        VerydeepError: scipy is missing, or the file is broken or unpacks to too much.
    """
    if importlib.util.find_spec("scipy") is None:
        raise VerydeepError(f"reading {path} needs scipy: pip install 'verydeep[mat]'.")
    _check_size(path)
    command = [sys.executable, "-m", "verydeep.core.matlab", str(path)]
    try:
        child = subprocess.run(command, capture_output=True, check=False, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise VerydeepError(f"{path} is broken: reading it as a MATLAB file took over {MOST_SECONDS} s.") from None
    if child.returncode == BROKEN:
        reason = child.stdout.decode("utf8", "replace")
        raise VerydeepError(f"{path} is broken or truncated: no whole MATLAB file ({reason}).")
    if child.returncode:
        raise VerydeepError(f"{path} is broken: reading it as a MATLAB file crashed, or took too much memory.")
    content: dict[str, Any] = pickle.loads(child.stdout)
    return content


def _check_size(path: Path) -> None:
    """Unpacks a file's compressed elements, a piece at a time, until they are too many bytes."""
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
                            raise VerydeepError(f"{path} unpacks to more than {MOST_BYTES:,} bytes, which is refused.")
                except zlib.error:
                    return  # scipy reports it
            file.seek(end)


def main() -> int:
    """Reads the file named on the command line and writes its content, pickled, to stdout."""
    from scipy.io import loadmat

    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 * MOST_BYTES, resource.RLIM_INFINITY))
    try:
        # By the class that MATLAB gave them: it stores whole doubles, such as biases of 0, in fewer bytes.
        content = pickle.dumps(loadmat(sys.argv[1], simplify_cells=True, mat_dtype=True))
    except Exception as error:  # whatever scipy raises for a broken file
        sys.stdout.buffer.write(" ".join(str(error)[:80].split()).encode("utf8", "replace"))
        return BROKEN
    sys.stdout.buffer.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
