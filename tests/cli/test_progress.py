"""Progress where there is no terminal: in log files and in notebooks it is whole lines, without control characters."""

from __future__ import annotations

import builtins
import io
import sys

import pytest

from verydeep.core import terminal
from verydeep.core.progress import Silent
from verydeep.core.terminal import Terminal, default_reporter


class OutStream(io.TextIOBase):
    """As ipykernel's: text only, without a file descriptor, and no terminal."""

    encoding = "UTF-8"

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False


class ZMQInteractiveShell:
    """As IPython's shell of a notebook, which rich recognises by this name."""


@pytest.mark.parametrize("place", ["log", "log with forced colours", "notebook"])
def test_progress_is_whole_lines(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if place == "log with forced colours":  # as services for continuous integration set it
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
    if place == "notebook":
        monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr(terminal, "PLAIN_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", stream := OutStream())
    reporter = Terminal()
    reporter.say("read 3 images")
    with reporter.track("predicting", 3) as advance:
        for note in ("a.jpg", "b.jpg", "c.jpg"):
            advance(1, note)
    reporter.warn("one is dark")
    lines = "".join(stream.written).split("\n")
    assert lines[0] == "read 3 images"
    assert [line.partition("  ")[0] for line in lines[1:4]] == [f"predicting: {done}/3" for done in (1, 2, 3)]
    assert lines[4:] == ["warning: one is dark", ""]
    assert not set("\r\x1b\b") & set("".join(stream.written))
    assert capsys.readouterr().out == ""  # where a notebook's rich output would go


@pytest.mark.parametrize(
    ("watched", "variables", "expected"),
    [
        (True, {}, Terminal),
        (False, {}, Silent),
        (True, {"VERYDEEP_PROGRESS": "off"}, Silent),
        (True, {"RANK": "1"}, Silent),
    ],
)
def test_functions_report_where_a_person_is_watching(
    watched: bool, variables: dict[str, str], expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VERYDEEP_PROGRESS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", stream := OutStream())
    monkeypatch.setattr(stream, "isatty", lambda: watched)
    assert type(default_reporter()) is expected


def test_functions_report_in_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERYDEEP_PROGRESS", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert type(default_reporter()) is Terminal
