"""`verydeep serve` under full load: mixed good and bad requests, beside the net alone, and the gain of batching.

    python benchmarks/serving.py run [MINUTES]    # of the mixed load for the first net (10); others a fifth
    python benchmarks/serving.py write            # into docs/serving.md

Net D with 1000 classes and random weights, at doll size, with 1/8 of its width, and full: a real server in a process of
its own, with `CLIENTS` concurrent clients over loopback, each of which sends its next request when it has a response.
First valid requests only, with batches of 8 and of 1, in turns with the net alone, which classifies the same decoded
photos in a process of its own. Then the mixed load, where one request in seven is invalid: broken or no photos, bombs,
bodies that are too long, clients that leave. The clients take their share of the same machine.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from verydeep.checkpoints.checkpoint import Metadata, save_checkpoint
from verydeep.checkpoints.preprocessing import MEAN_RGB
from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.models.vgg import create_net
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "benchmarks" / "results" / "serving.json"
# Crop, test scale and width of each.
NETS = {"D at doll size": (64, 73, 1 / 8), "D, 1/8 of its width": (224, 256, 1 / 8), "D": (224, 256, 1.0)}
CLIENTS, BATCH, PHOTOS = 24, 8, 24
TURNS, TURN_SECONDS, WARM_SECONDS, BARE_SECONDS = 2, 12.0, 10.0, 10.0
TOO_LONG = 25_000_001
# Of 100 requests; what is not bad is good.
BAD = {"broken": 4, "no photo": 3, "bomb": 2, "too long": 2, "leaves": 3}
EXPECTED = {"good": {200}, "broken": {400}, "no photo": {415}, "bomb": {413}, "too long": {413}, "leaves": {0}}


@dataclass
class Responses:
    """What the clients saw: seconds of valid responses, and statuses by kind."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    wall: float = 0.0


