"""Sect. 4.4: fusion of stored posteriors, its errors, and submission files."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY, Command, make_imagenet, paint, run_command
from verydeep import VerydeepError, train
from verydeep.evaluation.ensemble import fuse
from verydeep.evaluation.scores import Scores, load_scores, mean_scores, save_scores
from verydeep.evaluation.submission import write_classification

PHOTOS, CLASSES = 40, tuple("abcdefg")


def scores(seed: int, run: str = "A", **changes: Any) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.arange(PHOTOS) % len(CLASSES)
    raw = rng.random((PHOTOS, len(CLASSES))) + 0.7 * np.eye(len(CLASSES))[labels]
    made = Scores(
        ids=tuple(f"p/{number:03d}" for number in range(PHOTOS)),
        labels=labels,
        subjects=np.arange(PHOTOS),
        classes=CLASSES,
        posteriors=(raw / raw.sum(axis=1, keepdims=True)).astype(np.float32),
        set_name="val",
        data="d",
        run=run,
        protocol="dense@256",
        checkpoint=run * 64,
    )
    return replace(made, **changes)


def saved(folder: Path, *found: Scores) -> list[Path]:
    paths = [folder / f"{number}.npz" for number in range(len(found))]
    for path, one in zip(paths, found, strict=True):
        save_scores(path, one)
    return paths


def test_fusion_of_a_file_with_itself(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, scores(1))
    fuse([path, path], out=tmp_path / "f")
    np.testing.assert_array_equal(load_scores(tmp_path / "f").posteriors, scores(1).posteriors)
    found = fuse([path, path])
    assert found["fusion"]["top1_error"] == found["parts"][0]["top1_error"]
    assert {pair["p"] for pair in found["pairs"]} == {1.0}


def test_fusion_is_the_mean_by_numpy_alone(tmp_path: Path) -> None:
    """The second computation reads the file's plain arrays only."""
    paths = saved(tmp_path, scores(1), scores(2, "B"), scores(3, "C"))
    found = fuse(paths, [1, 2, 1], tmp_path / "f")
    arrays = [np.load(path, allow_pickle=False) for path in paths]
    mean = (arrays[0]["posteriors"] + 2.0 * arrays[1]["posteriors"] + arrays[2]["posteriors"]) / 4
    np.testing.assert_allclose(load_scores(tmp_path / "f").posteriors, mean, atol=1e-7)
    labels = arrays[0]["labels"]
    assert found["fusion"]["top1_error"] == pytest.approx(100 * np.mean(mean.argmax(axis=1) != labels))
    best5 = np.argsort(-mean, axis=1)[:, :5]
    assert found["fusion"]["top5_error"] == pytest.approx(100 * np.mean((best5 != labels[:, None]).all(axis=1)))
    wrong = [array["posteriors"].argmax(axis=1) != labels for array in arrays]
    pair = next(row for row in found["pairs"] if (row["first"], row["second"], row["error"]) == (1, 2, "top1_error"))
    assert pair["only_first_wrong"] == int((wrong[0] & ~wrong[1]).sum())
    assert len(found["pairs"]) == 2 * 6  # any two of three files and their fusion, top-1 and top-5


def test_the_order_of_files_changes_nothing(tmp_path: Path) -> None:
    paths = saved(tmp_path, scores(1), scores(2, "B"), scores(3, "C"))
    fuse(paths, out=tmp_path / "f")
    fuse(paths[::-1], out=tmp_path / "b")
    np.testing.assert_allclose(
        load_scores(tmp_path / "f").posteriors, load_scores(tmp_path / "b").posteriors, atol=1e-7
    )


