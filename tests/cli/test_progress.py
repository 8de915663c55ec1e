"""Progress where there is no terminal: in log files and in notebooks it is whole lines, without control characters."""

from __future__ import annotations

import builtins
import io
import sys

import pytest

from verydeep.cli import output
from verydeep.cli.output import Terminal


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
    monkeypatch.setattr(output, "PLAIN_EVERY_SECONDS", 0.0)
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
