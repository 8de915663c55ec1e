"""examples/tour.ipynb: its cells run in order, without Jupyter, on the digits that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "tour.ipynb"


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    """The code cells."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_it_is_stored_without_output(cells: list[dict[str, Any]]) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_its_cells_run(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHOTOS", raising=False)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
        if cell["id"] == "settings":  # its own would take minutes
            names["DATA"] = "digits:60"
            names["SETTINGS"] |= {"width": 1 / 32, "max_epochs": 1, "workers": 0, "threads": 1}
    printed = capsys.readouterr()
    assert "1 epochs, best dev error " in printed.out
    assert printed.out.count("%\n") == 8  # two errors, and six predictions
    assert "\r" not in printed.err
    assert (tmp_path / "runs" / "tour" / "report.html").is_file()