def test_fusing_the_parts_of_a_protocol_is_the_protocol(trained: Path, command: Command) -> None:
    for protocol in ("dense@36", "crops@36", "both@36"):
        assert command("evaluate", trained, protocol, "--workers", 0).status == 0
    folder = trained / "evaluations" / "test"
    answer = command("fuse", folder / "dense@36", folder / "crops@36" / "scores.npz", "--json")
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    both = json.loads((folder / "both@36" / "result.json").read_text())
    assert found["fusion"]["top1_error"] == both["top1_error"]
    fused = mean_scores([load_scores(folder / f"{name}@36") for name in ("dense", "crops")], ["d", "c"])
    np.testing.assert_allclose(fused.posteriors, load_scores(folder / "both@36").posteriors, atol=1e-6)
    table = command("fuse", folder / "dense@36", folder / "crops@36").stdout
    assert re.search(r"1 A dense@36 +0\.50 ", table)
    assert "McNemar's test" in table
    costs = {
        name: json.loads((folder / f"{name}@36" / "result.json").read_text())["multiply_adds_per_image"]
        for name in ("dense", "crops", "both")
    }
    assert costs["both"] == costs["dense"] + costs["crops"] > 0


OTHERS = [
    (scores(2, classes=CLASSES[::-1]), r"2\.npz cannot be fused with .*1\.npz: its classes are in another order"),
    (scores(2, classes=("x", *CLASSES[1:])), r"its classes differ"),
    (scores(2, set_name="test"), r"it is of the set test, not val"),
    (scores(2, ids=tuple(f"p/{number:03d}" for number in range(1, PHOTOS + 1))), r"2 are in only one, first p/000"),
    (scores(2, ids=tuple(f"p/{number:03d}" for number in reversed(range(PHOTOS)))), r"\(in another order\)"),
    (scores(2, labels=(np.arange(PHOTOS) + 1) % 7), r"its labels differ"),
    (
        scores(2, labels=np.full(PHOTOS, 9)),
        r"2\.npz has no images or classes, an image twice, or labels outside its classes",
    ),
    (scores(2, subjects=np.arange(3)), r"2\.npz has arrays of inconsistent shapes"),
    (
        scores(2, posteriors=np.ones((PHOTOS, 7), dtype=np.float32)),
        r"2\.npz has values that are not posteriors: each must be 0 or more",
    ),
    (scores(2, posteriors=np.full((PHOTOS, 7), np.nan, dtype=np.float32)), r"2\.npz has NaN .* first of image p/000"),
]


@pytest.mark.parametrize(("other", "says"), OTHERS, ids=[says for _, says in OTHERS])
def test_scores_that_cannot_be_fused(command: Command, tmp_path: Path, other: Scores, says: str) -> None:
    save_scores(tmp_path / "1.npz", scores(1))
    save_scores(tmp_path / "2.npz", other)
    assert re.search(says, command("fuse", "1.npz", "2.npz", "--out", "f", cwd=tmp_path).mistake())
    assert not (tmp_path / "f").exists()


MISTAKES = [
    ("fuse", r"the following arguments are required: FILE"),
    ("fuse nowhere.npz", r"there is no scores file nowhere\.npz: `verydeep evaluate` writes them"),
    ("fuse a.npz --weights 1,2", r"expected one weight per scores file \(1\), got 2"),
    ("fuse a.npz --weights x", r"--weights must be numbers separated by commas, such as 1,2,1, not 'x'"),
    ("fuse a.npz a.npz --weights -1,2", r"weights must be finite, 0 or more and not all 0, not -1, 2"),
    ("fuse a.npz --weights 0", r"weights must be finite, 0 or more and not all 0"),
    ("fuse a.npz --weights nan", r"weights must be finite, 0 or more and not all 0"),
    ("fuse a.npz --server-file s.txt", r"--server-file and --devkit must be used together"),
    ("fuse a.npz --server-file s.txt --devkit nowhere", r"nowhere is not a folder: use that of ILSVRC's devkit"),
    ("fuse a.npz --server-file s.txt --devkit .", r"has neither meta\.mat nor map_clsloc\.txt"),
]


