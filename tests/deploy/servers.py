"""A real server in a process of its own, and what it serves in tests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def mistake(self) -> str:
        """The sentence of an error, which is JSON and repeats its status."""
        assert self.headers["content-type"] == "application/json"
        result = self.json["error"]
        assert result["status"] == self.status
        return str(result["message"])


@dataclass(frozen=True)
class Running:
    """A server: its address, its process, and where its words go."""

    address: str
    process: subprocess.Popen[str]
    words: Path

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.place, timeout=300)  # of a busy machine
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        """A photo's bytes to a route."""
        return self.ask("POST", path, body, headers)

    def figures(self) -> dict[str, float]:
        """The metrics by name and labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        rows = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def becomes_idle(self) -> None:
        """Waits until no place is taken."""
        until = time.monotonic() + 120
        while self.ask("GET", "/health").json["queue"]:
            assert time.monotonic() < until
            time.sleep(0.05)

    def resident(self) -> int:
        """Its memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(run: Path, words: Path, *more: object, setting: str = "") -> Iterator[Running]:
    """`verydeep serve` on a free port; ``setting`` is Python that is run before it."""
    code = f"import sys\n{setting}\nfrom verydeep.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", run, "--port", 0, "--threads", 1, "--json", *more]
    with words.open("w") as result:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=result,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[2] == "}\n", words.read_text()
        yield Running(json.loads("".join(lines))["address"], process, words)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def photo(number: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A photo's file."""
    rng = np.random.default_rng(number)
    return encoded(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))


def encoded(pixels: Any, form: str = "PNG") -> bytes:
    """Pixels as a file."""
    import io

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def make_served(place: Path) -> Path:
    """``run``, a net of six classes; ``net``, a localiser started from it; ``f.safetensors``, their descriptors."""
    import verydeep
    from verydeep.core.settings import FeatureSettings

    rng = np.random.default_rng(0)
    lines = []
    for label, name in enumerate(CLASSES):
        for number in range(6):
            pixels = rng.integers(90, 140, (48, 64, 3)).astype(np.uint8)
            x, y = int(rng.integers(4, 30)), int(rng.integers(4, 18))
            pixels[y : y + 24, x : x + 28] = (40 * label, 250 - 40 * label, 120)
            path = place / "photos" / name / f"{name}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels))
            lines.append(f"{name}/{path.name},{x + 1},{y + 1},{x + 28},{y + 24},{name}")
    (place / "boxes.csv").write_text("\n".join(lines) + "\n")
    given: dict[str, Any] = {"crop": 32, "width": 1 / 32, "S": "36", "batch": 8, "workers": 0, "threads": 1}
    data = str(place / "photos")
    verydeep.train("A", out=place / "run", data=data, max_epochs=2, **given)
    more: dict[str, Any] = {"boxes": str(place / "boxes.csv"), "start": str(place / "run"), "max_steps": 3}
    verydeep.train_boxes("A", out=place / "net", data=data, **more, **given)
    here = verydeep.MachineSettings(workers=0, threads=1)
    verydeep.extract_features(
        place / "run", data, place / "f.safetensors", settings=FeatureSettings(scales=(36,)), machine=here
    )
    return place
