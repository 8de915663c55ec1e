"""Sect. 4's tables by name: at doll size with a few steps, which test the path and not the accuracy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conftest import Command, make_imagenet, paint, run_command
from verydeep import VerydeepError, create_net, reproduce
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.files import only_one
from verydeep.paper.doll_recipe import recipe_rows
from verydeep.paper.rows.row import experiment, find_rows, runs_of
from verydeep.paper.scale import DOLL, PAPER
from verydeep.paper.tables import claim_lines, measured, table_rows
from verydeep.training.recipes import papers_start

FEW = ["--doll", "--data", "digits:60", "--max-steps", 2, "--workers", 0, "--threads", 1]
OWN = [row for row in experiment("classification").rows if row.tests]


@pytest.fixture(scope="module")
def doll(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All rows, from one command; the folder of runs, and the printed JSON."""
    place = tmp_path_factory.mktemp("doll")
    answer = run_command("reproduce", "classification", *FEW, "--json", cwd=place)
    assert answer.status == 0, answer.stderr
    return place / "runs" / "doll", json.loads(answer.stdout)


@pytest.mark.slow
def test_every_row_is_run(doll: tuple[Path, dict[str, Any]]) -> None:
    folder, found = doll
    assert found["ended"] == "done"
    assert set(found["rows"]) == {row.name for row in OWN}
    for row in found["rows"].values():
        assert row["images"] == 20
        assert 0 <= row["top1_val_interval"][0] <= row["top1_val"] <= row["top1_val_interval"][1] <= 100
        assert row["top5_test"] is None
    assert set(found["claims"]) == {claim.name for claim in experiment("classification").claims}
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]


@pytest.mark.slow
def test_runs_are_trained_after_what_they_start_from(doll: tuple[Path, dict[str, Any]]) -> None:
    folder, found = doll
    order = [row["run"] for row in found["plan"]["train"]]
    assert len(order) == 14
    for run in order:
        start = papers_start(run)
        config = json.loads((folder / run / "config.json").read_text())
        if start is None:
            assert run in ("A/256", "A-LRN/256", "shallow-B/256")
            assert config["settings"]["start"] == "none"
        else:
            assert order.index(start) < order.index(run)
            assert config["settings"]["start"] == str(Path("runs/doll") / start)
    scales = {run: json.loads((folder / run / "config.json").read_text())["settings"]["S"] for run in order}
    assert scales["D/256"] == "73"
    assert scales["C/384"] == "110"
    assert scales["E/256-512"] == "73-146"


