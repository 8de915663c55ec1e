"""MATLAB's files, MatConvNet's nets and the devkit's ``meta.mat``: read by scipy in a process of its own.

A few changed bytes can make scipy ask for terabytes, or end its process (NOTES.md), so that process has bounded memory
and this one hears of its end (`verydeep.core.matlab_process`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from .errors import VerydeepError

MOST_BYTES = 3 * 2**30  # that a file may unpack to: net E has .6 GB
COMPRESSED = 15  # an element's type, by MATLAB's description of its format
HEADER = 128
TOLD = "told"  # the name under which the child's JSON is among the arrays
MISTAKE = 2  # the child's status where it writes a sentence


def read_mat(path: Path, what: Literal["net", "synsets"]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays by name and what else a file tells, as `verydeep.core.matlab_process` has it.

    Args:
        what: a MatConvNet net, or the synsets of ILSVRC's devkit.

    Raises:
        VerydeepError: scipy is missing, broken, no such content, an archive that unpacks to too much.
    """
    if importlib.util.find_spec("scipy") is None:
        raise VerydeepError(f"reading {path} needs scipy: pip install 'verydeep[mat]'.")
    _check_size(path)
    words = [sys.executable, "-m", "verydeep.core.matlab_process", what, str(path), str(2 * MOST_BYTES)]
    child = subprocess.run(words, capture_output=True, check=False)
    if child.returncode == MISTAKE:
        raise VerydeepError(child.stdout.decode("utf8", "surrogateescape"))
    if child.returncode:
        raise VerydeepError(f"{path} is broken: reading it as a MATLAB file crashed, or took too much memory.")
    arrays = load(child.stdout)
    told: dict[str, Any] = json.loads(arrays.pop(TOLD).tobytes())
    return arrays, told


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
                    return  # scipy will say so
            file.seek(end)
