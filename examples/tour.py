"""The tour of docs/tour.md, followed word for word, and its pictures.

    python examples/tour.py            # runs the page's commands here, then takes docs/pictures/tour-*
    python examples/tour.py commands   # prints them

`make demo` is not repeated where `runs/demo` is there. The server is asked about a photo, and ended.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from PIL import Image

TOP = Path(__file__).resolve().parents[1]
PAGE, PICTURES = TOP / "docs" / "tour.md", TOP / "docs" / "pictures"
BESIDE = Path(sys.executable).parent  # where `verydeep` and `python` of this environment are
TAKEN = {
    "tour-crops.png": "crops.png",
    "tour-map.png": "why/photos-nine-map.png",
    "tour-gradcam.png": "why/photos-nine-gradcam.png",
    "tour-box.jpg": "found/000.jpg",
    "tour-similar.png": "similar/000.png",
}
WIDEST = 900  # pixels of a picture on the page


def commands() -> list[str]:
    """What the page tells to type, line by line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def follow(place: Path) -> list[str]:
    """Types all of it in a folder; returns what was typed.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    typed = []
    for line in commands():
        words = shlex.split(line)
        if words[0] == "." or (line == "make demo" and (place / "runs" / "demo").exists()):
            continue
        here = BESIDE / words[0]
        start = [str(here) if here.exists() else words[0], *words[1:]]
        if words[:2] == ["python", "examples/scenes.py"]:
            start[1] = str(TOP / words[1])
        print(f"$ {line}", flush=True)
        if words[:2] == ["verydeep", "serve"]:
            ask(start, place)
        else:
            subprocess.run(start, cwd=place, check=True)
        typed.append(line)
    return typed


def ask(start: list[str], place: Path) -> None:
    """Starts the server at a free port, asks it about a photo, and ends it as Ctrl-C does."""
    server = subprocess.Popen([*start, "--port", "0"], cwd=place, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = iter(server.stderr.readline, "")
        address = next(found[0] for line in said if (found := re.search(r"http://[\d.]+:\d+", line)))
        photo = (place / "tour" / "photos" / "3" / "000.png").read_bytes()
        with urllib.request.urlopen(f"{address}/predict?top=3", photo, timeout=60) as answer:
            print(json.dumps(json.load(answer)))
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    if server.returncode:
        raise subprocess.CalledProcessError(server.returncode, start)


def take_pictures(place: Path) -> None:
    """Copies what the commands painted to where the page shows it, no wider than it needs."""
    for name, made in TAKEN.items():
        with Image.open(place / "tour" / made) as picture:
            picture.thumbnail((WIDEST, WIDEST))
            picture.save(PICTURES / name)


if __name__ == "__main__":
    if sys.argv[1:] == ["commands"]:
        print("\n".join(commands()))
    else:
        shutil.rmtree(TOP / "tour", ignore_errors=True)
        follow(TOP)
        take_pictures(TOP)
