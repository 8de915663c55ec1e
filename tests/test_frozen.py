"""What version 0.1.0 wrote, printed and took is still read, written and taken: tests/files/frozen/README.md."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from servers import running

import verydeep
from verydeep.cli.main import main

FROZEN = Path(__file__).with_name("files") / "frozen"
COMMANDS = dict(line.split(": ", 1) for line in (FROZEN / "commands.txt").read_text().splitlines())
FILES = sorted(
    str(path.relative_to(FROZEN))
    for path in FROZEN.rglob("*")
    if path.is_file()
    and (path.parent != FROZEN or path.suffix == ".safetensors")
    and path.parts[len(FROZEN.parts)] not in ("help", "photos")
)
SERVED = ("answers/openapi.json", "answers/metrics.txt", "answers/served.json")
HERE = ("--workers", 0, "--threads", 1)
AT_ANOTHER_PLACE = ("--data", "photos")  # the frozen files name a folder of another machine
# Commands that read frozen files, with what they are given besides.
READ: dict[str, tuple[str, ...]] = {
    **{"evaluate.json": AT_ANOTHER_PLACE, "localise_evaluate.json": AT_ANOTHER_PLACE},
    **dict.fromkeys(("fuse.json", "predict.json", "predict_onnx.json", "localise_predict.json"), ()),
    **dict.fromkeys(("svm.json", "predict_svm.json", "similar.json", "table.json", "explain.json"), ()),
}
# What differs from one place, time or machine to another.
CHANGING = {"photo", "data", "seconds", "images_per_second", "environment", "folder"}


def typed(words: str, *more: object, cwd: Path) -> str:
    """What a command that has to succeed prints, run in this process."""
    printed, news = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(news):
        try:
            status = main([*shlex.split(words), *map(str, more)])
        except SystemExit as end:  # of --help
            status = int(end.code or 0)
    assert status == 0, news.getvalue()
    return printed.getvalue()


def copied(name: str, place: Path) -> None:
    """A copy of a frozen folder; windows and labels are those of photos of this date."""
    shutil.copytree(FROZEN / name, place)
    for path in place.rglob("*.png"):
        os.utime(path, (1, 1))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the frozen files, to be changed."""
    copied("", tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What today's code writes and prints for the same commands."""
    place = tmp_path_factory.mktemp("remade")
    copied("photos", place / "photos")
    (place / "answers").mkdir()
    for name, words in COMMANDS.items():
        (place / "answers" / name).write_text(typed(words, "--json", cwd=place))
    return place


def without_hashes(path: Path) -> str:
    """Folders of windows are named by hashes, which the last bit of a weight changes."""
    return re.sub(r"-[0-9a-f]{8,12}\b", "-#", str(path))


def counterpart(name: str, remade: Path) -> Path:
    """The remade file of a frozen one."""
    by_name = {without_hashes(path.relative_to(remade)): path for path in remade.rglob("*")}
    return by_name[without_hashes(Path(name))]


def key_paths(value: Any, path: str = "") -> set[str]:
    """The paths of all keys in a JSON document."""
    if isinstance(value, dict):
        return {path}.union(*(key_paths(inner, f"{path}.{key}") for key, inner in value.items()))
    return {path}.union(*(key_paths(inner, f"{path}[]") for inner in value)) if isinstance(value, list) else {path}


def inside(path: Path) -> set[str]:
    """What a file holds, by name."""
    if path.suffix == ".json":
        return key_paths(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return key_paths(list(map(json.loads, path.read_text().splitlines())))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {f"{name} {arrays[name].dtype.kind} {arrays[name].ndim}" for name in arrays}
    if path.suffix == ".npy":
        return {str(np.load(path, allow_pickle=False).dtype)}
    if path.suffix == ".csv":
        return {path.read_text().splitlines()[0]}
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            headers = {name: text for name, text in file.metadata().items() if text.startswith("{")}
            within = set().union(*(key_paths(json.loads(text), name) for name, text in headers.items()))
            return {*file.keys(), *file.metadata(), *within}
    return set()


@pytest.mark.parametrize("name", [name for name in FILES if name not in SERVED and name != "boxes/t.json"])
def test_files_and_answers_keep_their_names_and_keys(name: str, remade: Path) -> None:
    """The keys of boxes/t.json are hashes."""
    assert inside(FROZEN / name) <= inside(counterpart(name, remade))


def losses(run: Path) -> list[float]:
    """The training loss of each epoch."""
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("run", ["run", "boxes"])
def test_training_draws_what_it_drew(run: str, remade: Path) -> None:
    assert losses(remade / run) == pytest.approx(losses(FROZEN / run), rel=1e-4)


def same(now: Any, then: Any) -> bool:
    """Whether an answer says what the frozen one says, numbers within 2e-6."""
    if isinstance(then, dict):
        return all(same(now[key], value) for key, value in then.items() if key not in CHANGING)
    if isinstance(then, list):
        return len(now) == len(then) and all(map(same, now, then))
    return bool(now == pytest.approx(then, abs=2e-6) if isinstance(then, float) else now == then)


@pytest.mark.parametrize(("name", "more"), READ.items(), ids=READ)
def test_old_files_are_read_and_say_the_same(name: str, more: tuple[str, ...], old: Path) -> None:
    now = json.loads(typed(COMMANDS[name], *more, "--json", cwd=old))
    assert same(now, json.loads((FROZEN / "answers" / name).read_text())), now


@pytest.mark.parametrize("folders", [["run"], ["boxes"], ["svm"], ["probe"], ["svm", "probe"]])
def test_reports_of_old_folders_are_written(folders: list[str], old: Path) -> None:
    page = old / ("comparison.html" if len(folders) > 1 else f"{folders[0]}/report.html")
    page.unlink(missing_ok=True)
    typed("report", *folders, cwd=old)
    assert page.stat().st_size > 5_000


def test_posteriors_of_an_old_run_are_those_it_stored(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old)
    machine = verydeep.MachineSettings(workers=0, threads=1)
    stored = verydeep.load_scores("run/evaluations/test/dense@36")
    found = verydeep.evaluate("run", "dense@36", data="photos", out="again", machine=machine)
    assert found.scores.ids == stored.ids
    np.testing.assert_allclose(found.scores.posteriors, stored.posteriors, atol=1e-6)
    np.testing.assert_array_equal(found.scores.labels, stored.labels)


@pytest.mark.parametrize("lost", [None, "last.safetensors"])
@pytest.mark.parametrize(("words", "run"), [("train A", "run"), ("localise train A", "boxes")])
def test_old_runs_are_resumed(words: str, run: str, lost: str | None, old: Path) -> None:
    """From its last checkpoint, or the one before where that is broken."""
    if lost:
        (old / run / lost).write_bytes(b"broken")
    typed(words, "--out", run, "--data", "photos", "--resume", "--max-epochs", 3, *HERE, cwd=old)
    now, then = losses(old / run), losses(FROZEN / run)
    assert len(now) == 3
    assert now[: len(then)] == pytest.approx(then, rel=1e-4)


def test_old_windows_are_used_again(old: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in old.rglob("windows.npz")}
    typed(COMMANDS["localise_evaluate.json"], *AT_ANOTHER_PLACE, cwd=old)
    assert {path: path.stat().st_mtime_ns for path in old.rglob("windows.npz")} == before


def test_old_files_are_loaded_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FROZEN)  # a project that was moved: the net of descriptors is found below the working folder
    assert verydeep.load_scores(FROZEN / "fused" / "scores.npz").posteriors.shape == (6, 3)
    assert verydeep.load_features(FROZEN / "features.safetensors").ids[0] == "ant/ant0.png"
    photo, machine = str(FROZEN / "photos" / "cat" / "cat0.png"), verydeep.MachineSettings(workers=0, threads=1)
    localiser = verydeep.load_localiser(FROZEN / "boxes", FROZEN / "run", machine=machine)
    assert len(localiser.predict([photo])[0].boxes) == 1
    for name in ("run", "run/best.safetensors", "run/net.onnx", "converted/net.pth", "svm", "probe"):
        assert len(verydeep.load(FROZEN / name, machine=machine).predict([photo])[0].classes) == 3
    assert len(verydeep.open_data(verydeep.DataSettings(data=str(FROZEN / "packed"))).set("test").ids) == 6


def test_public_names_stay() -> None:
    names = (FROZEN / "names.txt").read_text().split()
    assert set(names) <= set(verydeep.__all__)
    assert all(hasattr(verydeep, name) for name in names)


@pytest.mark.parametrize("line", (FROZEN / "imports.txt").read_text().splitlines())
def test_imports_that_the_pages_showed_work_and_warn(line: str) -> None:
    if "hub" in line:
        pytest.importorskip("huggingface_hub")
    sys.modules.pop(line.split()[1], None)
    names: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=f"{line.split()[1]} is now verydeep"):
        exec(line, names)
    assert all(name.split(".")[0].strip() in names for name in line.rpartition("import ")[2].split(","))


