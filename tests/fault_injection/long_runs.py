"""R15: hours in small: a server under mixed load, a training that goes on and on, one whose reader dies every minute.

Four parts run side by side for as many seconds as the row has kills, times SECONDS:

- A server gets photos that are sound and broken, maps, pages, and clients that stop or leave. Memory and open files
  stay what they were, and the photos' classes and probabilities too. It serves the net in the directory that ``NET_E``
  names, or else a tiny one.
- A training, one epoch after the other: memory and open files stay what they were.
- The same training, whose data-loading worker is killed every minute; it is resumed each time. Its log has the rows of
  the first one.
- A training that is killed so many times in a row and resumed each time, against an unbroken one.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from harness import TRAIN, Going, Outcome, begun, children, differences, killed, rows
from PIL import Image
from servers import Running, make_served, photo, running

SECONDS = 27  # for each kill: 100 kills beside 45 minutes
# How much the last tenth may have more than the second one; clients that stop or wait keep up to 25 connections open.
MEGABYTES, FILES = 50, 40
MINUTE, PACE = 60.0, 0.5
LEAST_SERVED = 5.0  # seconds; on a busy machine the short form's time may be over when the server has begun
SMALLEST, LARGEST = 200, 900  # sides of photos
ENDLESS: list[object] = [*TRAIN, "--drop-at", 10**6, "--max-epochs", 10**6, "--quiet"]
MOST_EPOCHS = 3  # that a training may do before it is killed


@dataclass
class Watch:
    """Memory and open files of a process and its children, from time to time."""

    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self, process: int) -> None:
        """Notes what is used now; nothing if the process has just ended."""
        with contextlib.suppress(OSError):
            members = [process, *children(process)]
            pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in members)
            files = len(os.listdir(f"/proc/{process}/fd"))
            self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            self.files.append(files)

    def growth(self) -> tuple[float, float]:
        """Megabytes and open files that the last tenth has more than the second one, by their medians."""
        tenth = max(1, len(self.files) // 10)
        early, late = slice(tenth, 2 * tenth), slice(-tenth, None)
        memory = statistics.median(self.megabytes[late]) - statistics.median(self.megabytes[early])
        return memory, statistics.median(self.files[late]) - statistics.median(self.files[early])

    def faults(self, whose: str) -> list[str]:
        """A sentence for each that grew."""
        if len(self.files) < 3:
            return [f"{whose}: seen {len(self.files)} times only"]
        memory, files = self.growth()
        found = [f"{whose}: {memory:.0f} MB more"] if memory > MEGABYTES else []
        return found + ([f"{whose}: {files:.0f} more open files"] if files > FILES else [])


def long_runs(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """The four parts at once; a trial is one kill of the last part."""
    until = time.monotonic() + trials * SECONDS
    found = Outcome(trials)
    with ThreadPoolExecutor(4) as pool:
        parts = [
            pool.submit(_served, place, until, found.figures),
            pool.submit(_trained, place, until, found.figures),
            pool.submit(_killed_in_a_row, place, trials, advance),
        ]
        found.faults += [fault for part in parts for fault in part.result()]
    return found


def _trained(place: Path, until: float, figures: dict[str, float]) -> list[str]:
    """The unbroken training and the broken one, whose logs are compared at last."""
    watch = Watch()
    whole = begun(1, *ENDLESS, "--out", "endless", cwd=place, told=place / "endless.stderr")
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(_broken_each_minute, place, until)
        while time.monotonic() < until and whole.poll() is None:
            watch.look(whole.pid)
            time.sleep(PACE)
        kills, faults = broken.result()
    faults += _stopped(whole, place / "endless.stderr") + watch.faults("training")
    unbroken, broken_log = rows(place / "endless"), rows(place / "broken")
    common = min(len(unbroken), len(broken_log))
    if not common or unbroken[:common] != broken_log[:common]:
        faults.append(f"the log of the broken training is not that of the other: {len(broken_log)} rows")
    memory, _ = watch.growth()
    figures |= {"epochs": len(unbroken), "epochs of the broken one": len(broken_log), "readers killed": kills}
    figures["MB more, training"] = memory
    return faults


def _broken_each_minute(place: Path, until: float) -> tuple[int, list[str]]:
    """How often the reader was killed, and what the command did not do then."""
    faults, kills = list[str](), 0
    told = place / "broken.stderr"
    while time.monotonic() < until:
        resume = ["--resume"] if (place / "broken" / "last.safetensors").exists() else []
        going = begun(1, *ENDLESS, "--out", "broken", *resume, cwd=place, told=told)
        alive = min(time.monotonic() + MINUTE, until)
        while time.monotonic() < alive and going.poll() is None:
            time.sleep(PACE)
        if time.monotonic() >= until:
            return kills, faults + _stopped(going, told)
        for reader in children(going.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(reader, signal.SIGKILL)
        kills += 1
        if (status := going.wait(120)) != 2 or "worker was killed" not in told.read_text():
            faults.append(f"kill {kills} of a reader: status {status}: {told.read_text()[-300:]}")
    return kills, faults


def _stopped(going: Going, told: Path) -> list[str]:
    """Ends a training in order, as Ctrl-C does."""
    going.send_signal(signal.SIGINT)
    status = going.wait(120)
    return [] if status == 130 else [f"ended with {status}: {told.read_text()[-300:]}"]


def _killed_in_a_row(place: Path, kills: int, advance: Callable[[], object]) -> list[str]:
    """One training, killed so many times at random moments within a few epochs each, then left to end."""
    epochs = 2 * MOST_EPOCHS * kills + 10  # more than it can do before the last kill, on a machine that becomes faster
    typed: list[object] = [*TRAIN, "--drop-at", 10**6, "--max-epochs", epochs, "--quiet"]
    began = time.monotonic()
    if (status := _resumed(place / "unkilled", typed).wait()) != 0:
        return [f"the unbroken run ended with {status}"]
    epoch = (time.monotonic() - began) / epochs
    rng, run = np.random.default_rng([15, kills]), place / "killed"
    for kill in range(kills):
        going, wanted = _resumed(run, typed), _epochs(run) + int(rng.integers(0, MOST_EPOCHS))
        while going.poll() is None and _epochs(run) < wanted:
            time.sleep(epoch / 10)
        if not killed(going, float(rng.uniform(0, epoch))):
            return [f"the training ended before kill {kill + 1}"]
        advance()
    status = _resumed(run, typed).wait()
    return [f"ended with {status}"] if status else differences(place / "unkilled", run)


def _epochs(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def _resumed(run: Path, typed: list[object]) -> Going:
    resume = ["--resume"] if (run / "last.safetensors").exists() else []
    return begun(1, *typed, "--out", run.name, *resume, cwd=run.parent, told=run.with_name(f"{run.name}.stderr"))


def _served(place: Path, until: float, figures: dict[str, float]) -> list[str]:
    """A server with five kinds of clients, and what it uses meanwhile."""
    run = Path(os.environ["NET_E"]) if "NET_E" in os.environ else make_served(place) / "run"
    watch, replies, faults = Watch(), Counter[str](), list[str]()
    with running(run, place / "serve.stderr") as server, ThreadPoolExecutor(5) as pool:
        before = _classes(server)
        for size in ((SMALLEST, LARGEST), (LARGEST, SMALLEST), (LARGEST, LARGEST)):  # memory is kept for the next ones
            for path in ("/predict", "/explain?kind=map", "/explain?kind=gradcam"):
                server.post(path, photo(0, size))
        until = max(until, time.monotonic() + LEAST_SERVED)
        clients = [pool.submit(client, server, until, replies) for client in (_sound, _sound, _odd, _maps, _leaving)]
        while time.monotonic() < until:
            watch.look(server.process.pid)
            time.sleep(PACE)
        faults += [fault for client in clients for fault in client.result()]
        server.becomes_idle()
        faults += watch.faults("server") + ([] if _same(before, _classes(server)) else ["photos got other responses"])
        if (status := server.stop()) != 0:
            faults.append(f"the server ended with {status}")
    memory, _ = watch.growth()
    figures |= {"responses": replies.total(), "MB more, server": memory}
    return faults


def _classes(server: Running) -> list[list[dict[str, object]]]:
    return [server.post("/predict", photo(number)).json["predictions"] for number in range(3)]


def _same(before: list[list[dict[str, object]]], after: list[list[dict[str, object]]]) -> bool:
    """Whether each photo has the same probabilities, within rounding."""
    pairs = zip(before, after, strict=True)
    return all(
        one["class"] == other["class"] and abs(float(str(one["probability"])) - float(str(other["probability"]))) < 1e-5
        for first, second in pairs
        for one, other in zip(first, second, strict=True)
    )


def _sound(server: Running, until: float, replies: Counter[str]) -> list[str]:
    """Photos of many sizes and formats, one after the other."""
    rng = random.Random(threading.get_ident())
    for number in count():
        if time.monotonic() >= until:
            return []
        body = photo(number % 50, (rng.randint(SMALLEST, LARGEST), rng.randint(SMALLEST, LARGEST)))
        reply = server.post("/predict", body)
        replies[f"photo {reply.status}"] += 1
        if reply.status not in (200, 503):
            return [f"a photo got {reply.status}: {reply.body[:200]!r}"]
    return []


def _odd(server: Running, until: float, replies: Counter[str]) -> list[str]:
    """What is no photo, half of one, one too large, a class that is not there; the page and its figures."""
    whole = photo(1)
    large = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(large, "PNG")
    asked: list[tuple[str, str, bytes | None, tuple[int, ...]]] = [
        *(("POST", "/predict", body, (400, 415)) for body in (b"", b"no photo", whole[: len(whole) // 2])),
        *(("POST", path, whole, (404, 422)) for path in ("/none", "/explain?class=none", "/predict?top=0")),
        ("POST", "/predict", large.getvalue(), (413,)),
        *(("GET", path, None, (200,)) for path in ("/", "/page.js", "/info", "/metrics", "/openapi.json")),
    ]
    for number in count():
        if time.monotonic() >= until:
            return []
        method, path, body, allowed = asked[number % len(asked)]
        reply = server.ask(method, path, body)
        replies[f"{path} {reply.status}"] += 1
        if reply.status not in (*allowed, 503):
            return [f"{method} {path} got {reply.status}, not {allowed}"]
        time.sleep(0.05)
    return []


def _maps(server: Running, until: float, replies: Counter[str]) -> list[str]:
    """Score maps and Grad-CAM, as numbers and as pictures."""
    for number in count():
        if time.monotonic() >= until:
            return []
        kind, form = ("map", "gradcam")[number % 2], ("json", "png")[number // 2 % 2]
        reply = server.post(f"/explain?kind={kind}&form={form}", photo(number % 7))
        replies[f"{kind} {reply.status}"] += 1
        if reply.status not in (200, 503):
            return [f"/explain got {reply.status}: {reply.body[:200]!r}"]
        time.sleep(1)
    return []


def _leaving(server: Running, until: float, _replies: Counter[str]) -> list[str]:
    """Clients that stop within a photo and leave after a while, or leave before they are served."""
    body = photo(2)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    staying: list[socket.socket] = []
    for number in count():
        if time.monotonic() >= until:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = socket.create_connection(server.place, timeout=5)
            client.sendall(head + (body if number % 2 else body[: len(body) // 2]))
            staying.append(client)
        if len(staying) > 20:
            staying.pop(0).close()
        time.sleep(0.2)
    for client in staying:
        client.close()
    return []
