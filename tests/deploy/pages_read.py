"""Pages of HTML read as a browser reads them, for tests of reports."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "line", "polyline", "circle"}


class Page(HTMLParser):
    """A page's elements with their attributes, its text, and what is wrong with it in `faults`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        if self._open:
            self.faults.append(f"never closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        result = {name: value or "" for name, value in attrs}
        self.elements.append((tag, result))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("script", "iframe", "object", "link", "form") or any(name.startswith("on") for name in result):
            self.faults.append(f"{tag} {result}")
        for name in ("src", "href", "action", "srcset"):
            if name in result and not result[name].startswith("data:image/"):
                self.faults.append(f"{tag} {name}={result[name]}")
        if tag == "img" and not result.get("alt"):
            self.faults.append("a picture without an alternative text")
        if tag == "svg" and not (result.get("aria-label") or result.get("aria-hidden")):
            self.faults.append("a drawing without a label")
        if tag == "th" and result.get("scope") not in ("row", "col"):
            self.faults.append("a table's head without a scope")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes another")

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data if "pre" in self._open else f" {' '.join(data.split())}" if data.strip() else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of each element of a kind."""
        return [result for name, result in self.elements if name == tag]

    @property
    def refreshed(self) -> bool:
        """Whether a browser reads it again by itself."""
        return any(result.get("http-equiv") == "refresh" for result in self.all("meta"))


def read_page(path: Path) -> Page:
    """A page that has nothing wrong with it."""
    page = Page(path)
    assert page.faults == []
    assert page.source.startswith("<!doctype html>")
    assert page.source.count("@import") == page.source.count("url(") == 0
    return page