@pytest.mark.parametrize(("typed", "says"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_sentence(command: Command, tmp_path: Path, typed: str, says: str) -> None:
    save_scores(tmp_path / "a.npz", scores(1))
    assert re.search(says, command(*typed.replace("--weights -1", "--weights=-1").split(), cwd=tmp_path).mistake())
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz"}


def test_a_fusion_overwrites_no_input_run_or_evaluation(command: Command, trained: Path, tmp_path: Path) -> None:
    save_scores(tmp_path / "t" / "scores.npz", scores(1))
    (tmp_path / "link").symlink_to("t")
    for place in ("t", "link", "t/../t"):
        assert "contains one of the files to fuse" in command("fuse", "t", "--out", place, cwd=tmp_path).mistake()
    assert "contains the result of a run or an" in command("fuse", "t", "--out", trained, cwd=tmp_path).mistake()
    for _ in range(2):  # the same fusion may be made again
        assert command("fuse", "t", "--out", "f", cwd=tmp_path).status == 0
    (tmp_path / "map_clsloc.txt").write_text("n00000001 1 x\n")
    for file in ("t/scores.npz", "map_clsloc.txt"):
        words = ["fuse", "t", "--server-file", file, "--devkit", tmp_path]
        assert "is an input, or among the devkit's files" in command(*words, cwd=tmp_path).mistake()


@pytest.mark.parametrize("text", ["n00000000 x y\n", "n00000001\n", "\udcff"])
def test_a_broken_devkit_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "map_clsloc.txt").write_bytes(text.encode("utf8", "surrogateescape"))
    says = r"map_clsloc\.txt(, line 1: byte 0xff is not UTF-8 text| is corrupted: each line must be a WNID)"
    with pytest.raises(VerydeepError, match=says):
        write_classification(tmp_path / "s.txt", scores(1), tmp_path)
    (tmp_path / "map_clsloc.txt").unlink()
    crashes = (Path(__file__).parents[1] / "files" / "crash.mat").read_bytes()  # which ends scipy's process
    for content, told in (
        (b"junk", "is corrupted or truncated: not a complete MATLAB file"),
        (crashes, "is corrupted: reading it as a MATLAB"),
    ):
        (tmp_path / "meta.mat").write_bytes(content)
        with pytest.raises(VerydeepError, match=rf"meta\.mat {told}"):
            write_classification(tmp_path / "s.txt", scores(1), tmp_path)


def test_huge_weights(tmp_path: Path) -> None:
    paths = saved(tmp_path, scores(1), scores(2, "B"))
    equal, huge = fuse(paths), fuse(paths, [1e308, 1e308])
    assert huge["fusion"] == equal["fusion"]
    assert [part["weight"] for part in huge["parts"]] == [0.5, 0.5]
    assert fuse(paths, np.array([1, 3], dtype=np.float32))["parts"][1]["weight"] == 0.75
    for weights in (["x", 1], 2, [None, 1], [10**400, 1]):
        with pytest.raises(VerydeepError, match="weights must be"):
            fuse(paths, weights)  # type: ignore[arg-type]


def test_files_may_be_an_iterator(tmp_path: Path) -> None:
    paths = saved(tmp_path, scores(1), scores(2, "B"))
    assert fuse(path for path in paths)["fusion"] == fuse(paths)["fusion"]
    assert fuse(str(paths[0]))["parts"][0]["run"] == "A"


@pytest.mark.parametrize("seed", range(8))
def test_a_corrupt_byte_is_an_error_or_other_numbers(tmp_path: Path, seed: int) -> None:
    save_scores(tmp_path / "s.npz", scores(1))
    whole = (tmp_path / "s.npz").read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(40):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] ^= int(rng.integers(1, 256))
        (tmp_path / "s.npz").write_bytes(broken)
        with contextlib.suppress(VerydeepError):
            assert load_scores(tmp_path / "s.npz").posteriors.shape == (PHOTOS, len(CLASSES))


def test_an_empty_fusion_is_refused() -> None:
    with pytest.raises(VerydeepError, match="there is nothing to fuse"):
        fuse([])


