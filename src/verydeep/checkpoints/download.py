"""Where released weights are kept on this machine, and fetching them: never but when asked to.

A download goes into ``….part`` and is gone on with after an interruption; it takes its name in the cache only when its
hash is the published one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import cannot_write, check_place
from ..core.progress import Reporter
from .registry import Digests, Released, all_released, released_named

PIECE = 2**20
SECONDS = 30.0  # without a byte, until a connection is given up
MOST_BYTES = 2 * 2**30  # no file of these nets is larger


def cache_folder() -> Path:
    """``VERYDEEP_CACHE``, or ``verydeep`` in the user's folder of caches."""
    chosen = os.environ.get("VERYDEEP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verydeep"


def cached(released: Released) -> Path:
    """Where a released file is, or would be."""
    return cache_folder() / f"{released.name}-{released.file_name}"


def on_this_machine(net: str) -> Released | None:
    """The first released file of a net that has been fetched; None where none has."""
    return next((one for one in all_released() if one.net == net and cached(one).is_file()), None)


def first_of(net: str) -> Released | None:
    """The released file of a net that is best to start from; None where nobody has published one."""
    return next((one for one in all_released() if one.net == net), None)


def fetch(name: str, source: str | None, reporter: Reporter) -> Path:
    """A released file into the cache, unless it is there already.

    Args:
        name: as `verydeep weights list` tells.
        source: another address of the same file, or a copy of it on this machine.

    Raises:
        VerydeepError: no such name, no network, no such file, no room, a hash that is not the published one.
    """
    released = released_named(name)
    path = cached(released)
    if path.is_file():
        reporter.say(f"{path} is there already")
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
            f"what {source or released.address} gave is not {name}: its {released.digest.partition(':')[0]} is not the "
            "published one; it was removed. Try again, or give another copy with --from."
        )
    os.replace(part, path)
    return path


def _copy(source: Path, part: Path) -> None:
    if not source.is_file():
        raise VerydeepError(f"there is no file {source}: give --from a file, or an address that begins with https://.")
    try:
        shutil.copyfile(source, part)
    except OSError as fault:
        with contextlib.suppress(OSError):
            part.unlink()
        raise VerydeepError(cannot_write(part, fault)) from None


def _download(address: str, part: Path, released: Released, reporter: Reporter) -> None:
    """Goes on where an earlier download into ``part`` was broken off."""
    done = part.stat().st_size if part.is_file() else 0
    if released.size and done >= released.size:
        return
    with _connected(address, done, part) as answer:
        if answer.status != 206:  # the server begins anew
            done = 0
        left = int(answer.headers.get("Content-Length") or 0)
        if done + left > MOST_BYTES or (released.size and left and done + left != released.size):
            raise VerydeepError(
                f"{address} offers {done + left:,} bytes, which is not {released.name}: nothing fetched."
            )
        try:
            with part.open("ab" if done else "wb") as file, _told(reporter, released, left) as tell:
                _pour(answer, file, tell)
        except OSError as fault:
            if isinstance(fault, TimeoutError | ConnectionError):
                raise VerydeepError(f"{address} was broken off: the same command goes on where it stopped.") from None
            raise VerydeepError(cannot_write(part, fault)) from None
    if left and part.stat().st_size < done + left:
        raise VerydeepError(f"{address} was broken off: the same command goes on where it stopped.")


def _pour(answer: Any, file: Any, tell: Any) -> None:
    while piece := answer.read(PIECE):
        file.write(piece)
        if file.tell() > MOST_BYTES:
            raise ConnectionError
        tell(len(piece))


@contextlib.contextmanager
def _told(reporter: Reporter, released: Released, size: int) -> Iterator[Any]:
    """Progress in millions of bytes."""
    rest = 0
    with reporter.track(f"fetching {released.name}, MB", max(1, size // 10**6)) as advance:

        def tell(count: int) -> None:
            nonlocal rest
            whole, rest = divmod(rest + count, 10**6)
            advance(whole, "")

        yield tell


@contextlib.contextmanager
def _connected(address: str, done: int, part: Path) -> Iterator[Any]:
    if not address.startswith(("https://", "http://")):
        raise VerydeepError(f"{address} is no address of the web: it must begin with https:// or http://.")
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as fault:
        if fault.code == 416:  # all of it is there
            part.unlink(missing_ok=True)
        raise VerydeepError(
            f"{address} answers {fault.code} ({fault.reason}): try again, or another copy with --from."
        ) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as fault:
        reason = getattr(fault, "reason", None) or fault
        raise VerydeepError(
            f"cannot reach {address} ({reason}): is there a network? --from FILE takes a copy that you have."
        ) from None
