"""Experiment trackers get the numbers of log.jsonl, one run each even if it is resumed, and never stop training.

Fake packages of the same interface stand for them; the real ones are used where they are installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import verydeep
from conftest import TINY, Command
from verydeep.checkpoints.run_dir import read_log
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Collected

NAMES = ("wandb", "mlflow", "trackio")
# What each package of the tests has of the real one; it appends a line of JSON a call to the file CALLS.
CALLS = """
import json, os
def note(what, **given):
    print("an advertisement")
    if what == os.environ.get("TRACKER_FAILS"):
        raise ConnectionError("no network\\nmore lines")
    with open(os.environ["TRACKER_CALLS"], "a") as file:
        file.write(json.dumps({"call": what, **given}, default=str) + "\\n")
"""
FAKES = {
    "wandb": """
class Settings:
    def __init__(self, **given): note("settings", **given)
class Run:
    def __init__(self, id): self.id = id
    def log(self, row, step): note("log", row=row, step=step)
    def finish(self): note("finish", id=self.id)
def init(*, project, name, id, resume, config, dir, settings):
    note("init", project=project, name=name, id=id, resume=resume, config=config, dir=dir)
    return Run(id or "new")
""",
    "trackio": """
def init(*, project, name, config, resume, embed):
    note("init", project=project, name=name, config=config, resume=resume)
def log(row, step): note("log", row=row, step=step)
def finish(): note("finish")
""",
    "mlflow": """
from types import SimpleNamespace
class MlflowClient:
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name): return "7"
    def create_run(self, experiment_id, run_name):
        note("init", project=experiment_id, name=run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="new"))
    def update_run(self, run_id, status): note("init", id=run_id, status=status)
    def log_param(self, run_id, key, value): note("param", key=key, value=value)
    def log_metric(self, run_id, key, value, step): note("log", row={key: value}, step=step)
    def set_terminated(self, run_id): note("finish", id=run_id)
""",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the fake packages; the file of their calls is beside it."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    for name, text in FAKES.items():
        (folder / f"{name}.py").write_text(CALLS + text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("TRACKER_CALLS", str(tmp_path / "calls"))
    kept = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    yield folder
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


def calls(tmp_path: Path, *kinds: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    return [row for row in rows if row["call"] in kinds]


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_gets_what_the_log_has_and_a_resumed_run_goes_on(
    photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {**TINY, "data": str(photos), "track": name}
    verydeep.train("A", tmp_path / "mine", max_epochs=1, **given)
    verydeep.train("A", tmp_path / "mine", resume=True, max_epochs=2, **given)
    (begun, resumed), log = calls(tmp_path, "init"), read_log(tmp_path / "mine")
    assert begun["name"] == "mine"
    assert resumed.get("id", resumed.get("name")) == ("mine" if name == "trackio" else "new")
    assert resumed.get("resume", "allow") == "allow"
    assert len(calls(tmp_path, "finish")) == 2
    sent: list[dict[str, float]] = [{}, {}]
    for row in calls(tmp_path, "log"):
        sent[row["step"] - 1] |= row["row"]
    assert sent == log
    config = begun.get("config") or {row["key"]: row["value"] for row in calls(tmp_path, "param")}
    assert config["lr"] == 0.01
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_never_stops_training(
    photos: Path, tmp_path: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setenv("TRACKER_FAILS", call)
    reporter = Collected()
    given: dict[str, Any] = {**TINY, "data": str(photos), "track": "wandb,trackio"}
    result = verydeep.train("A", tmp_path / "mine", max_epochs=2, reporter=reporter, **given)
    assert result["ended"] == "max_epochs"
    told = [text for text in reporter.warnings if "failed" in text]
    assert told == [
        f"{name} failed (no network), so it does not log this run any more; training goes on"
        for name in ("wandb", "trackio")
    ]
    assert fakes.is_dir()


def test_the_command_without_the_package_or_with_an_unknown_one(photos: Path, tmp_path: Path, command: Command) -> None:
    words = ["train", "A", "--data", photos, "--out", tmp_path / "r", "--track"]
    told = command(*words, "comet").mistake()
    assert told == "track must be one of wandb, mlflow, trackio, not 'comet'."
    name = next((name for name in NAMES if find_spec(name) is None), None)
    if name is None:
        pytest.skip("all trackers are installed")
    told = command(*words, name).mistake()
    assert told == f"--track {name} needs a package that is not installed: pip install {name}."
    assert not (tmp_path / "r").exists()


def test_nothing_is_imported_without_the_flag(
    photos: Path, tmp_path: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verydeep.train("A", tmp_path / "mine", data=str(photos), max_epochs=1, **TINY)
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "mine" / "tracking.json").exists()
    assert fakes.is_dir()
    monkeypatch.setattr("verydeep.checkpoints.trackers.find_spec", lambda name: None)
    with pytest.raises(VerydeepError, match="pip install mlflow"):
        verydeep.train("A", tmp_path / "other", data=str(photos), track=("mlflow",), **TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_real_trackers_where_they_are_installed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which needs no database
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    reporter = Collected()
    given: dict[str, Any] = {**TINY, "data": str(photos), "track": name, "reporter": reporter}
    verydeep.train("A", tmp_path / "mine", max_epochs=1, **given)
    assert [text for text in reporter.warnings if "failed" in text] == []
    begun = (tmp_path / "mine" / "tracking.json").read_text()
    verydeep.train("A", tmp_path / "mine", resume=True, max_epochs=2, **given)
    assert [text for text in reporter.warnings if "failed" in text] == []
    assert (tmp_path / "mine" / "tracking.json").read_text() == begun
    if name == "mlflow":
        client, run_id = import_module("mlflow").MlflowClient(), json.loads(begun)["mlflow"]
        losses = [point.value for point in client.get_metric_history(run_id, "loss")]
        assert losses == [row["loss"] for row in read_log(tmp_path / "mine")]
        assert client.get_run(run_id).info.run_name == "mine"
