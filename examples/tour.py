"""The tour of docs/tour.md, command by command, and its pictures.

    python examples/tour.py            # runs the page's commands here, then copies docs/pictures/tour-* and serve.png
    python examples/tour.py commands   # prints them

`make demo` is not repeated if `runs/demo` exists. The server predicts one photo, is photographed in a headless
chromium if there is one, and is stopped.
"""

from __future__ import annotations

import json
import os
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
    "serve.png": "serve.png",
}
WIDEST = 900  # pixels of a picture on the page


def commands() -> list[str]:
    """The commands of the page, line by line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def follow(place: Path) -> list[str]:
    """Runs all of them in a directory; returns what was run.

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
            query_server(start, place)
        else:
            subprocess.run(start, cwd=place, check=True)
        typed.append(line)
    return typed


def query_server(start: list[str], place: Path) -> None:
    """Starts the server at a free port, sends it a photo, photographs its page, and stops it as Ctrl-C does."""
    server = subprocess.Popen([*start, "--port", "0"], cwd=place, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        lines = iter(server.stderr.readline, "")
        address = next(match[0] for line in lines if (match := re.search(r"http://[\d.]+:\d+", line)))
        photo = place / "tour" / "photos" / "3" / "000.png"
        with urllib.request.urlopen(f"{address}/predict?top=3", photo.read_bytes(), timeout=60) as response:
            print(json.dumps(json.load(response)))
        photograph(address, [photo], place / "tour" / "serve.png")
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    if server.returncode:
        raise subprocess.CalledProcessError(server.returncode, start)


def photograph(address: str, photos: list[Path], picture: Path) -> None:
    """The server's page with predictions for these photos, as a PNG."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        page = chromium.new_page(viewport={"width": 1100, "height": 1080})
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.locator("input[type=file]").set_input_files(photos)
        card = page.get_by_role("article").first
        card.get_by_text("Score map").click()
        card.locator("img.map").wait_for()
        card.locator(".similar li img").last.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=picture)
        chromium.close()


def take_pictures(place: Path) -> None:
    """Copies the pictures that the commands wrote to where the page shows them, no wider than it needs."""
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
