"""C code compiled for this processor by the system's compiler, once, and kept in the cache directory.

Everything works without a compiler, more slowly: callers fall back on PyTorch's operations.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from .files import cache_folder

FLAGS = {"AVX2": ("-mavx2", "-mfma"), "AVX512": ("-mavx512f", "-mavx2", "-mfma")}  # by PyTorch's name of the processor
SECONDS = 120.0  # for the compiler
ADVICE = "set VERYDEEP_CACHE to a directory that you can write, or CC= to use no compiler."
_log = logging.getLogger(__name__).warning


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The functions of a C file, compiled unless they are in the cache.

    Returns None where there is no C compiler (``CC``, or ``cc``; ``CC=`` uses none), for a processor without AVX2, and,
    with a warning, where the compiler fails or the cache directory cannot be used.
    """
    compiler = os.environ.get("CC", "cc").split()
    flags = FLAGS.get(torch.backends.cpu.get_cpu_capability())
    if os.name != "posix" or flags is None or not compiler or shutil.which(compiler[0]) is None:
        return None
    command = [*compiler, "-O3", "-shared", "-fPIC", "-Wno-psabi", *flags]
    key = hashlib.sha256(source.read_bytes() + repr(command).encode()).hexdigest()[:16]
    try:
        place = cache_folder() / "compiled" / f"{source.stem}-{key}.so"
        if not place.exists():
            _compile(command, source, place)
        _check_owner(place)
        return ctypes.CDLL(str(place))
    except (OSError, RuntimeError, subprocess.SubprocessError) as fault:  # RuntimeError: there is no home directory
        why = (getattr(fault, "stderr", None) or str(fault)).strip()
        _log(f"{source.name} was not compiled, so PyTorch's operations are used, which are slower: {why}; {ADVICE}")
        return None


def _compile(command: list[str], source: Path, place: Path) -> None:
    """Appears whole or not at all: other processes may compile the same file at the same time."""
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="compiling-") as folder:
        result = Path(folder) / place.name
        words = [*command, str(source), "-o", str(result)]
        subprocess.run(words, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS)
        result.chmod(0o600)
        result.replace(place)


def _check_owner(place: Path) -> None:
    """Raises PermissionError if another user, but the superuser, can have written what would be run."""
    for path in (place, place.parent):
        status = path.stat()
        if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
            raise PermissionError(f"others can write {path}; remove it, or run `chmod go-w` on it")
