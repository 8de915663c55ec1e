"""The cache of released weights, and downloads into it, which happen only on request.

A download goes into ``….part`` and resumes after an interruption; it takes its name in the cache only when its hash is
the published one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import cache_folder, cannot_write, check_place
from ..core.progress import Reporter
from ..core.url import FAULTS, is_url, open_url, why_not
from .registry import Digests, Released, all_released, released_named

PIECE = 2**20
MOST_BYTES = 2 * 2**30  # no file of these nets is larger


def cached(released: Released) -> Path:
    """The path of a released file in the cache, whether or not it exists."""
    return cache_folder() / f"{released.name}-{released.file_name}"


def on_this_machine(net: str) -> Released | None:
    """The first released file of a net that is in the cache; None where there is none."""
    return next((entry for entry in all_released() if entry.net == net and cached(entry).is_file()), None)


def first_of(net: str) -> Released | None:
    """The released file of a net that is best to start from; None where none has been published."""
    return next((entry for entry in all_released() if entry.net == net), None)


def fetch(name: str, source: str | None, reporter: Reporter) -> Path:
    """Downloads a released file to the cache, unless it is there; returns its path.

    Args:
        name: one that `verydeep weights list` shows.
        source: another URL of the same file, or a local copy of it.

    Raises:
        VerydeepError: no such name, no network, no such file, a full disk, a hash that is not the published one.
    """
    released = released_named(name)
    path = cached(released)
    if path.is_file():
        reporter.say(f"{path} is already downloaded")
        return path
    check_place(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if source and "://" not in source:
        _copy(Path(source), part)
    else:
        _download(source or released.address, part, released, reporter)
    if not released.holds(Digests(part)):
        part.unlink()
        raise VerydeepError(
            f"{source or released.address} is not {name}: its {released.digest.partition(':')[0]} is not the published "
            "one; the download was removed. Try again, or pass another copy as --from."
        )
    os.replace(part, path)
    return path


def _copy(source: Path, part: Path) -> None:
    if not source.is_file():
        raise VerydeepError(f"there is no file {source}: pass a file, or a URL that begins with https://, as --from.")
    try:
        shutil.copyfile(source, part)
    except OSError as fault:
        with contextlib.suppress(OSError):
            part.unlink()
        raise VerydeepError(cannot_write(part, fault)) from None


def _download(address: str, part: Path, released: Released, reporter: Reporter) -> None:
    """Downloads into ``part``, or resumes an interrupted download there."""
    interrupted = f"{address}: the download was interrupted; run the same command to resume it."
    done = part.stat().st_size if part.is_file() else 0
    if released.size and done >= released.size:
        return
    with _connected(address, done, part) as response:
        if response.status != 206:  # the server does not resume
            done = 0
        left = int(response.headers.get("Content-Length") or 0)
        if done + left > MOST_BYTES or (released.size and left and done + left != released.size):
            raise VerydeepError(
                f"{address} has {done + left:,} bytes, so it is not {released.name}: nothing was downloaded."
            )
        try:
            with part.open("ab" if done else "wb") as file, _progress(reporter, released, left) as advance:
                _copy_stream(response, file, advance)
        except OSError as fault:
            if isinstance(fault, TimeoutError | ConnectionError):
                raise VerydeepError(interrupted) from None
            raise VerydeepError(cannot_write(part, fault)) from None
    if left and part.stat().st_size < done + left:
        raise VerydeepError(interrupted)


def _copy_stream(response: Any, file: Any, advance: Any) -> None:
    while piece := response.read(PIECE):
        file.write(piece)
        if file.tell() > MOST_BYTES:
            raise ConnectionError
        advance(len(piece))


@contextlib.contextmanager
def _progress(reporter: Reporter, released: Released, size: int) -> Iterator[Any]:
    """A progress bar in megabytes, advanced by bytes."""
    rest = 0
    with reporter.track(f"downloading {released.name}, MB", max(1, size // 10**6)) as advance:

        def advance_bytes(count: int) -> None:
            nonlocal rest
            megabytes, rest = divmod(rest + count, 10**6)
            advance(megabytes, "")

        yield advance_bytes


@contextlib.contextmanager
def _connected(address: str, done: int, part: Path) -> Iterator[Any]:
    if not is_url(address):
        raise VerydeepError(f"{address} is not a URL: it must begin with https:// or http://.")
    try:
        with open_url(address, {"Range": f"bytes={done}-"} if done else None) as response:
            yield response
    except FAULTS as fault:
        if getattr(fault, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # nothing is left to download
            part.unlink(missing_ok=True)
        raise VerydeepError(
            f"{why_not(address, fault)}: check the network, or pass a copy of the file as --from FILE."
        ) from None