def flags(help_text: str) -> set[str]:
    """Each flag of a help page, and each of its choices with it; choices without a flag too."""
    usage = " ".join(help_text.partition("\n\n")[0].split())
    found = re.findall(r"(--[\w-]+)?(?:[ =\[]+(\{[^}]*\}|[\w-]+(?:\|[\w-]+)+))?", usage)
    return {f"{flag} {choice}".strip() for flag, choices in found for choice in re.split(r"[{}|, ]+", choices)}


@pytest.mark.parametrize("page", sorted((FROZEN / "help").glob("*.txt")), ids=lambda page: page.stem)
def test_commands_take_the_flags_they_took(page: Path) -> None:
    words = "" if page.stem == "verydeep" else page.stem.replace("_", " ")
    now = typed(words, "--help", cwd=FROZEN)
    assert flags(page.read_text()) <= flags(now)


def properties(schema: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of all properties in a schema, those that it refers to as well."""
    if isinstance(schema, list):
        return set().union(*(properties(inner, schemas) for inner in schema))
    if not isinstance(schema, dict):
        return set()
    target = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else None
    return {*schema.get("properties", {})}.union(*(properties(inner, schemas) for inner in [*schema.values(), target]))


def offers(document: dict[str, Any]) -> set[str]:
    """The routes of an OpenAPI document with their parameters, statuses, types and properties."""
    schemas, found = document["components"]["schemas"], set()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            found |= {f"{method} {path} {parameter['name']}" for parameter in route.get("parameters", [])}
            for status, answer in route["responses"].items():
                found |= {f"{method} {path} {status}"}
                for kind, content in answer.get("content", {}).items():
                    found |= {f"{method} {path} {status} {kind} {name}" for name in ("", *properties(content, schemas))}
    return found


def samples(text: str) -> set[str]:
    """The names of Prometheus samples, each with the names of its labels."""
    found = re.findall(r"^(\w+)(\{.*\})? ", text, re.MULTILINE)
    return {" ".join([name, *sorted(re.findall(r'(\w+)="', labels))]) for name, labels in found}


def test_the_server_offers_what_it_offered(old: Path) -> None:
    more = ["--boxes", old / "boxes", "--features", old / "features.safetensors"]
    more += ["--protocol", "dense@36"]  # the run's test scale; since then maps have eight cells by default
    photo = (old / "photos" / "cat" / "cat0.png").read_bytes()
    with contextlib.chdir(old), running(old / "run", old / "words.txt", *more) as server:
        for path, then in json.loads((FROZEN / "answers" / "served.json").read_text()).items():
            get = path in ("/info", "/health", "/nowhere")
            reply = server.ask("GET", path) if get else server.post(path, photo)
            assert key_paths(then) <= key_paths(reply.json), path
            assert get or same(reply.json, then), path
        document, metrics = (server.ask("GET", path) for path in ("/openapi.json", "/metrics"))
    assert offers(json.loads((FROZEN / "answers" / "openapi.json").read_text())) <= offers(document.json)
    assert set((FROZEN / "answers" / "metrics.txt").read_text().splitlines()) <= samples(metrics.body.decode())