def test_only_the_fc_layers_of_the_submissions_jittered_net_are_trained(doll: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = doll
    start, ended = (load_checkpoint(folder / run / "last.safetensors").weights for run in ("D/384", "D/256-512-fc"))
    best = load_checkpoint(folder / "D/384" / "best.safetensors").weights
    changed = {name.partition(".")[0] for name in ended if not (ended[name] == best[name]).all()}
    assert changed == {"fc6", "fc7", "fc8"}
    assert set(start) == set(ended)


def test_rows_are_means_by_numpy_alone(doll: tuple[Path, dict[str, Any]]) -> None:
    """Table 6's rows from the plain arrays: nets and scales weigh the same, and so do dense and crops."""
    folder, found = doll

    def posteriors(run: str, protocol: str) -> Any:
        with np.load(folder / run / "evaluations" / "val" / protocol / "scores.npz", allow_pickle=False) as file:
            return file["posteriors"].astype(np.float64), file["labels"]

    nets = ("D/256-512", "E/256-512")
    both = [posteriors(net, f"{how}@{q}") for net in nets for how in ("dense", "crops") for q in (73, 110, 146)]
    seven = [
        posteriors(run, f"dense@{q}")
        for run, scales in (
            *((f"{net}/256", (64, 73, 82)) for net in "DCE"),
            *((f"{net}/384", (101, 110, 119)) for net in "DCE"),
            ("D/256-512-fc", (73, 110, 146)),
        )
        for q in scales
    ]
    for name, parts in (("table6/both", both), ("table7/VGG-2-nets", both), ("table6/submission", seven)):
        mean = np.mean([rows for rows, _ in parts], axis=0)
        labels = parts[0][1]
        wrong5 = (np.argsort(-mean, axis=1, kind="stable")[:, :5] != labels[:, None]).all(axis=1)
        assert found["rows"][name]["top1_val"] == pytest.approx(100 * np.mean(mean.argmax(axis=1) != labels))
        assert found["rows"][name]["top5_val"] == pytest.approx(100 * np.mean(wrong5))


def test_a_row_has_the_errors_of_evaluate(command: Command, doll: tuple[Path, dict[str, Any]]) -> None:
    folder, found = doll
    answer = command("evaluate", folder / "D" / "256", "dense@64,73,82", "--json", "--workers", 0, "--threads", 1)
    summary = json.loads(answer.stdout)
    row = found["rows"]["table4/D/256"]
    assert row["tests"] == [{"run": "D/256", "protocol": "dense@64,73,82"}]
    assert (row["top1_val"], row["top5_val"]) == (summary["top1_error"], summary["top5_error"])
    assert row["multiply_adds_per_image"] == pytest.approx(summary["multiply_adds_per_image"], abs=2)


def copied(doll: tuple[Path, dict[str, Any]], place: Path) -> Path:
    """A copy of the runs, which a test may change."""
    return shutil.copytree(doll[0], place / "runs" / "doll")


def reproduced(place: Path, name: str, *more: object) -> dict[str, Any]:
    """The JSON of a reproduction with few steps."""
    answer = run_command("reproduce", name, *FEW, *more, "--json", cwd=place)
    assert answer.status == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_finished_work_is_not_repeated(doll: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Nothing lost: nothing done, and the same results. A test lost: it alone is run."""
    ours = copied(doll, tmp_path)
    again = reproduced(tmp_path, "table3")
    assert (again["plan"]["train"], again["plan"]["test"]) == ([], [])
    assert again["rows"] == doll[1]["rows"]
    assert again["claims"] == doll[1]["claims"]
    shutil.rmtree(ours / "C" / "256" / "evaluations" / "val" / "dense@73")
    answer = reproduced(tmp_path, "table3/C/256")
    assert [(row["run"], row["protocol"]) for row in answer["plan"]["test"]] == [("C/256", "dense@73")]
    assert answer["rows"]["table3/C/256"]["top1_val"] == doll[1]["rows"]["table3/C/256"]["top1_val"]


def test_a_changed_checkpoint_voids_its_scores_rows_and_claims(
    doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    ours = copied(doll, tmp_path)
    for name in ("B", "shallow-B"):
        shutil.copy(ours / name / "256" / "last.safetensors", ours / name / "256" / "best.safetensors")
    answer = reproduced(tmp_path, "table3/B")
    assert [(row["run"], row["protocol"]) for row in answer["plan"]["test"]] == [("B/256", "dense@73")]
    left = {row.name for row in OWN if not {"B/256", "shallow-B/256"} & {test.run for test in row.tests}}
    assert set(answer["rows"]) == {*left, "table3/B/256"}  # B's other rows are no longer of its net
    assert "shallow" not in answer["claims"]
    assert "fusion" in answer["claims"]


def test_a_missing_scores_file_voids_one_claim_and_no_row(doll: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ours = copied(doll, tmp_path)
    (ours / "A-LRN" / "256" / "evaluations" / "val" / "dense@73" / "scores.npz").write_bytes(b"broken")
    found = run_command("reproduce", "table3/A/256", *FEW, "--json", cwd=tmp_path)
    assert found.status == 0
    assert "warning: the claim LRN is left out: " in found.stderr
    answer = json.loads(found.stdout)
    assert "table3/A/256" in answer["rows"]
    assert set(doll[1]["claims"]) - set(answer["claims"]) == {"LRN"}


def test_a_changed_start_is_refused(command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ours = copied(doll, tmp_path)
    shutil.copy(ours / "C" / "256" / "last.safetensors", ours / "C" / "256" / "best.safetensors")
    sentence = command("reproduce", "table3/C/384", *FEW, cwd=tmp_path).mistake()
    assert re.search(r"C/384 contains a run that was not started from the current C/256: use another", sentence)


def test_a_run_of_fewer_epochs_resumes_and_one_of_fewer_steps_is_refused(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    words = ["reproduce", "table3/A/256", *FEW[:3], "--workers", 0, "--threads", 1]
    for epochs in (1, 2):
        assert command(*words, "--max-epochs", epochs, cwd=tmp_path).status == 0
        result = json.loads((tmp_path / "runs" / "doll" / "A" / "256" / "result.json").read_text())
        assert (result["epochs"], result["ended"]) == (epochs, "max_epochs")
    sentence = command(*words, "--out", doll[0]).mistake()
    assert re.search(r"A/256 contains a run that ended after 2 steps \(--max-steps\): use another --out", sentence)


def test_a_limit_below_the_steps_of_a_run_is_refused_and_changes_nothing(command: Command, tmp_path: Path) -> None:
    words = ["reproduce", "table3/A/256", *FEW[:3], "--workers", 0, "--threads", 1]
    assert command(*words, "--max-epochs", 1, cwd=tmp_path).status == 0
    sentence = command(*words, "--max-steps", 1, cwd=tmp_path).mistake()
    assert re.search(r"A/256 has 2 steps already, more than --max-steps: use another --out", sentence)
    assert command(*words, "--max-epochs", 2, cwd=tmp_path).status == 0


def test_a_run_that_others_started_from_is_not_trained_further(command: Command, tmp_path: Path) -> None:
    words = ["reproduce", "table3/B/256", *FEW[:3], "--workers", 0, "--threads", 1]
    assert command(*words, "--max-epochs", 1, cwd=tmp_path).status == 0
    sentence = command(*words, "--max-epochs", 2, "--plan", cwd=tmp_path).mistake()
    assert re.search(r"A/256 would be trained further, but .*B/256 was started from its present weights", sentence)


def test_a_finished_run_needs_its_best_net_only(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    ours = copied(doll, tmp_path)
    (ours / "A" / "256" / "last.safetensors").unlink()
    assert reproduced(tmp_path, "table3/A")["plan"]["train"] == []
    (ours / "A" / "256" / "last.safetensors").write_bytes((ours / "A" / "256" / "best.safetensors").read_bytes())
    (ours / "A" / "256" / "best.safetensors").unlink()
    assert "best.safetensors is missing in" in command("reproduce", "table3/A", *FEW, cwd=tmp_path).mistake()


def test_scores_of_another_evaluation_are_refused(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    ours = copied(doll, tmp_path) / "B" / "256" / "evaluations" / "val"
    shutil.copy(ours / "centre@73" / "scores.npz", ours / "dense@73" / "scores.npz")
    sentence = command("reproduce", "table3/B/256", *FEW, cwd=tmp_path).mistake()
    assert re.search(r"dense@73 already contains scores of a different evaluation: remove it", sentence)
    (ours / "dense@73" / "result.json").write_text("[")
    assert len(reproduced(tmp_path, "table3/B/256")["plan"]["test"]) == 1  # torn: tested again


def test_replaced_images_are_evaluated_again(photos: Path, tmp_path: Path) -> None:
    words = ["--doll", "--data", photos, "--max-steps", 1, "--workers", 0, "--threads", 1, "--json"]
    first = run_command("reproduce", "table3/A/256", *words, cwd=tmp_path)
    assert first.status == 0, first.stderr
    again = json.loads(run_command("reproduce", "table3/A/256", *words, cwd=tmp_path).stdout)
    assert again["plan"]["test"] == []
    for photo in photos.rglob("*.png"):
        paint(photo, 5, (9, 9, 9), (30, 70))
    changed = json.loads(run_command("reproduce", "table3/A/256", *words, cwd=tmp_path).stdout)
    assert len(changed["plan"]["test"]) == 1


def test_one_reproduction_at_a_time(command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ours = copied(doll, tmp_path)
    with only_one(ours):
        sentence = command("reproduce", "table3/A", *FEW, cwd=tmp_path).mistake()
    assert "another process is using runs/doll: wait for it, or use another --out" in sentence
    assert command("reproduce", "table3/A", *FEW, cwd=tmp_path).status == 0


STRANGE: list[Any] = [
    {"rows": []},
    {"rows": None, "claims": {}},
    {"rows": {"table3/A/256": {}}, "claims": {}},
    {"rows": {}, "claims": {"LRN": {"pairs": [{}], "seed": 0}}},
]


@pytest.mark.parametrize("stored", STRANGE, ids=str)
def test_invalid_results_are_refused_before_the_work(command: Command, tmp_path: Path, stored: Any) -> None:
    (tmp_path / "runs" / "doll").mkdir(parents=True)
    (tmp_path / "runs" / "doll" / "results.json").write_text(json.dumps(stored))
    sentence = command("reproduce", "table3/A/256", *FEW, cwd=tmp_path).mistake()
    assert "results.json was not written by `verydeep reproduce`: remove it" in sentence
    assert not (tmp_path / "runs" / "doll" / "A").exists()


CHANGES = [("top1_val", -5.0), ("top1_val", "x"), ("top1_val_interval", [1]), ("images", 0), ("steps", 5), ("set", 3)]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_changed_row_is_refused(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, value: Any
) -> None:
    found = json.loads((doll[0] / "results.json").read_text())
    found["rows"]["table3/A/256"][name] = value
    (tmp_path / "r.json").write_text(json.dumps(found))
    assert (
        "r.json was not written by `verydeep reproduce`"
        in command("table", "3", "--from", tmp_path / "r.json").mistake()
    )


def test_results_of_different_images_cannot_be_in_one_table(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    found = json.loads((doll[0] / "results.json").read_text())
    other = {"rows": {"table3/A/256": {**found["rows"]["table3/A/256"], "images": 30}}, "claims": {}}
    del found["rows"]["table3/A/256"]
    (tmp_path / "a.json").write_text(json.dumps(found))
    (tmp_path / "b.json").write_text(json.dumps(other))
    sentence = command("table", "3", "--from", "a.json", "--from", "b.json", cwd=tmp_path).mistake()
    assert "cannot be in one table: 20 photos of digits:60 at doll size; 30 photos of" in sentence


def test_a_page_keeps_its_line_ends_its_mode_and_its_links(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_bytes(b"before\r\n<!-- table-2 -->\r\n<!-- /table-2 -->\r\n")
    page.chmod(0o640)
    (tmp_path / "link.md").symlink_to("page.md")
    assert command("table", "2", "--write", "link.md", cwd=tmp_path).status == 0
    assert (tmp_path / "link.md").is_symlink()
    written = page.read_bytes()
    assert b"133,638,952" in written
    assert written.count(b"\n") == written.count(b"\r\n") > 8
    assert page.stat().st_mode & 0o777 == 0o640


def test_a_closed_pipe_is_no_error(doll: tuple[Path, dict[str, Any]]) -> None:
    words = [sys.executable, "-m", "verydeep", "table", "7", "--from", str(doll[0])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as going:
        assert going.stdout is not None
        assert going.stderr is not None
        going.stdout.close()
        assert going.stderr.read() == b""
        assert going.wait(timeout=60) == 0


def test_results_record_how_long_the_nets_were_trained(doll: tuple[Path, dict[str, Any]]) -> None:
    rows = doll[1]["rows"]
    assert rows["table3/A/256"]["steps"] == [2]
    assert rows["table6/submission"]["steps"] == [2] * 7
    assert rows["table6/both"]["images_per_second"] < rows["table6/dense"]["images_per_second"]
    assert all(row["cut_short"] for row in rows.values())
    assert all(row["seed"] == 0 and row["commit"] and row["date"] for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("wait_for", ["B/256/last.safetensors", "B/256/evaluations/val"])
def test_an_interrupted_reproduction_resumes_with_the_same_command(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path, wait_for: str
) -> None:
    words = ["reproduce", "table4/B", *map(str, FEW)]
    going = subprocess.Popen(
        [sys.executable, "-m", "verydeep", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    place = tmp_path / "runs" / "doll" / wait_for
    for _ in range(6000):
        if place.exists() or going.poll() is not None:
            break
        time.sleep(0.005)
    assert going.poll() is None, "it ended before it could be interrupted"
    os.killpg(going.pid, signal.SIGINT)
    _, result = going.communicate(timeout=60)
    assert going.returncode == 130, result
    assert "verydeep: interrupted; finished parts are kept: resume with the same command." in result
    assert "Traceback" not in result
    answer = command(*words, "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    rows = json.loads(answer.stdout)["rows"]
    assert rows["table4/B/256"]["top1_val"] == doll[1]["rows"]["table4/B/256"]["top1_val"]
    assert rows["table4/B/256"]["checkpoints"] == doll[1]["rows"]["table4/B/256"]["checkpoints"]


def test_a_plan_lists_the_work_and_does_nothing(command: Command, tmp_path: Path) -> None:
    answer = command("reproduce", "table3/D", "--doll", "--plan", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    plan = json.loads(answer.stdout)["plan"]
    assert [row["run"] for row in plan["train"]] == ["A/256", "D/256", "D/384", "D/256-512"]
    assert [row["start"] for row in plan["train"]] == [None, "A/256", "D/256", "D/384"]
    assert {(row["run"], row["protocol"]) for row in plan["test"]} >= {("D/256", "dense@73"), ("D/384", "dense@110")}
    assert all(row["seconds"] > 0 for row in [*plan["train"], *plan["test"]])
    assert plan["disk_bytes"] > 0
    assert not list(tmp_path.iterdir())
    table = command("reproduce", "table3/D", "--doll", "--plan", cwd=tmp_path).stdout
    assert re.search(r"in total about \S+ \w+ and 0\.\d+ GiB of disk", table)


@pytest.mark.slow
def test_a_plan_needs_no_images(command: Command, tmp_path: Path) -> None:
    answer = command("reproduce", "table3/A/256", "--plan", "--json", cwd=tmp_path, IMAGENET="")
    assert answer.status == 0, answer.stderr
    plan = json.loads(answer.stdout)["plan"]
    assert plan["train"][0]["S"] == "256"
    assert plan["train"][0]["most_epochs"] == 74
    assert plan["disk_bytes"] == 3 * 4 * 132_863_336 + 4 * 50_000 * 1000


def test_sizes_scale_the_papers_pixels_once() -> None:
    assert [DOLL.pixels(q) for q in (224, 256, 288, 352, 384, 416, 512)] == [64, 73, 82, 101, 110, 119, 146]
    assert DOLL.protocol("both@256,384,512") == "both@73,110,146"
    assert PAPER.protocol("both@256,384,512") == "both@256,384,512"
    assert PAPER.settings("D/384") == {}
    rows = find_rows("table6")[1]
    assert len(runs_of(rows)) == 10  # the submission's seven, two jittered ones, and A/256 that all begin with


RELEASED = ["released/D+E/dense", "--workers", 0, "--threads", 1]


def released_files(folder: Path) -> dict[str, Path]:
    """Narrow nets under the layer names of a released file, with its record of pixels."""
    files = {}
    for net in ("D", "E"):
        tensors = create_net(net, classes=3, crop=224, width=1 / 64, seed=ord(net)).state_dict()
        record = {"net": net, "channel_order": "BGR", "mean_bgr": "103.939,116.779,123.68", "input_range": "0-255"}
        files[net] = folder / f"{net}.safetensors"
        save_file(dict(tensors), files[net], metadata=record)
    return files


@pytest.mark.slow
def test_released_models_are_evaluated_and_not_trained(command: Command, tmp_path: Path) -> None:
    make_imagenet(tmp_path / "imagenet")
    files = released_files(tmp_path)
    weights = [word for net, file in files.items() for word in ("--weights", f"{net}={file}")]
    data = ["--data", f"imagenet:{tmp_path / 'imagenet'}"]
    answer = command("reproduce", *RELEASED, *weights, *data, "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["plan"]["train"] == []
    assert found["rows"]["released/D+E/dense"]["images"] == 4
    one = command("reproduce", "released/D/centre", *RELEASED[1:], *data, "--json", cwd=tmp_path)
    assert json.loads(one.stdout)["rows"]["released/D/centre"]["images"] == 4
    tensors = load_checkpoint(tmp_path / "runs" / "D" / "released" / "best.safetensors").weights
    flipped = create_net("D", classes=3, crop=224, width=1 / 64, seed=ord("D")).layer("conv1_1").weight.flip(1)
    assert (tensors["conv1_1.weight"] == flipped).all()  # BGR in the file, RGB in ours
    table = command("table", "released", cwd=tmp_path)
    assert re.search(r"D, centre@256 +28\.5 +\d", table.stdout)
    # Taken in once, the weight files are not needed again; another filter is another test.
    again = command("reproduce", *RELEASED, *data, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["plan"]["test"] == []
    words = ["reproduce", "released/D/centre", *RELEASED[1:], *data, "--json"]
    bicubic = json.loads(command(*words, "--resampling", "bicubic", cwd=tmp_path).stdout)
    assert len(bicubic["plan"]["test"]) == 1
    assert set(bicubic["rows"]) == {"released/D/centre"}  # the fusion was of the other filter
    # Validation photos are enough.
    shutil.rmtree(tmp_path / "imagenet" / "train")
    alone = json.loads(command(*words, cwd=tmp_path).stdout)
    assert (
        alone["rows"]["released/D/centre"]["top1_val"]
        == json.loads(one.stdout)["rows"]["released/D/centre"]["top1_val"]
    )


MISTAKES = [
    ("reproduce table3/D/265 --doll", r"there is no row 'table3/D/265': did you mean table3/D/256\? Use class"),
    ("reproduce table19 --doll", r"there is no row 'table19'"),
    ("reproduce table7/MSRA-1-net --doll", r"is a result of other authors: there is nothing to reproduce"),
    ("reproduce table3", r"where is imagenet\? Use --data imagenet:DIR"),
    ("reproduce table3 --doll --seed -1", r"seed must be 0 or more"),
    ("reproduce table3 --doll --data digits:7", r"digits:7: the number of training scenes must be 60 to 6000"),
    ("reproduce table3 --doll --lr 1", r"unknown setting '--lr'"),
    ("reproduce table3 --doll --weights D=x", r"--weights is for released; the runs of table3 are trained"),
    ("reproduce table3 --doll --dropout no", r"--dropout is for localisation models, and table3 has none"),
    ("reproduce table9 --doll --softmax-first", r"--softmax-first is for the dense evaluation of classifiers, not for"),
    ("reproduce table9 --doll --match literal", r"the literal distance is in pixels, for which no --t is tuned"),
    ("reproduce released --doll", r"the released models have the paper's size: there is no --doll of them"),
    ("reproduce released --weights D --data {imagenet}", r"pass weights as NET=FILE, once per net, .*not 'D'"),
    ("reproduce released --data {imagenet}", r"D/released needs its weight file: add --weights D=FILE"),
    ("reproduce released --data {imagenet} --weights D=nowhere", r"there is no run or weight file nowhere"),
    ("reproduce released --data {imagenet} --weights D={E}", r"E\.safetensors contains net E, not D"),
    ("reproduce released --data {imagenet} --weights D={no_fc}", r"is missing fc6, fc7, fc8: use a file with all"),
    ("reproduce released --data {imagenet} --weights D={other}", r"has 5 outputs, but imagenet.* has 3 classes"),
    ("reproduce released --data {imagenet} --weights B={E}", r"--weights names net B; these rows need D, E"),
    ("reproduce released --data {imagenet} --weights D={flat}", r"has 5 outputs, but imagenet.* has 3 classes"),
    ("reproduce released --data {imagenet} --max-epochs 3", r"max-epochs is for training, and the released models are"),
    (
        "reproduce table3/A/256 --doll --out {doll} --data digits:60 --seed 3",
        r"started with seed 0, not 3: use another",
    ),
    ("reproduce table3/A/256 --doll --out {doll} --max-steps 2", r"on other images .* --data digits:60\)"),
    (
        "table 19",
        r"there is no table '19' here: the tables are 1, 2, 3, 4, 5, 6, 7, text, 8, 9, 10, localisation-text, ",
    ),
    ("table 3 --from nowhere", r"there is no nowhere: use the folder `verydeep reproduce` wrote to, or its results"),
    ("table 3 --from {imagenet_folder}", r"there is no .*results\.json: use the folder `verydeep reproduce` wrote to"),
    ("reproduce table3/A/256 --doll --out {page}", r"cannot write to .*page\.md: .*page\.md is not a folder"),
    ("reproduce released --data {imagenet} --weights D={D} --weights D={D}", r"NET=FILE, once per net"),
    ("table 3 --from {broken}", r"is corrupted: it does not contain a JSON object"),
    ("table 3 --from {strange}", r"was not written by `verydeep reproduce`"),
    ("table 3 --write nowhere.md", r"cannot write a table to nowhere\.md, which cannot be read"),
    ("table 3 --write {page}", r"page\.md needs the lines <!-- table-3 --> and <!-- /table-3 --> once each"),
]


@pytest.fixture(scope="module")
def places(doll: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good and bad folders and files, by name."""
    top = tmp_path_factory.mktemp("places")
    make_imagenet(top / "imagenet")
    made = {name: top / f"{name}.safetensors" for name in ("no_fc", "other", "flat")}
    record = {"net": "D", "channel_order": "RGB", "mean_rgb": "1,2,3", "input_range": "0-255"}
    tensors = create_net("D", classes=5, crop=224, width=1 / 64).state_dict()
    save_file(dict(tensors), made["other"], metadata=record)
    save_file({name: value for name, value in tensors.items() if name[:2] != "fc"}, made["no_fc"], metadata=record)
    save_file({**tensors, "fc6.weight": tensors["fc6.weight"].flatten(1)}, made["flat"], metadata=record)
    made |= {"broken": top / "broken.json", "strange": top / "strange.json", "page": top / "page.md"}
    made["broken"].write_text("[")
    made["strange"].write_text('{"rows": []}')
    made["page"].write_text("no markers\n")
    return {**made, **released_files(top), "imagenet": top / "imagenet", "doll": doll[0]}


@pytest.mark.parametrize(("typed", "says"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_an_error_is_one_sentence(
    command: Command, places: dict[str, Path], tmp_path: Path, typed: str, says: str
) -> None:
    folder = places["imagenet"]
    words = typed.format(**{**places, "imagenet": f"imagenet:{folder}", "imagenet_folder": folder}).split()
    sentence = command(*words, cwd=tmp_path, IMAGENET="").mistake()
    assert re.search(says, sentence), sentence
    assert not list(tmp_path.iterdir())


def test_table_3_prints_ours_beside_the_papers(command: Command, doll: tuple[Path, dict[str, Any]]) -> None:
    folder, found = doll
    text = command("table", "3", "--from", folder).stdout
    ours = found["rows"]["table3/D/256-512"]
    low, high = ours["top1_val_interval"]
    assert re.search(rf"D +\[256;512\] +384 +25\.6 +{ours['top1_val']:.1f} \({low:.1f}–{high:.1f}\) +8\.1 ", text)
    assert "20 photos of digits:60 (val)" in text
    assert "nets of 2 steps, cut short by --max-steps: no result" in text
    assert "256 is 73, 384 is 110, 512 is 146" in text
    rows = json.loads(command("table", "3", "--from", folder, "--json").stdout)
    assert set(rows[0]) == {"row", "cells", "paper", "measured"}
    assert rows[0]["paper"] == {"top1_val": 29.6, "top5_val": 10.4, "top5_test": None}
    assert rows[0]["measured"]["top1_val"] == found["rows"]["table3/A/256"]["top1_val"]


@pytest.mark.slow
def test_every_table_can_be_printed_before_any_run(command: Command, tmp_path: Path) -> None:
    for name in ("1", "2", "3", "4", "5", "6", "7", "text", "released"):
        rows = json.loads(command("table", name, "--json", cwd=tmp_path).stdout)
        assert all({"row", "paper", "measured"} <= set(row) for row in rows)
    assert "133,638,952" in command("table", "2", cwd=tmp_path).stdout
    assert "conv3-256 conv3-256 conv1-256" in command("table", "1", cwd=tmp_path).stdout


def test_a_table_is_written_between_its_markers(
    command: Command, doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    blocks = [f"<!-- table-{name} -->\nwritten before\n<!-- /table-{name} -->\n" for name in ("5", "claims")]
    page.write_text("before\n" + "after\n".join(blocks))
    for name in ("5", "claims"):
        assert command("table", name, "--from", doll[0] / "results.json", "--write", page).status == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table-5 -->\n**Table 5: ")
    assert "| D | multi-crop & dense | 24.4 | " in text
    assert "Dense and multi-crop evaluation complement each other (Sect. 4.3): " in text
    assert "written before" not in text


def test_seeds_have_a_mean_and_a_spread() -> None:
    row = {"size": "doll", "data": "digits", "images": 10, "top5_val": None, "top5_test": None}
    row |= {"steps": [9], "cut_short": False}
    rows = [
        {**row, "top1_val": value, "top1_val_interval": [0, 9], "seed": seed} for seed, value in enumerate((3.0, 5.0))
    ]
    found = measured(rows)
    assert found is not None
    assert (found["top1_val"], found["top1_val_std"], found["seeds"]) == (4.0, 1.4142, 2)
    assert "top1_val_interval" not in found
    assert measured([]) is None
    with pytest.raises(VerydeepError, match="are of one seed"):
        measured([rows[0], rows[0]])
    assert (measured([rows[0], {**rows[1], "steps": [8]}]) or {})["steps"] == [9, 8]
    with pytest.raises(VerydeepError, match="only some of these results are of trainings cut short"):
        measured([rows[0], {**rows[1], "cut_short": True}])
    assert table_rows("3", [{"rows": {}, "claims": {}}])[0]["measured"] is None


def pair(difference: float, p: float) -> dict[str, Any]:
    return {"first": "a", "second": "b", "errors": [5.0, 4.0], "difference": difference, "interval": [0.5, 1.5], "p": p}


def test_the_stored_dolls_were_trained_as_the_page_says() -> None:
    """Runs of a line of the page have its number of epochs, all of equally many steps."""
    stored = json.loads((Path(__file__).parents[2] / "docs" / "results" / "doll.json").read_text())["rows"]
    epochs = {run: row["doll"]["max_epochs"] for row in recipe_rows() for run in row["runs"]}
    steps = {
        run: of_run
        for row in OWN
        for run, of_run in zip(dict.fromkeys(test.run for test in row.tests), stored[row.name]["steps"], strict=True)
    }
    assert len({steps[run] / epochs[run] for run in steps}) == 1


@pytest.mark.parametrize(
    ("name", "pairs", "says"),
    [
        ("fusion", [pair(1.0, 0.01), pair(0.6, 0.02)], "(Sect. 4.4): holds here."),
        ("fusion", [pair(-1.0, 0.01)], "is reversed here."),
        ("fusion", [pair(1.0, 0.01), pair(0.1, 0.6)], "holds in 1 of 2, not decided in 1 of 2."),
        ("LRN", [pair(0.1, 0.6)], "does not help (Sect. 4.1): no improvement is seen here."),
        ("LRN", [pair(1.0, 0.01)], "an improvement is seen in 1 of 1."),
    ],
)
def test_a_claim_is_one_sentence(name: str, pairs: list[dict[str, Any]], says: str) -> None:
    lines = claim_lines([{"rows": {}, "claims": {name: {"pairs": pairs, "seed": 0}}}])
    assert lines[0].endswith(says)
    difference, p = pairs[0]["difference"], pairs[0]["p"]
    assert lines[2] == f"- a 5.0 %, b 4.0 %: difference {difference:+.1f} points (+0.5 to +1.5), p = {p:.2g}"


def test_a_profile_gives_all_runs_its_settings_and_other_flags_change_them(tmp_path: Path) -> None:
    words = ("reproduce", "table3/A", *FEW, "--max-steps", 1, "--profile", "paper-literal", "--initialise", "glorot")
    assert run_command(*words, cwd=tmp_path).status == 0
    settings = json.loads((tmp_path / "runs" / "doll" / "A" / "256" / "config.json").read_text())["settings"]
    assert (settings["initialise"], settings["bias_lr"]) == ("glorot", 1.0)
    assert (settings["bias_weight_decay"], settings["colour_shift"]) == (settings["weight_decay"], "eigenvalue")
    told = run_command("reproduce", "table3/A", *FEW, "--max-steps", 1, cwd=tmp_path).mistake()
    assert "contains a run that was started with bias-weight-decay 0.0005, not 0.0: use another --out" in told
    told = run_command("reproduce", "table11", "--profile", "oxford-code", cwd=tmp_path).mistake()
    assert "--profile is for training, and table11 trains only SVMs" in told
    with pytest.raises(VerydeepError, match="no profile 'oxford': the profiles are paper-literal, oxford-code"):
        reproduce("table3/A", doll=True, profile="oxford")


@pytest.mark.slow
def test_softmax_first_is_another_evaluation_of_the_same_runs(
    doll: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(doll[0], tmp_path / "runs")
    answer = run_command("reproduce", "table5/D/both", *FEW, "--softmax-first", "--out", "runs", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["plan"]["train"] == []
    assert [test["protocol"] for test in found["plan"]["test"]] == [
        f"dense@{scale}:softmax-first" for scale in (73, 110, 146)
    ]
    assert "table5/D/crops" in found["rows"]  # which has no dense part
    assert not {"table5/D/dense", "table3/D/256", "table6/both"} & set(found["rows"])  # the other dense evaluation's
    assert found["rows"]["table5/D/both"]["tests"][0]["protocol"] == "both@73,110,146:softmax-first"
    again = run_command("reproduce", "table5/D/both", *FEW, "--out", "runs", "--plan", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["plan"]["test"] == []  # its own scores are still there


def test_settings_of_the_data_are_the_experiments() -> None:
    with pytest.raises(VerydeepError, match="--regression is part of the experiment"):
        reproduce("table8/PCR", doll=True, plan_only=True, regression="SCR")
    for fixed in ({"dev_fraction": 0.2}, {"net": "B"}, {"width": 0.25}, {"start": "none"}, {"S": "96"}):
        with pytest.raises(VerydeepError, match=f"{next(iter(fixed)).replace('_', '-')} is part of the experiment"):
            reproduce("table3/A/256", doll=True, plan_only=True, **fixed)


@pytest.fixture(scope="module")
def boxed(doll: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Tables 8 to 10 on top of a copy of the runs that are there, from one command."""
    place = tmp_path_factory.mktemp("boxed")
    folder = copied(doll, place)
    answer = run_command("reproduce", "localisation", *FEW, "--json", cwd=place)
    assert answer.status == 0, answer.stderr
    return folder, json.loads(answer.stdout)


@pytest.mark.slow
def test_the_rows_of_appendix_a_are_run(boxed: tuple[Path, dict[str, Any]]) -> None:
    folder, found = boxed
    rows = {row.name: row for row in experiment("localisation").rows if row.tests}
    assert rows.keys() <= found["rows"].keys()
    assert set(found["claims"]) >= {claim.name for claim in experiment("localisation").claims}
    for name, row in rows.items():
        result, error = found["rows"][name], "gt_class_val" if row.paper.top5_val is None else "top5_val"
        assert result["images"] == 20
        assert 0 <= result[error] <= 100
        other = "top5_val" if error == "gt_class_val" else "gt_class_val"
        assert result[other] is None
    assert set(found["rows"]) > {row.name for row in OWN}  # those of the classification experiment stay
    assert [work["run"] for work in found["plan"]["train"]] == [
        *("D/384-SCR-fc", "D/384-PCR-fc", "D/384-PCR", "D/256-PCR", "D/256-SCR-fc", "D/256-PCR-fc")
    ]
    start = hashlib.sha256((folder / "D" / "384" / "best.safetensors").read_bytes()).hexdigest()
    assert json.loads((folder / "D" / "384-PCR" / "config.json").read_text())["start_sha256"] == start


def test_only_the_fc_layers_are_trained_where_the_name_says_so(boxed: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = boxed
    start = load_checkpoint(folder / "D" / "384" / "best.safetensors").weights
    for name, same in (("384-SCR-fc", True), ("384-PCR", False)):
        weights = load_checkpoint(folder / "D" / name / "last.safetensors").weights
        assert torch.equal(start["conv1_1.weight"], weights["conv1_1.weight"]) == same
        assert not torch.equal(start["fc7.weight"], weights["fc7.weight"])


def test_tables_8_to_10_have_the_papers_errors_and_ours(boxed: tuple[Path, dict[str, Any]], command: Command) -> None:
    folder, found = boxed
    rows = json.loads(command("table", 9, "--from", folder, "--json").stdout)
    assert rows[3]["paper"] == {"top1_val": None, "top5_val": 26.9, "top5_test": 25.3}
    assert rows[3]["measured"]["top5_val"] == found["rows"]["table9/fusion"]["top5_val"]
    shown = command("table", "8", "--from", folder).stdout
    assert "GT class" in shown
    assert "36.4" in shown
    assert "per-class regression is better" in command("table", "claims", "--from", folder).stdout.lower()
    net = folder / "D" / "384-PCR" / "best.safetensors"
    made = net.stat().st_mtime_ns
    again = command("reproduce", "table8/PCR", *FEW, "--json", cwd=folder.parents[1])
    assert again.status == 0, again.stderr
    assert net.stat().st_mtime_ns == made
    assert json.loads(again.stdout)["claims"].keys() == found["claims"].keys()  # of all rows that are there
    other = command("reproduce", "table8/PCR", *FEW, "--pooling", "down", cwd=folder.parents[1])
    assert "pooling up, not down" in other.mistake()


@pytest.mark.slow
def test_choices_of_boxes_reach_localisation_models_alone(boxed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, before = boxed
    shutil.copytree(folder, tmp_path / "runs")
    words = ("reproduce", "table9/256", *FEW, "--out", "runs")
    told = run_command(*words, "--dropout", "no", cwd=tmp_path).mistake()
    assert "contains a run that was started with dropout yes, not no: use another --out" in told
    shutil.rmtree(tmp_path / "runs" / "D" / "256-PCR")
    answer = run_command(*words, "--dropout", "no", "--t", "0.3", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    row = json.loads(answer.stdout)["rows"]["table9/256"]
    assert (row["t"], row["merging"]["t"], row["merging"]["match"]) == (0.3, 0.3, "relative")
    settings = load_checkpoint(tmp_path / "runs" / "D" / "256-PCR" / "best.safetensors").metadata.localiser_settings
    assert not settings.dropout
    kept = json.loads((tmp_path / "runs" / "results.json").read_text())["rows"]
    assert "table8/PCR" in kept  # of one box, without merging
    assert "table9/384" not in kept
    assert before["rows"]["table9/256"]["merging"]["t"] is None


def test_a_localisation_run_of_another_start_is_refused(boxed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = boxed
    shutil.copytree(folder, tmp_path / "runs")
    config = tmp_path / "runs" / "D" / "384-PCR" / "config.json"
    config.write_text(config.read_text().replace('"start_sha256": "', '"start_sha256": "0'))
    answer = run_command("reproduce", "table8/PCR", *FEW, "--out", "runs", cwd=tmp_path)
    assert "was not started from the current D/384" in answer.mistake()


def test_a_plan_of_the_localisation_experiment_needs_no_data(command: Command, tmp_path: Path) -> None:
    answer = command("reproduce", "table9/fusion", "--doll", "--plan", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    runs = [row["run"] for row in json.loads(answer.stdout)["plan"]["train"]]
    assert runs.index("D/384") < runs.index("D/384-PCR")
    assert "E/256-512" in runs  # one of the nets that give the labels
    assert "D/384-SCR-fc" not in runs


def test_the_list_says_what_each_row_lacks(command: Command, tmp_path: Path) -> None:
    for name in ("accordion", "anchor", "BACKGROUND_Google"):
        for number in range(32):  # a split trains on 30
            paint(tmp_path / "caltech" / name / f"image_{number:04d}.jpg", number, (90, 90, 200))
    (tmp_path / "e.safetensors").write_bytes(b"")
    files = ("--data", f"caltech101:{tmp_path / 'caltech'}", "--weights", f"E={tmp_path / 'e.safetensors'}")
    answer = command("reproduce", "--list", *files, "--json", IMAGENET="")
    assert answer.status == 0, answer.stderr
    rows = {row["row"]: row for row in json.loads(answer.stdout)}
    assert [name for name, row in rows.items() if not row["missing"]] == ["table11/E/caltech101"]
    assert rows["table11/D/caltech101"]["missing"] == ["--weights D=FILE"]
    assert rows["table11/E/voc2007"]["missing"] == ["--data voc2007:DIR"]
    assert rows["released/D+E/dense"]["missing"] == ["--data imagenet:DIR", "--weights D=FILE"]
    assert rows["table3/D/256-512"] == {
        **{"row": "table3/D/256-512", "missing": ["--data imagenet:DIR"]},
        "trains": ["A/256", "D/256", "D/384", "D/256-512"],
    }
    text = command("reproduce", "table11/E", "--list", *files, IMAGENET="").stdout
    assert re.search(r"table11/E/caltech101 +can be run", text)
    assert "1 of 4 rows can be run with the data and weights at hand" in text
    doll = json.loads(command("reproduce", "classification", "--list", "--doll", "--json").stdout)
    assert not any(row["missing"] for row in doll)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name what to reproduce, such as table3/D/256; `verydeep reproduce --list` prints all names."),
        (("--list", "--data", "caltech101:nowhere"), "nowhere"),
        (("--list", "--weights", "E=nowhere.h5"), "nowhere.h5"),
        (("tabel3", "--list"), "there is no row 'tabel3'"),
        (("released", "--list", "--doll"), "the released models have the paper's size: there is no --doll of them."),
    ],
)
def test_a_list_needs_what_it_names(command: Command, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in command("reproduce", *words, cwd=tmp_path).mistake()
