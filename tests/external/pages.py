"""axe-core and the Nu HTML checker over the served page, the reports and the documentation.

    PYTHONPATH=tests:tests/deploy python tests/external/pages.py     # make suites installs what it needs

Each page is opened in Chromium, light and dark, 320, 640 (1,280 at a zoom of 200 %) and 1,600 pixels wide; it has to
satisfy axe's rules of WCAG 2.2 A and AA and its best practices, and to need no sideways scrolling (WCAG 1.4.10). The
served page is examined empty, and with predictions, a score map, a box, neighbours and an error. Pages of the
documentation share the theme of others: they are held to WCAG alone, each in one of the six windows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from servers import make_served, photo, running
from suites import TOP, SuiteResult, store

PACKAGES = Path(os.environ.get("NODE_PACKAGES", TOP / ".venv" / "npm" / "node_modules"))
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
WINDOWS = [(scheme, width) for scheme in ("light", "dark") for width in (320, 640, 1600)]
AXE = "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})"


def versions() -> dict[str, str]:
    """Versions of the two node packages."""
    return {
        name: json.loads((PACKAGES / name / "package.json").read_text())["version"] for name in ("axe-core", "vnu-jar")
    }


def checked_html(places: list[Path]) -> Counter[str]:
    """Errors of the Nu HTML checker in files and folders, as sentences; its warnings are advice."""
    jar = PACKAGES / "vnu-jar" / "build" / "dist" / "vnu.jar"
    words = ["java", "-jar", str(jar), "--format", "json", "--also-check-css", "--also-check-svg", *map(str, places)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=False).stderr)["messages"]
    errors = [one for one in found if one["type"] != "info"]
    return Counter(f"vnu, {Path(one['url']).name}: {one['message']}" for one in errors)


def examined(page: Any, name: str, best: bool = True) -> list[str]:
    """What axe finds on a page as it is now, with ``best`` practices too, and whether it scrolls sideways."""
    page.wait_for_timeout(450)  # bars grow, maps appear: colours in between are no colours of the page
    page.evaluate((PACKAGES / "axe-core" / "axe.min.js").read_text())
    found = [
        f"axe, {name}: {rule['id']}, {node['html'][:90]!r}"
        for rule in page.evaluate(AXE, [*WCAG, *(["best-practice"] if best else [])])["violations"]
        for node in rule["nodes"]
    ]
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    return [*found, *([f"{name}: {wide} pixels too wide"] if wide > 0 else [])]


@contextmanager
def opened(browser: Any, address: str, scheme: str, width: int) -> Iterator[Any]:
    """A page in a window; what its Content-Security-Policy blocks, or it loads from elsewhere, is an error."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, faults = context.new_page(), []
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.goto(address)
    yield page
    context.close()
    assert not faults, faults


def served_page(browser: Any, address: str, folder: Path) -> Iterator[list[str]]:
    """The served page, empty and with results, in each window."""
    (folder / "notes.png").write_text("no photo")
    (folder / "a.png").write_bytes(photo(1, (300, 200)))
    for scheme, width in WINDOWS:
        name = f"served page, {scheme}, {width}"
        with opened(browser, address, scheme, width) as page:
            page.wait_for_selector("body[data-ready]")
            yield examined(page, f"{name}, empty")
            page.get_by_label("Choose images").set_input_files([str(folder / "a.png"), str(folder / "notes.png")])
            page.get_by_text("2 images, 1 failed").wait_for(timeout=60_000)
            yield examined(page, f"{name}, results")
            page.get_by_text("Score map").locator("visible=true").first.click()
            page.get_by_role("img", name=re.compile("^Score map of")).wait_for()
            yield examined(page, f"{name}, score map")


def file_pages(browser: Any, reports: list[Path], docs: list[Path]) -> Iterator[list[str]]:
    """Reports in each window, the documentation's pages in one each."""
    turns = [(path, WINDOWS[number % len(WINDOWS)]) for number, path in enumerate(docs)]
    for path, (scheme, width) in [*((path, window) for path in reports for window in WINDOWS), *turns]:
        with opened(browser, path.as_uri(), scheme, width) as page:
            yield examined(page, f"{path.parent.name}/{path.name}, {scheme}, {width}", path in reports)
            broken = page.evaluate(
                "() => [...document.images].filter((one) => one.complete && !one.naturalWidth).length"
            )
            assert not broken, path


def made_reports(place: Path) -> list[Path]:
    """A report of each kind: a net with evaluations, a localisation model, a comparison of runs, SVMs."""
    steps: list[list[object]] = [
        ["evaluate", place / "run", "dense@36", "--threads", 1, "--workers", 0],
        ["localise", "evaluate", place / "net", "--threads", 1, "--workers", 0],
        ["svm", "own", "--features", place / "f.safetensors", "--splits", 1, "--out", place / "svm", "--threads", 1],
        *(["report", place / name] for name in ("run", "net", "svm")),
        ["report", place / "run", place / "copy", "--out", place / "compared.html"],
    ]
    shutil.copytree(place / "run", place / "copy")
    for words in steps:
        subprocess.run([sys.executable, "-m", "verydeep", *map(str, words)], check=True, capture_output=True)
    return [*(place / name / "report.html" for name in ("run", "net", "svm")), place / "compared.html"]


def made_docs(place: Path) -> list[Path]:
    """The documentation's pages."""
    words = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(place / "trees"), str(TOP / "docs")]
    subprocess.run([*words, str(place / "html")], check=True)
    return sorted((place / "html").glob("*.html"))


def main() -> int:
    """Examines all pages; 1 where one has a fault."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    faults: Counter[str] = Counter()
    cases = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        place = make_served(Path(folder))
        reports, docs = made_reports(place), made_docs(Path(folder) / "docs")
        source = TOP / "src" / "verydeep" / "deploy" / "server" / "page"
        files = [*reports, *docs, *(source / name for name in ("index.html", "page.css", "icon.svg"))]
        faults += checked_html(files)
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=browser_path, args=alone)
        more = ("--boxes", place / "net", "--features", place / "f.safetensors")
        with running(place / "run", place / "err.txt", *more) as server:
            for found in served_page(browser, server.address, place):
                cases, faults = cases + 1, faults + Counter(found)
        for found in file_pages(browser, reports, docs):
            cases, faults = cases + 1, faults + Counter(found)
        chromium = browser.version
        browser.close()
    sentences = [f"{fault} ({count} times)" if count > 1 else fault for fault, count in sorted(faults.items())]
    figures: dict[str, float] = {"files checked as HTML": len(files)}
    title = "pages in a browser, and as HTML"
    store("pages", SuiteResult(title, {**versions(), "chromium": chromium}, cases, sentences, figures))
    return int(bool(sentences))


if __name__ == "__main__":
    sys.exit(main())
