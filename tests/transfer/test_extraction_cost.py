"""What an extraction of descriptors will cost, before it is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import Command

FROZEN = Path(__file__).parents[1] / "files" / "frozen"


@pytest.fixture
def words(tmp_path: Path) -> tuple[object, ...]:
    """The extraction of a small net's fc7 of a few photos."""
    shutil.copytree(FROZEN / "photos", tmp_path / "photos")
    place = ("--data", tmp_path / "photos", "--out", tmp_path / "f.safetensors", "--workers", 0, "--threads", 1)
    return ("features", FROZEN / "run", *place)


def test_a_plan_counts_what_is_left_and_writes_nothing(
    command: Command, words: tuple[object, ...], tmp_path: Path
) -> None:
    def planned(*more: object) -> dict[str, Any]:
        answer = command(*words, *more, "--plan", "--json")
        assert answer.status == 0, answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    before = sorted(tmp_path.rglob("*"))
    plan = planned("--scales", "36,40")
    assert sorted(tmp_path.rglob("*")) == before
    assert [(row["scale"], row["images"]) for row in plan["scales"]] == [(36, plan["images"]), (40, plan["images"])]
    small, large = (row["multiply_adds_per_image"] for row in plan["scales"])
    assert 0 < small < large
    assert plan["seconds"] > 0
    assert planned("--scales", "36", "--mirror", "no")["scales"][0]["multiply_adds_per_image"] == small / 2
    assert command(*words, "--scales", "36").status == 0
    left = planned("--scales", "36,40")
    assert [row["images"] for row in left["scales"]] == [0, plan["images"]]
    assert left["scales"][0]["seconds"] == 0
    assert planned("--scales", "36")["seconds"] == 0
    shown = command(*words, "--scales", "36,40", "--plan").stdout
    assert f"{plan['images']} images, about" in shown


def test_a_plan_of_another_file_is_refused(command: Command, words: tuple[object, ...]) -> None:
    assert command(*words, "--scales", "36").status == 0
    answer = command(*words, "--scales", "36", "--layer", "pool5", "--plan")
    assert (answer.status, answer.stdout) == (2, "")
    assert "already contains different descriptors" in answer.stderr