def photos() -> list[bytes]:
    """JPEGs of 500x375 pixels, some upright: smooth colours with noise, as photos compress."""
    rng = np.random.default_rng(0)
    bodies = []
    for number in range(PHOTOS):
        coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        whole = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        pixels = np.clip(whole + rng.integers(-20, 21, whole.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels if number % 4 else pixels.transpose(1, 0, 2)).save(file, "JPEG", quality=90)
        bodies.append(file.getvalue())
    return bodies


def bomb() -> bytes:
    """A picture's head that declares a billion pixels."""
    return b"P6\n40000 30000\n255\n" + bytes(1000)


@contextmanager
def server(run: Path, batch: int) -> Iterator[tuple[str, int, int]]:
    """A server: host, port, process id; it has to end with status 0."""
    words = [sys.executable, "-m", "verydeep", "serve", str(run), "--port", "0", "--json", "--quiet"]
    process = subprocess.Popen([*words, "--batch", str(batch)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        parts = urlsplit(json.loads("".join(process.stdout.readline() for _ in range(3)))["address"])
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(300)
        process.stdout.close()
    assert status == 0, status


async def send(host: str, port: int, kind: str, body: bytes) -> int:
    """The status of one request; 0 of a client that leaves before its response."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        if kind == "too long":
            head, body = head.replace(f": {len(body)}\r\n\r\n", f": {TOO_LONG}\r\n\r\n"), b""
        writer.write(head.encode() + body)
        await writer.drain()
        return 0 if kind == "leaves" else int((await reader.read())[9:12])
    finally:
        writer.close()


async def load(address: tuple[str, int, int], bodies: list[bytes], seconds: float, bad: dict[str, int]) -> Responses:
    """Sends requests for so many seconds."""
    responses, start = Responses(), time.monotonic()
    draw = random.Random(0)
    kinds = [kind for kind, share in bad.items() for _ in range(share)]
    kinds += ["good"] * (100 - len(kinds))
    others = {"broken": bodies[0][: len(bodies[0]) // 2], "no photo": b"no photo" * 100, "bomb": bomb()}

    async def client() -> None:
        while time.monotonic() - start < seconds:
            kind, sent = draw.choice(kinds), time.monotonic()
            status = await send(*address[:2], kind, others.get(kind) or draw.choice(bodies))
            responses.statuses[kind, status] += 1
            if kind == "good" and status == 200:
                responses.seconds.append(time.monotonic() - sent)

    async def watch() -> None:
        while True:
            pages = int(Path(f"/proc/{address[2]}/statm").read_text().split()[1])
            responses.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
            await asyncio.sleep(1)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    watching.cancel()
    responses.wall = time.monotonic() - start
    return responses


def bare(run: str, batch: int) -> None:
    """Prints photos a second of the net alone, in batches of so many; a program of its own."""
    import verydeep

    net = verydeep.load(run)
    pixels = [np.asarray(Image.open(io.BytesIO(body))) for body in photos()]
    net.predict(pixels[:batch])
    count, start = 0, time.monotonic()
    while time.monotonic() - start < BARE_SECONDS:
        batch_pixels = [pixels[(count + offset) % len(pixels)] for offset in range(batch)]
        net.predict(batch_pixels)
        count += batch
    sys.stdout.write(json.dumps(count / (time.monotonic() - start)))


def measure(run: Path, minutes: float) -> dict[str, Any]:
    """All of one net."""
    bodies = photos()
    rates: dict[str, dict[str, list[float]]] = {way: {str(BATCH): [], "1": []} for way in ("bare", "served")}
    for batch in (BATCH, 1) * TURNS:
        words = [sys.executable, __file__, "bare", str(run), str(batch)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rates["bare"][str(batch)].append(json.loads(done.stdout))
        with server(run, batch) as address:
            asyncio.run(load(address, bodies, WARM_SECONDS / 2, {}))
            good = asyncio.run(load(address, bodies, TURN_SECONDS, {}))
            rates["served"][str(batch)].append(len(good.seconds) / good.wall)
    with server(run, BATCH) as address:
        asyncio.run(load(address, bodies, WARM_SECONDS, BAD))
        mixed = asyncio.run(load(address, bodies, 60 * minutes, BAD))
    wrong = {f"{kind} {status}": n for (kind, status), n in mixed.statuses.items() if status not in EXPECTED[kind]}
    hundredths = quantiles(mixed.seconds, n=100)
    return {
        **{way: {batch: median(values) for batch, values in by_batch.items()} for way, by_batch in rates.items()},
        "mixed": {
            "seconds": mixed.wall,
            "requests": sum(mixed.statuses.values()),
            "good": len(mixed.seconds),
            "images_per_second": len(mixed.seconds) / mixed.wall,
            "p50": hundredths[49],
            "p99": hundredths[98],
            "unexpected": wrong,
            "memory_start": median(mixed.memory[:5]),
            "memory_end": median(mixed.memory[-5:]),
            "memory_most": max(mixed.memory),
        },
    }


def run(minutes: float) -> None:
    """Measures and stores."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, (crop, scale, width) in NETS.items():
            path = Path(directory) / "net.safetensors"
            metadata = Metadata("D", crop, width, tuple(map(str, range(1000))), MEAN_RGB, scale)
            save_checkpoint(path, create_net("D", crop=crop, width=width), metadata)
            results[name] = measure(path, minutes if not results else minutes / 5)  # the first answers most requests
            write_json(RESULTS, {"clients": CLIENTS, "nets": results, "environment": environment({})})


def write() -> None:
    """Writes the stored measurement into the page."""
    stored = read_json(RESULTS)
    rows = []
    for name, measured in stored["nets"].items():
        mixed, served, alone = measured["mixed"], measured["served"], measured["bare"]
        rows.append(
            [
                *(f"net {name}", f"{alone[str(BATCH)]:.1f} / {alone['1']:.1f}"),
                *(f"{served[str(BATCH)]:.1f} / {served['1']:.1f}", f"{served[str(BATCH)] / served['1']:.2f}"),
                *(f"{mixed['seconds'] / 60:.0f}", f"{mixed['images_per_second']:.1f}"),
                f"{mixed['p50']:.2f} / {mixed['p99']:.2f} s",
                f"{mixed['memory_start'] / 1e6:.0f} / {mixed['memory_end'] / 1e6:.0f} MB",
                f"{sum(mixed['unexpected'].values())} of {mixed['requests']:,}",
            ]
        )
    head = ["", "net alone, images/s: batch 8 / batch 1", "served: the same", "gain of batching, served"]
    head += ["mixed load: minutes", "images/s", "latency p50 / p99", "memory at start / end"]
    head += ["wrong responses"]
    where = stored["environment"]
    note = (
        "1000 classes, random weights, JPEGs of 500x375 pixels, dense at Q = 256 (73 at doll size) with the "
        "mirror image; "
        f"{stored['clients']} clients on the same machine; in the mixed load one request in seven is invalid. "
        f"{where['processor']}; torch {where['versions']['torch']}, {where['time'][:10]}, "
        f"commit {where['commit']}."
    )
    write_block(TOP / "docs" / "serving.md", "serving", f"{markdown_table(head, rows)}\n\n{note}")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(float(sys.argv[2]) if len(sys.argv) > 2 else 10.0)
    elif sys.argv[1] == "bare":
        bare(sys.argv[2], int(sys.argv[3]))
    else:
        write()
