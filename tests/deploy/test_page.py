"""The page of `verydeep serve` in a headless browser: images in, bars, maps, boxes, keyboard, labels, 400 px."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import CLASSES, Running, photo, running

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
if BROWSER is None:
    pytest.skip("no chromium is installed", allow_module_level=True)

DROP = """([name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
    return transfer;
}"""


@pytest.fixture(scope="module")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with all routes."""
    words = tmp_path_factory.mktemp("words") / "err.txt"
    more = ("--boxes", served / "net", "--features", served / "f.safetensors")
    with running(served / "run", words, *more) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, headless."""
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses to work for root
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=alone)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """The loaded page; errors and requests to other hosts fail the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    faults: list[str] = []
    found = context.new_page()
    found.on("pageerror", lambda fault: faults.append(str(fault)))
    found.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    found.on("request", lambda one: faults.extend([] if one.url.startswith((server.address, "blob:")) else [one.url]))
    found.goto(server.address)
    found.wait_for_selector("body[data-ready]")
    yield found
    context.close()
    assert faults == []


def drop(page: Any, name: str, data: bytes) -> None:
    """Drops a file on the page."""
    transfer = page.evaluate_handle(DROP, [name, list(data)])
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(".drop", kind, {"dataTransfer": transfer})


def predicted(page: Any, count: int = 1) -> None:
    page.get_by_role("status").filter(has_text=re.compile(rf"^{count} images?$")).wait_for(timeout=30_000)


def test_a_dropped_image_has_five_bars_a_map_boxes_and_neighbours(page: Any) -> None:
    drop(page, "garden.png", photo(1, (300, 200)))
    predicted(page)
    card = page.get_by_role("article", name="garden.png")
    rows = card.get_by_role("radio").filter(visible=True)
    names = card.locator(".classes .name").all_inner_texts()
    assert len(names) == 5
    assert set(names) <= set(CLASSES)
    values = [float(text.removesuffix(" %")) for text in card.locator(".classes .value").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    widths = [one.bounding_box()["width"] for one in card.locator(".fill").all()]
    page.wait_for_timeout(500)  # bars grow
    widths = [one.bounding_box()["width"] for one in card.locator(".fill").all()]
    whole = card.locator(".classes .track").first.bounding_box()["width"]
    assert widths == pytest.approx([whole * value / 100 for value in values], abs=whole * 0.002 + 1)
    assert rows.count() >= 5

    picture = card.locator("img.map")
    assert not picture.is_visible()
    card.get_by_text("Score map").click()
    page.get_by_role("img", name=f"Score map of {names[0]}").wait_for()
    assert picture.evaluate("one => one.naturalWidth") == 300
    size, under = picture.bounding_box(), card.locator("img.photo").bounding_box()
    assert size == pytest.approx(under, abs=1)  # it lies on the photo
    card.get_by_role("radio", name=re.compile(f"^{names[2]}")).check()
    page.get_by_role("img", name=f"Score map of {names[2]}").wait_for()
    card.get_by_text("Grad-CAM").click()
    page.get_by_role("img", name=f"Grad-CAM of {names[2]}").wait_for()
    card.get_by_text("Image", exact=True).click()
    assert not picture.is_visible()

    boxes = card.locator(".box")
    assert boxes.count() >= 1
    frame = card.locator(".frame").bounding_box()
    for box in boxes.all():
        place = box.bounding_box()
        assert place["x"] >= frame["x"] - 1
        assert place["x"] + place["width"] <= frame["x"] + frame["width"] + 1
    card.get_by_label("Boxes").uncheck()
    assert not boxes.first.is_visible()

    near = card.locator(".similar li")
    assert near.count() == 6
    near.first.scroll_into_view_if_needed()
    assert near.first.locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") == 64


def test_a_file_that_is_not_an_image_gets_an_error_and_others_their_predictions(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no photo")
    (tmp_path / "<img src=x onerror=alert(1)>.png").write_bytes(photo(2))
    page.get_by_label("Choose images").set_input_files([str(path) for path in sorted(tmp_path.iterdir())])
    page.get_by_text("2 images, 1 failed").wait_for(timeout=30_000)
    alert = page.get_by_role("article", name="notes.png").get_by_role("alert")
    assert alert.inner_text().startswith("The photo is not an image in a known format")
    # A name is shown as it is, and is no part of the page.
    assert page.get_by_role("heading", name="<img src=x onerror=alert(1)>.png").count() == 1
    assert page.locator("img[src=x]").count() == 0


def test_a_pasted_image(page: Any) -> None:
    paste = f"""bytes => {{
        const transfer = ({DROP})(["image.png", bytes]);
        document.dispatchEvent(new ClipboardEvent("paste", {{clipboardData: transfer, bubbles: true}}));
    }}"""
    page.evaluate(paste, list(photo(3)))
    predicted(page)
    assert page.get_by_role("article", name="image.png").locator(".classes .row").count() == 5


def focused(page: Any) -> str:
    """What has the focus: its accessible name, or its text."""
    found: str = page.evaluate(
        """() => {
            const one = document.activeElement;
            return one.ariaLabel || one.labels?.[0]?.innerText || one.innerText || one.tagName;
        }"""
    )
    return found.strip()


def test_by_keyboard_alone(page: Any) -> None:
    page.on("filechooser", lambda chooser: None)  # then the browser reports the dialog in place of opening it
    page.keyboard.press("Tab")
    assert focused(page).startswith("Choose images")
    outline = page.locator(".button").evaluate("one => getComputedStyle(one).outlineWidth")
    assert outline == "3px"  # the focus is seen
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": photo(4)})
    predicted(page)
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(focused(page))
    assert seen[0] == "Remove all"
    assert seen[1] == "Image"
    page.locator(".views input").first.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("img", name=re.compile("^Score map of")).wait_for()
    page.locator(".classes input").first.focus()
    before = page.locator("img.map").get_attribute("alt")
    page.keyboard.press("ArrowDown")
    second = page.locator(".classes .name").nth(1).inner_text()
    page.get_by_role("img", name=f"Score map of {second}").wait_for()
    assert page.locator("img.map").get_attribute("alt") != before
    page.get_by_role("button", name="Remove a.png").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("article").count() == 0
    assert focused(page).startswith("Choose images")  # the focus is not lost


def test_labels_for_screen_readers(page: Any) -> None:
    drop(page, "one.png", photo(5))
    predicted(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, button, a")].filter((one) =>
            one.checkVisibility() && !(one.ariaLabel || one.labels?.length || one.innerText.trim()))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("() => [...document.images].filter((one) => one.getAttribute('alt') === null).length") == 0
    assert page.locator("[aria-live=polite][role=status]").count() == 2
    assert page.locator("html").get_attribute("lang") == "en"
    assert [one.inner_text() for one in page.get_by_role("heading", level=1).all()] == ["What does your image show?"]
    groups = page.get_by_role("group").all()
    assert len(groups) == 2  # view and class
    assert page.get_by_role("group", name="Most likely classes").get_by_role("radio").count() == 5
    assert page.get_by_role("group", name="View").get_by_role("radio").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_400_pixels_in_both_colours(browser: Any, server: Running, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 400, "height": 800}, color_scheme=scheme, reduced_motion="reduce", device_scale_factor=2
    )
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector("body[data-ready]")
    drop(page, "a_very_long_name_without_any_place_to_break_it_" * 4 + ".png", photo(6, (300, 75)))
    drop(page, "tall.png", photo(7, (12, 300)))
    predicted(page, 2)
    page.locator(".card").first.get_by_text("Score map").click()
    page.get_by_role("img", name=re.compile("^Score map of")).wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 400
    ink, paper = page.evaluate(
        "() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    lights = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (lights[0] < lights[1]) == (scheme == "light")
    assert page.locator(".fill").first.evaluate("one => getComputedStyle(one).transitionDuration") in ("0s", "0s, 0s")
    assert worst_contrast(page) >= 4.5
    context.close()


def worst_contrast(page: Any) -> float:
    """The least contrast of visible text with what is behind it (WCAG 2), of what has a colour of its own behind it."""
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() &&
            [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())).map((one) => {
            let behind = one;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)" && behind.parentElement) {
                behind = behind.parentElement;
            }
            return [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
        })"""
    )

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ratios = []
    for pair in pairs:
        dark, bright = sorted(map(light, pair))
        ratios.append((bright + 0.05) / (dark + 0.05))
    assert len(ratios) > 20
    return min(ratios)