def test_scores_of_another_checkpoint_are_refused(command: Command, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    command("evaluate", run, "centre@36", "--workers", 0)
    shutil.copy(run / "last.safetensors", run / "best.safetensors")
    path = run / "evaluations" / "test" / "centre@36"
    sentence = command("fuse", path).mistake()
    assert re.search(
        r"was computed with a different checkpoint than .*best\.safetensors .*evaluate it again with "
        "`verydeep evaluate`",
        sentence,
    )
    moved = shutil.copytree(path, tmp_path / "moved")  # away from its run there is nothing to compare with
    assert command("fuse", moved).status == 0


def test_scores_are_readable_with_numpy_alone(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, scores(1))
    with np.load(path, allow_pickle=False) as plain:
        assert plain["posteriors"].dtype == np.float32
        assert plain["posteriors"].shape == (len(plain["ids"]), len(plain["classes"]))
        assert str(plain["checkpoint"]) == "A" * 64


def test_server_files_have_the_devkits_ids(tmp_path: Path) -> None:
    """Inside, WNIDs are sorted; the devkit of the replica numbers them 2, 3, 1."""
    make_imagenet(tmp_path / "imagenet")
    classes = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02084071 dog")
    posteriors = np.array([[0.2, 0.1, 0.7], [0.5, 0.4, 0.1]], dtype=np.float32)
    made = scores(1, classes=classes, ids=("z/b.png", "y/c.png"), posteriors=posteriors, labels=np.full(2, -1))
    made = replace(made, ids=("z/b.png", "a/c.png"))
    write_classification(tmp_path / "s.txt", made, tmp_path / "imagenet")
    assert (tmp_path / "s.txt").read_text() == "1 2 3\n2 3 1\n"  # by file name: b, then c
    with pytest.raises(VerydeepError, match=r"class 'a' is not one of ILSVRC's"):
        write_classification(tmp_path / "s.txt", scores(1), tmp_path / "imagenet")


def test_server_files_have_five_classes_per_image(tmp_path: Path) -> None:
    wnids = tuple(f"n0000000{number}" for number in range(7))
    (tmp_path / "map_clsloc.txt").write_text("".join(f"{wnid} {9 - n} x\n" for n, wnid in enumerate(wnids)))
    made = scores(1, classes=wnids)
    write_classification(tmp_path / "s.txt", made, tmp_path)
    lines = [[int(word) for word in line.split()] for line in (tmp_path / "s.txt").read_text().splitlines()]
    assert len(lines) == PHOTOS
    best = np.argsort(-made.posteriors, axis=1)[:, :5]
    assert lines == (9 - best).tolist()


def test_the_unlabelled_test_set_gives_a_server_file_and_no_error(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    make_imagenet(root)
    for photo in (2, 1, 3):
        paint(root / "test" / f"ILSVRC2012_test_{photo:08d}.png", photo, (4, 5, 6))
    train("A", out=tmp_path / "run", data=f"imagenet:{root}", max_epochs=1, dev_fraction=0.25, **TINY)
    answer = run_command("evaluate", tmp_path / "run", "dense@36", "--set", "test", "--json", "--workers", 0)
    assert answer.status == 0, answer.stderr
    summary = json.loads(answer.stdout)
    assert (summary["images"], summary["top1_error"], summary["classes"]) == (3, None, [])
    folder = Path(summary["folder"])
    told = run_command("fuse", folder, "--server-file", tmp_path / "s.txt", "--devkit", root)
    assert told.status == 0, told.stderr
    lines = (tmp_path / "s.txt").read_text().splitlines()
    assert [sorted(line.split()) for line in lines] == [["1", "2", "3"]] * 3
    text = run_command("evaluate", tmp_path / "run", "centre@36", "--set", "test", "--workers", 0)
    assert text.status == 0
    assert "centre@36 on 3 images" in text.stdout
    assert "top1 error" not in text.stdout
