"""Images that are no files: URLs, downloaded from a server of this machine by the real command, and standard input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from test_many_inputs import asked, pictures_of

import verydeep
from conftest import http_server, paint, run_command
from verydeep.core.errors import ImageError
from verydeep.data import fetch

FAST = ("--workers", 0, "--threads", 1)


class Photos(BaseHTTPRequestHandler):
    """Paths that name what a server may do; every other is a photo."""

    photo = b""
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.headers["User-Agent"])
        body, status, headers = self.photo, 200, {}
        path = self.path.partition("?")[0]
        if path == "/missing":
            status = 404
        elif path.startswith("/loop"):
            status, headers = 302, {"Location": "/loop"}
        elif path == "/moved":
            status, headers = 301, {"Location": "/photo.png"}
        elif path == "/to-file":
            status, headers = 302, {"Location": "file:///etc/hostname"}
        elif path == "/page":
            body = b"<!doctype html><title>Sign in</title>"
        elif path == "/empty":
            body = b""
        length = {"/large": fetch.MOST_BYTES + 1, "/torn": 2 * len(body), "/endless": None}.get(path, len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[Photos]]]:
    paint(tmp_path / "photo.png", 1, (90, 120, 200))
    kind = type("Handler", (Photos,), {"asked": [], "photo": (tmp_path / "photo.png").read_bytes()})
    with http_server(kind) as address:
        yield address, kind


def without_names(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("image", "explained")} for row in rows]


@pytest.mark.parametrize("verb", ["predict", "localise", "similar"])
def test_a_url_and_standard_input_have_the_results_of_the_file(
    served: Path, tmp_path: Path, server: tuple[str, type[Photos]], verb: str
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    url = f"{server[0]}/moved?of=ü b"
    words = asked(verb, served, out)
    answer = run_command(*words, "--json", photo, url, "-", url, stdin=photo)
    assert answer.status == 0, answer.stderr
    assert f"downloading {url}\n" in answer.stderr
    rows = json.loads(answer.stdout)
    assert [row["image"] for row in rows] == [str(photo), url, "stdin"]
    first, *others = without_names(rows)
    assert others == [first, first]
    assert all(Path(path).is_file() for path in pictures_of(verb, answer, out))
    assert len(server[1].asked) == 2  # and the redirection
    assert server[1].asked[0].startswith("verydeep/")


def test_bad_urls_leave_the_results_of_the_others(served: Path, server: tuple[str, type[Photos]]) -> None:
    url = server[0]
    why = {
        f"{url}/missing": "returns 404 (Not Found): check the address, or download it yourself and pass the file",
        f"{url}/loop": "returns 302 (The HTTP server returned a redirect error that would lead to an infinite loop)",
        f"{url}/to-file": "returns 302 (Found - Redirection to url 'file:///etc/hostname' is not allowed)",
        f"{url}/large": "has more than 100,000,000 bytes, the limit of a download",
        f"{url}/torn": "ended after",
        f"{url}/page": "is not an image in a known format",
        f"{url}/empty": "is an empty file",
        "http://nowhere.invalid/a.jpg": "cannot reach http://nowhere.invalid/a.jpg (",
        "http://127.0.0.1:9/a.jpg": "cannot reach http://127.0.0.1:9/a.jpg ([Errno 111] Connection refused)",
        "http://127.0.0.1:x/a.jpg": "(nonnumeric port: 'x')",
        "https://": "cannot reach https:// (no host given)",
        "http://a..b/": "cannot reach http://a..b/ (",
    }
    answer = run_command("predict", served / "run", *FAST, "--json", *why, f"{url}/endless")
    assert answer.status == 1, answer.stderr
    assert [row["image"] for row in json.loads(answer.stdout)] == [f"{url}/endless"]
    told = [line for line in answer.stderr.splitlines() if line.startswith("verydeep: ")]
    assert len(told) == len(why), answer.stderr
    for address, reason in why.items():
        assert any(address in line and reason in line for line in told), (address, told)
    none = run_command("predict", served / "run", *FAST, f"{url}/missing")
    assert "returns 404" in none.mistake()


def test_standard_input_without_an_image(served: Path, tmp_path: Path) -> None:
    words = ["predict", served / "run", *FAST, "-"]
    assert "stdin is an empty file" in run_command(*words).mistake()
    (tmp_path / "page").write_text("no image")
    assert "stdin is not an image in a known format" in run_command(*words, stdin=tmp_path / "page").mistake()
    assert "reads an image from standard input: pipe one in" in run_command(*words, stdin=Path("/dev/ptmx")).mistake()
    assert "standard input has more than 100,000,000 bytes" in run_command(*words, stdin=Path("/dev/zero")).mistake()


def test_a_slow_or_endless_download_ends(
    served: Path, server: tuple[str, type[Photos]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server[0]}/endless"
    assert verydeep.predict(served / "run", url)[0].image == url
    monkeypatch.setattr(fetch, "MOST_BYTES", 100)
    with pytest.raises(ImageError, match=r"/endless has more than 100 bytes, the limit of a download"):
        verydeep.predict(served / "run", url)
    monkeypatch.setattr(fetch, "MOST_BYTES", 10**6)
    monkeypatch.setattr(fetch, "MOST_SECONDS", -1.0)
    with pytest.raises(ImageError, match=r"/endless was not complete after -1 s: download it yourself"):
        verydeep.predict(served / "run", url)


def test_only_a_url_of_the_command_line_is_downloaded(server: tuple[str, type[Photos]]) -> None:
    """A text that a program passes as an image, or that a list has, is a path."""
    with pytest.raises(ImageError, match="cannot read http"):
        verydeep.read_image(f"{server[0]}/photo.png")
    assert server[1].asked == []
