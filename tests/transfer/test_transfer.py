"""App. B by the real commands: features, svm, probe, similar, and predict with their classifiers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import verydeep
from conftest import Command, make_photos, make_voc, paint, run_command
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DescriptorSettings, MachineSettings, SvmSettings
from verydeep.evaluation.metrics import mean_log_loss
from verydeep.evaluation.rejection import choose_threshold
from verydeep.evaluation.temperature import softmax
from verydeep.models.vgg import create_net
from verydeep.reports.svm_report import write_svm_report
from verydeep.transfer.descriptors import class_means, combine
from verydeep.transfer.evaluate import Transfer, learn_svms
from verydeep.transfer.features_file import Features, load_features, save_features
from verydeep.transfer.predict import SvmClassifier
from verydeep.transfer.splits import parts_of
from verydeep.transfer.svm_file import load_svm, write_transfer

HERE = MachineSettings(workers=0, threads=1)


def made_up(kinds: int = 4, photos: int = 40, dimensions: int = 12, **changed: Any) -> Features:
    """Descriptors around one centre per class, without images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(kinds), photos)
    rows = rng.normal(size=(kinds, dimensions))[labels] + 0.6 * rng.normal(size=(len(labels), dimensions))
    names = tuple(f"class {number}" for number in range(kinds))
    ids = tuple(f"{names[label]}/{number:04d}.jpg" for number, label in enumerate(labels))
    net = {"net": "D", "file": "d.safetensors", "sha256": "0", "preprocessing": "recorded"}
    recipe = {"net": net, "layer": "fc7", "pool": "mean", "mirror": True, "precision": "float32"}
    recipe |= {
        "data": "nowhere",
        "classes": [],
        "splits": None,
        "described": {},
        "resampling": "bilinear",
        "other_side": "round",
    }
    told: dict[str, Any] = {
        **{"ids": ids, "labels": labels, "marks": None, "classes": names, "sets": ("",) * len(ids)},
        **{"scales": {256: rows.astype(np.float32)}, "data": "made up", "key": "one", "recipe": recipe},
    }
    return Features(**{**told, **changed})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_features(tmp_path / "one.safetensors", made_up())
    return tmp_path / "one.safetensors"


def test_a_split_is_that_of_training_whatever_other_images_there_are(tmp_path: Path) -> None:
    from verydeep.core.settings import DataSettings
    from verydeep.data.open import open_data

    make_photos(tmp_path / "photos")
    data = open_data(DataSettings(data=str(tmp_path / "photos"), split_seed=1))
    whole, sets = data.everything()
    rows = {36: np.ones((len(whole), 2), dtype=np.float32)}
    features = made_up(ids=whole.ids, labels=whole.labels, classes=whole.classes, sets=sets, scales=rows)
    (part,) = parts_of("own", features, splits=1, seed=1)
    for name, mine in (("train", part.fit), ("dev", part.dev), ("test", part.test)):
        assert tuple(features.ids[index] for index in mine) == data.set(name).ids


def test_test_images_are_not_trained_on_and_do_not_choose_c(tmp_path: Path, file: Path) -> None:
    """Descriptors of reported photos are turned round: C and the classifier stay as they were."""
    one = learn_svms("own", [file], svm=SvmSettings(splits=1), machine=HERE)
    features = load_features(file)
    rows = features.scales[256].copy()
    rows[one.splits[0].parts.test] *= -1
    save_features(tmp_path / "turned.safetensors", made_up(scales={256: rows}))
    other = learn_svms("own", [tmp_path / "turned.safetensors"], svm=SvmSettings(splits=1), machine=HERE)
    assert one.splits[0].C == other.splits[0].C
    assert one.splits[0].dev == other.splits[0].dev
    np.testing.assert_array_equal(one.splits[0].svm.arrays()["weights"], other.splits[0].svm.arrays()["weights"])
    assert other.splits[0].figure != one.splits[0].figure


def test_metrics_recomputed_from_the_scores(tmp_path: Path, file: Path) -> None:
    told = write_transfer(learn_svms("own", [file], machine=HERE), tmp_path / "out")
    features = load_features(file)
    label = dict(zip(features.ids, features.labels, strict=True))
    lines = (tmp_path / "out" / "answers.csv").read_text().splitlines()
    answers = [(line.split(",")[0], np.array(line.split(",")[1:], dtype=float)) for line in lines[1:]]
    wrong = [label[photo] != scores.argmax() for photo, scores in answers]
    recalls = [np.mean([scores.argmax() == k for photo, scores in answers if label[photo] == k]) for k in range(4)]
    first = told["splits"][0]
    assert first["top1_error"] == pytest.approx(100 * np.mean(wrong), abs=1e-3)
    assert first["mean_class_recall"] == pytest.approx(100 * np.mean(recalls), abs=1e-3)
    figures = [split["mean_class_recall"] for split in told["splits"]]
    assert told["mean_class_recall"] == pytest.approx(np.mean(figures), abs=1e-3)
    assert told["mean_class_recall_std"] == pytest.approx(np.std(figures, ddof=1), abs=1e-3)
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert [photo for photo, _ in answers] == splits["seed 0"]["test"]
    svm = load_svm(tmp_path / "out" / "classifier.safetensors").classifier.arrays()
    rows = features.scales[256] / np.linalg.norm(features.scales[256], axis=1, keepdims=True)
    place = {photo: index for index, photo in enumerate(features.ids)}
    for photo, scores in answers:
        np.testing.assert_allclose(rows[place[photo]] @ svm["weights"] + svm["bias"], scores, atol=1e-4)


def test_svms_have_calibrated_probabilities(tmp_path: Path) -> None:
    """They are those of the reported images' scores at the stored temperature, which the dev part chose."""
    easy = made_up(photos=100)
    rows = easy.scales[256] + np.random.default_rng(1).normal(size=(400, 12))
    features = replace(easy, scales={256: rows.astype(np.float32)})
    save_features(tmp_path / "hard.safetensors", features)
    transfer = learn_svms("own", [tmp_path / "hard.safetensors"], machine=HERE)
    told = write_transfer(transfer, tmp_path / "out")
    (first, *_), split = told["splits"], transfer.splits[0]
    assert (
        load_svm(tmp_path / "out" / "classifier.safetensors").temperature == first["temperature"] == split.temperature
    )
    assert split.temperature is not None
    labels = features.labels[split.parts.test]
    assert first["nll"] == pytest.approx(mean_log_loss(softmax(split.scores / split.temperature), labels), abs=1e-5)
    assert first["nll"] < mean_log_loss(softmax(split.scores / 0.05), labels)
    assert first["nll"] < np.log(4)  # of no knowledge
    one = learn_svms("own", [tmp_path / "hard.safetensors"], svm=SvmSettings(C=(1.0,)), machine=HERE)
    assert one.splits[0].temperature is None  # nothing was held out
    assert split.calibration is not None
    stored = load_svm(tmp_path / "out" / "classifier.safetensors")
    assert split.calibration.risk_coverage == told["risk_coverage"]["dev"] == stored.risk_coverage
    assert write_transfer(one, tmp_path / "one")["risk_coverage"] is None
    tested = combine([features.scales], DescriptorSettings())[split.parts.test]
    assert stored.means is not None
    near = (tested @ stored.means.T).max(axis=1)
    for row in told["risk_coverage"]["results"]:
        answered = near >= row["threshold"]
        assert (row["images"], row["answered"]) == (len(labels), answered.sum())
        assert row["wrong"] == (split.scores.argmax(axis=1) != labels)[answered].sum()
    _, page = write_svm_report(tmp_path / "out")
    assert "Risk and coverage" in page.read_text()
    assert "Thresholds of --reject-at" in page.read_text()
    assert "Risk and coverage" not in write_svm_report(tmp_path / "one")[1].read_text()


def test_svms_that_make_no_mistake_have_probabilities_too(tmp_path: Path) -> None:
    """The threshold is then the least similarity of the dev images."""
    save_features(tmp_path / "easy.safetensors", made_up(photos=100, dimensions=50))
    split = learn_svms("own", [tmp_path / "easy.safetensors"], machine=HERE).splits[0]
    assert split.dev[split.C] == 100
    assert split.calibration is not None
    chosen = choose_threshold(split.calibration.risk_coverage, 10)
    assert (chosen.images, chosen.answered, chosen.wrong) == (len(split.parts.dev), len(split.parts.dev), 0)


def test_class_weights_of_svms(tmp_path: Path, file: Path) -> None:
    """Equal factors change nothing; others change the SVMs; images of several classes have none."""
    features = load_features(file)
    table = tmp_path / "weights.csv"

    def found(weights: str, path: Path = file, protocol: str = "own") -> Transfer:
        svm = SvmSettings(splits=1, C=(1.0,), class_weights=weights)
        return learn_svms(protocol, [path], svm=svm, machine=HERE)

    table.write_text("class,weight\n" + "".join(f"{name},{2.5}\n" for name in features.classes))
    np.testing.assert_array_equal(found(str(table)).splits[0].scores, found("none").splits[0].scores)
    table.write_text("class,weight\n" + "".join(f"{name},{1 + k}\n" for k, name in enumerate(features.classes)))
    assert np.abs(found(str(table)).splits[0].scores - found("none").splits[0].scores).max() > 1e-3
    marks = np.where(features.labels[:, None] == np.arange(len(features.classes)), 1, -1).astype(np.int8)
    sets = tuple(np.resize(["train", "val", "test"], len(features)).tolist())
    save_features(tmp_path / "several.safetensors", made_up(marks=marks, sets=sets, data="voc2007"))
    with pytest.raises(VerydeepError, match="class_weights needs images of one class each"):
        found("balanced", tmp_path / "several.safetensors", "voc2007")


def test_two_nets_are_stacked_and_a_duplicate_scale_adds_nothing(tmp_path: Path, file: Path) -> None:
    rows = made_up().scales[256]
    save_features(tmp_path / "two.safetensors", made_up(key="two"))
    save_features(tmp_path / "both.safetensors", made_up(scales={256: rows, 384: rows}))
    one = learn_svms("own", [file], machine=HERE)
    for files in ([file, tmp_path / "two.safetensors"], [tmp_path / "both.safetensors"]):
        found = learn_svms("own", files, machine=HERE)
        assert found.dimensions == 2 * one.dimensions
        assert [split.figure for split in found.splits] == [split.figure for split in one.splits]
    averaged = learn_svms("own", [tmp_path / "both.safetensors"], DescriptorSettings("average"), machine=HERE)
    assert averaged.dimensions == one.dimensions
    np.testing.assert_allclose(averaged.splits[0].scores, one.splits[0].scores, atol=1e-4)


# What is wrong with the features, and the sentence.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"labels": np.full(160, -1)}, "class 0/0000.jpg has no label"),
    "too few for Caltech": ({}, "class 'class 0' of caltech101 has 20 images; the split needs more than 30"),
    "one set": ({"sets": ("train",) * 160}, "draws random splits, and these features are of fixed sets"),
    "fewer splits": ({"recipe": {**made_up().recipe, "splits": 2}}, "of the images of made up's splits 0 to 1 only"),
    "of several classes": (
        {"marks": np.zeros((160, 4), np.int8), "labels": np.full(160, -1)},
        "protocol caltech101 does not fit made up, which has several classes per image",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_features_that_a_protocol_cannot_use(command: Command, tmp_path: Path, name: str) -> None:
    changed, sentence = FAULTS[name]
    features = made_up(photos=20) if name == "too few for Caltech" else made_up(**changed)
    save_features(tmp_path / "f.safetensors", features)
    told = command("svm", "caltech101", "--features", "f.safetensors", cwd=tmp_path).mistake()
    assert sentence in told
    assert not (tmp_path / "runs").exists()


def test_files_that_cannot_be_stacked(tmp_path: Path, file: Path) -> None:
    features = made_up(key="two")
    others: dict[str, dict[str, Any]] = {
        "its 159 images are not the 160": {
            **{"ids": features.ids[1:], "labels": features.labels[1:], "sets": ("",) * 159},
            "scales": {256: features.scales[256][1:]},
        },
        "in another order": {"ids": features.ids[::-1]},
        "its images have other labels": {"labels": features.labels[::-1].copy()},
        "it contains the same descriptors as an earlier one": {"key": "one"},
    }
    for sentence, changed in others.items():
        save_features(tmp_path / "other.safetensors", made_up(**{"key": "two", **changed}))
        with pytest.raises(VerydeepError, match=f"cannot be concatenated with .*{sentence}"):
            learn_svms("own", [file, tmp_path / "other.safetensors"])


MISTAKES = {
    "svm nothing --features one.safetensors": "unknown protocol 'nothing'; the protocols are caltech101, caltech256",
    "svm own --features none.safetensors": "there is no features file none.safetensors: `verydeep features` writes",
    "svm own --features one.safetensors --C 0": "C must list values above 0, not 0",
    "svm own --features one.safetensors --C 1,1": "C lists a value twice: 1,1",
    "svm own --features one.safetensors --splits 0": "splits must be 1 to 100, not 0",
    "svm own --features one.safetensors --seed -1": "seed must be 0 or more, not -1",
    "svm own --features one.safetensors --scales 384": "has no descriptors at Q = 384: its scales are 256",
    "svm own --features one.safetensors --agregate stack": "unknown setting '--agregate': did you mean --aggregate?",
    "svm own --features one.safetensors --aggregate sum": "aggregate must be one of stack, average, max, not 'sum'",
    "svm voc2007 --features one.safetensors": "protocol voc2007 does not fit made up, which has one class per image",
    "svm own --features one.safetensors --out run": "run is a run's folder, whose net `verydeep predict` uses",
    "svm own": "the following arguments are required: --features",
    "features none --data photos --out f": "there is no run or weight file none",
    "features run --data photos --out f --layer fc9": "net A has no layer 'fc9': its layers are conv1_1, pool1",
    "features run --data photos --out f --scales 20": "scales must be 32 to 8192 pixels, not 20",
    "features run --data photos --out f --scales 40,40": "scales lists a value twice: 40,40",
    "features run --data photos --out . --layer pool5": ". is a folder: pass a file that ends in .safetensors",
    "features run --data photos --out f --splits 2": "--splits must be a number of random splits of caltech101 or",
    "features run --data photos --out f --set west": "has no set 'west': its sets are train, dev, test, all",
    "features wide --data photos --out f --scales 40": "Q = 40 is below the net's crop of 64 pixels, which fc7 needs",
    "similar photos/red/000.png --features one.safetensors": "the net of these descriptors, does not exist",
    "similar photos/red/000.png --features one.safetensors --top 0": "top must be 1 or more, not 0",
    "probe --data photos --weights none": "there is no run or weight file none",
    "predict out photos/red/000.png --protocol dense@40": "omit --protocol",
    "predict out photos/red/000.png --last": "is an SVM classifier, which has no last checkpoint: omit --last",
    "predict misfit photos/red/000.png": "the classifier does not fit the descriptors of its net",
    "similar photos/red/000.png --features misfit.safetensors": "misfit.safetensors does not fit the descriptors of",
    "svm own --features part.safetensors": "are missing the set val; they have train",
    "svm own --features lone.safetensors": "class 'class 0' of made up has no training images",
    "features run --data bad --out f --bad-images skip": "no image of",
    "probe --data one --weights run --out f": "too few images for a dev set",
    "train D --data voc2007:voc": "several labels per image",
}


def test_svms_leave_listed_images_out(tmp_path: Path) -> None:
    features, file, suspects = made_up(), tmp_path / "one.safetensors", tmp_path / "suspects.csv"
    save_features(file, features)
    whole = learn_svms("own", [file], svm=SvmSettings(splits=1, C=(1.0,))).splits[0].parts
    gone = [features.ids[part[0]] for part in (whole.fit, whole.dev, whole.test)]
    suspects.write_text("image,score\n" + "".join(f"{image},1\n" for image in gone))
    settings = SvmSettings(splits=1, C=(1.0,), exclude=str(suspects))
    transfer = learn_svms("own", [file], svm=settings)
    assert write_transfer(transfer, tmp_path / "svm")["excluded"] == 3
    for name in ("fit", "dev", "test"):
        np.testing.assert_array_equal(getattr(transfer.splits[0].parts, name), getattr(whole, name)[1:])
    suspects.write_text("nowhere.jpg\n")
    with pytest.raises(VerydeepError, match="the data have no image 'nowhere"):
        learn_svms("own", [file], svm=settings)


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all the commands below have what they need, made by some of them."""
    import verydeep
    from conftest import TINY

    folder = tmp_path_factory.mktemp("transfer")
    (folder / "run").symlink_to(trained)
    (folder / "photos").symlink_to(trained.parent / "photos")
    make_voc(folder / "voc", "2007")
    save_features(folder / "one.safetensors", made_up())
    settings = {**TINY, "crop": 64, "S": "64", "max_epochs": 1}
    verydeep.train("A", out=folder / "wide", data=str(folder / "photos"), **settings)
    whole = ("train",) * 160
    save_features(folder / "part.safetensors", made_up(sets=whole))
    split = tuple("dev" if number < 40 else "train" for number in range(160))
    save_features(folder / "lone.safetensors", made_up(sets=split))
    for name in ("bad/a/1.png", "bad/b/2.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"no photo")
    paint(folder / "one" / "a" / "1.png", 1, (9, 9, 9))
    done = run_command("probe", "--data", "photos", "--weights", "run", "--out", "out", "--splits", 2, cwd=folder)
    assert done.status == 0, done.stderr
    assert "mean class recall" in done.stdout
    known = load_features(folder / "out" / "features.safetensors")
    narrow = replace(known, scales={36: known.scales[36][:, :3].copy()})
    save_features(folder / "misfit.safetensors", narrow)
    write_transfer(learn_svms("own", [folder / "misfit.safetensors"], machine=HERE), folder / "misfit")
    assert "try it: verydeep predict out PHOTO" in done.stdout
    return folder


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(place: Path, words: str) -> None:
    assert MISTAKES[words] in run_command(*words.split(), cwd=place).mistake()


def test_a_probe_leaves_what_predict_and_similar_use(place: Path) -> None:
    out = place / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["classes"] == 3
    assert len(result["splits"]) == 2
    assert result["top1_error"] <= 20  # three colours
    assert result["features"][0]["layer"] == "fc7"
    page = (out / "report.html").read_text()
    assert "Worst mistakes" in page
    assert "mean class recall" in page
    photo = "photos/red/003.png"
    asked = run_command("predict", "out", photo, "--json", "--top", 2, cwd=place)
    (answer,) = json.loads(asked.stdout)
    assert answer["predictions"][0]["class"] == "red"
    assert set(answer["predictions"][0]) == {"class", "score"}
    assert len(answer["predictions"]) == 2
    shown = run_command("predict", "out", photo, "none.png", "--csv", cwd=place)
    assert shown.status == 1
    assert "image,rank,class,score" in shown.stdout
    assert "cannot read none.png" in shown.stderr
    near = run_command("similar", photo, "none.png", "--features", "out/features.safetensors", "--top", 4, cwd=place)
    assert near.status == 1
    assert "cannot read none.png" in near.stderr
    (found,) = json.loads((place / "similar" / "similar.json").read_text())["photos"]
    first, *rest = found["neighbours"]
    assert first == {"image": "red/003.png", "class": "red", "cosine": pytest.approx(1, abs=1e-4)}
    assert len(rest) == 3
    assert all(one["cosine"] <= 1 + 1e-6 for one in rest)
    assert (place / "similar" / "003.png").stat().st_size > 1000


def test_probabilities_of_svms_rank_as_their_scores(place: Path) -> None:
    found = verydeep.load(place / "out", machine=HERE)
    assert isinstance(found, SvmClassifier)
    calibrated = replace(found, file=replace(found.file, temperature=0.3))
    photo = str(place / "photos" / "red" / "003.png")
    (plain,), (both,) = found.predict([photo], 2), calibrated.predict([photo], 2)
    assert both.classes == plain.classes
    assert both.probabilities == pytest.approx(-np.sort(-softmax(found.scores([photo]) / 0.3)[0])[:2])
    assert set(both.to_json()["predictions"][0]) == {"class", "score", "probability"}
    assert not plain.probabilities
    with pytest.raises(VerydeepError, match="these SVMs have no threshold"):
        found.predict([photo], reject_at=5)
    features = load_features(place / "out" / "features.safetensors")
    means = class_means(next(iter(features.scales.values())), features.labels, len(features.classes))
    row = combine([features.scales], DescriptorSettings())[features.ids.index("red/003.png")]
    near = float((row @ means.T).max())
    for threshold, unknown in ((near + 1e-3, True), (near - 1e-3, False)):
        ruled = replace(calibrated, file=replace(calibrated.file, risk_coverage=[[threshold, 40, 0]], means=means))
        (one,) = ruled.predict([photo], 2, reject_at=5)
        assert (one.unknown, one.classes, one.probabilities) == (unknown, both.classes, both.probabilities)


def test_a_second_probe_computes_no_descriptor_again(place: Path) -> None:
    again = run_command("probe", "--data", "photos", "--weights", "run", "--out", "out", "--json", cwd=place)
    told = json.loads(again.stdout)
    assert told["described"] == 0
    assert len(told["splits"]) == 3
    assert told["mean_class_recall_std"] is not None


def test_voc_from_photos_to_average_precision(place: Path) -> None:
    words = (
        "features",
        "run",
        "--data",
        "voc2007:voc",
        "--layer",
        "pool5",
        "--scales",
        "36,44",
        "--out",
        "voc.safetensors",
    )
    assert run_command(*words, cwd=place).status == 0
    done = run_command("svm", "voc2007", "--features", "voc.safetensors", "--aggregate", "average", "--json", cwd=place)
    told = json.loads(done.stdout)
    assert told["images"] == [{"fit": 8, "dev": 8, "test": 6}]
    by_class = {row["class"]: row["average_precision"] for row in told["by_class"]}
    assert len(by_class) == 20
    assert told["mean_average_precision"] == pytest.approx(np.mean(list(by_class.values())), abs=1e-3)
    assert by_class["dog"] > 70
    assert by_class["cat"] > 70
    assert told["top1_error"] is None


def test_voc_2012s_server_files_and_actions(tmp_path: Path, trained: Path) -> None:
    make_voc(tmp_path / "voc", "2012")
    files = []
    for data in ("voc2012-action", "voc2012-action-box"):
        files.append(f"{data}.safetensors")
        words = ("features", trained, "--data", f"{data}:voc", "--layer", "pool5", "--out", files[-1])
        assert run_command(*words, cwd=tmp_path).status == 0
    done = run_command("svm", "voc2012-action", "--features", *files, "--out", "out", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert "the test images have no labels, so there is no" in done.stdout
    lines = (tmp_path / "out" / "server" / "comp10_action_test_walking.txt").read_text().splitlines()
    assert len(lines) == 12
    assert lines[1].split()[:2] == ["000017", "2"]
    told = run_command("predict", "out", "voc/JPEGImages/000001.jpg", cwd=tmp_path).mistake()
    assert "boxes of people" in told


def test_a_flat_folder_is_described_and_searched(trained: Path, tmp_path: Path) -> None:
    for number in range(6):
        paint(tmp_path / "photos" / f"{number}.png", number, (40 * number, 90, 120))
    words = ("features", trained, "--data", "photos", "--layer", "pool5", "--out", "f.safetensors")
    done = run_command(*words, "--json", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert (json.loads(done.stdout)["images"], json.loads(done.stdout)["classes"]) == (6, 0)
    features = load_features(tmp_path / "f.safetensors")
    assert (features.ids, set(features.labels.tolist())) == (tuple(f"{n}.png" for n in range(6)), {-1})
    assert json.loads(run_command(*words, "--json", cwd=tmp_path).stdout)["computed"] == 0
    found = run_command("similar", "photos/4.png", "--features", "f.safetensors", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)[0]["neighbours"][0]["image"] == "4.png"
    page = run_command("similar", "photos/4.png", "--features", "f.safetensors", "--out", "page", cwd=tmp_path)
    assert page.status == 0, page.stderr
    told = run_command("svm", "own", "--features", "f.safetensors", cwd=tmp_path).mistake()
    assert "0.png has no label" in told
    told = run_command(*words, "--classes", "cat", cwd=tmp_path).mistake()
    assert "has no class folders" in told
    assert "has no set 'train'" in run_command(*words, "--set", "train", cwd=tmp_path).mistake()


def test_an_unreadable_photo_stops_or_is_skipped(trained: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", per_class=4)
    (tmp_path / "photos" / "red" / "bad.png").write_bytes(b"no photo")
    words = ("features", trained, "--data", "photos", "--layer", "pool5", "--out", "f.safetensors")
    told = run_command(*words, cwd=tmp_path).mistake()
    assert "red/bad.png" in told
    assert "--bad-images skip" in told
    done = run_command(*words, "--bad-images", "skip", cwd=tmp_path)
    assert done.status == 0
    assert "skipped" in done.stderr
    assert len(load_features(tmp_path / "f.safetensors")) == 12
    again = run_command(*words, "--bad-images", "skip", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["computed"] == 0  # the file is that of the readable photos
    more = run_command(*words, "--bad-images", "skip", "--scales", "44", "--json", cwd=tmp_path)
    assert json.loads(more.stdout)["computed"] == 12


def test_a_net_that_changed_since_is_reported(trained: Path, tmp_path: Path) -> None:
    import shutil

    make_photos(tmp_path / "photos", per_class=4)
    shutil.copytree(trained, tmp_path / "run")
    words = ("probe", "--data", "photos", "--weights", "run", "--splits", 1, "--out", "out")
    assert run_command(*words, cwd=tmp_path).status == 0
    shutil.copy(tmp_path / "run" / "last.safetensors", tmp_path / "run" / "best.safetensors")
    paint(tmp_path / "new.png", 5, (200, 50, 50))
    for verb in (("predict", "out"), ("similar", "--features", "out/features.safetensors")):
        told = run_command(*verb, "new.png", cwd=tmp_path).mistake()
        assert "has changed since it computed these descriptors" in told


def check_voc_2012(place: Path) -> None:
    """Its test set has no labels: the row has the mean AP on val, as `svm` finds it, and names the server's files."""
    make_voc(place / "voc2012", "2012")
    words = ("reproduce", "table11/D", "--data", "voc2012:voc2012", "--weights", "D=D.safetensors")
    done = run_command(*words, cwd=place)
    assert done.status == 0, done.stderr
    row = json.loads((place / "runs" / "results.json").read_text())["rows"]["table11/D/voc2012"]
    split = json.loads((place / "runs" / "transfer" / "table11/D/voc2012" / "result.json").read_text())["splits"][0]
    assert (row["figure"], row["figure_val"]) == (None, max(split["dev"].values()))
    assert len(list((place / "runs" / row["server_files"]).glob("comp2_cls_test_*.txt"))) == 20
    assert f"val: {row['figure_val']:.1f}, D of width" in done.stdout
    told = f"table11/D/voc2012: files for VOC's server in {row['server_files']}, beside results.json, mean AP on val"
    assert told in " ".join(done.stdout.split())


@pytest.mark.slow
def test_rows_of_tables_11_and_12_by_their_names(trained: Path, tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", "2007")
    for net in ("D", "E"):
        tensors = create_net(net, classes=3, crop=32, width=1 / 32, seed=ord(net)).state_dict()
        record = {"net": net, "channel_order": "BGR", "mean_bgr": "103.939,116.779,123.68", "input_range": "0-255"}
        save_file(dict(tensors), tmp_path / f"{net}.safetensors", metadata=record)
    words = ("reproduce", "table11", "--data", "voc2007:voc", "--weights", "D=D.safetensors")
    plan = ("reproduce", "table11/D", *words[2:6], "--plan")
    planned = run_command(*plan, cwd=tmp_path)
    left = re.search(r"voc2007 +D/released +fc7@768 +(\d+) ", planned.stdout)
    assert left, planned.stdout
    one = run_command("reproduce", "table11/D", *words[2:6], "--json", cwd=tmp_path)
    assert one.status == 0, one.stderr
    found = json.loads(one.stdout)
    assert list(found["rows"]) == ["table11/D/voc2007"]
    row = found["rows"]["table11/D/voc2007"]
    assert row["images"] == 6
    assert 0 < row["figure"] <= 100
    assert row["figure_std"] is None
    features = load_features(tmp_path / "runs" / "transfer" / "voc2007-D.safetensors")
    assert (list(features.scales), len(features)) == ([256, 384, 512, 640, 768], int(left[1]))
    assert json.loads(run_command(*plan, "--json", cwd=tmp_path).stdout)["plan"]["descriptors"] == []
    told = run_command("table", "11", cwd=tmp_path)
    line = next(line for line in told.stdout.splitlines() if "Net-D (16 layers)" in line and "VOC-2007" in line)
    label = "D of width 0.03125, crop 32"  # no figure of the paper's net
    assert re.search(rf" 89\.3 +{row['figure']:.1f}, {label}$", line.rstrip())
    assert f"Not of the paper's size, and no result of its nets: {label}." in told.stdout
    assert "6 photos of voc2007 (test, size: narrow nets)" in told.stdout
    both = run_command("reproduce", "table11", *words[2:], "--weights", "E=E.safetensors", "--json", cwd=tmp_path)
    assert sorted(json.loads(both.stdout)["rows"]) == sorted(f"table11/{net}/voc2007" for net in ("D", "E", "D+E"))
    check_voc_2012(tmp_path)
    faults = {
        ("reproduce", "table11/D"): "these rows need the weights of net D: add --weights D=FILE",
        ("reproduce", "table11/D/voc2012", *words[2:6]): "no row uses voc2007:voc: their datasets are voc2012",
        ("reproduce", "table11", "--doll", *words[2:6]): "--weights is for released; the runs of table11 are trained",
        ("reproduce", "table11", "--pooling", "down"): "--pooling is for training",
        ("reproduce", "table11/He"): "is a result of other authors",
        ("reproduce", "table11/D", *words[2:4], "--weights", "D=E.safetensors"): "contains net E, but was",
        ("reproduce", "table11/D", *words[2:4], "--weights", f"D={trained}"): f"{trained} contains net A, but",
    }
    for asked, sentence in faults.items():
        assert sentence in run_command(*asked, cwd=tmp_path).mistake()


def test_a_broken_annotation_is_reported_by_a_worker_too(trained: Path, tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", "2012")
    (tmp_path / "voc" / "Annotations" / "000003.xml").write_text("<annotation><object>")
    words = ("features", trained, "--data", "voc2012-action-box:voc", "--layer", "pool5", "--out", "f.safetensors")
    told = run_command(*words, "--workers", 1, cwd=tmp_path).mistake()
    assert "000003.xml is not a PASCAL VOC XML annotation" in told
    done = run_command(*words, "--workers", 1, "--bad-images", "skip", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["skipped"] == 2  # its two people


def test_images_that_moved_to_other_sets_and_a_net_that_moved_are_recorded_again(trained: Path, tmp_path: Path) -> None:
    import shutil

    make_photos(tmp_path / "photos", per_class=6)
    shutil.copytree(trained, tmp_path / "net")
    for first, other in (("train", "test"), ("test", "train")):
        rows = [
            f"photos/{name}/{number:03d}.png,{name},{first if number < 4 else other}"
            for name in ("red", "blue")
            for number in range(6)
        ]
        (tmp_path / "list.csv").write_text("\n".join(rows))
        net = tmp_path / ("net" if first == "train" else "moved")
        if first == "test":
            (tmp_path / "net").rename(net)
        words = ("probe", "--data", "list.csv", "--weights", net, "--out", "out", "--json")
        told = json.loads(run_command(*words, cwd=tmp_path).stdout)
        assert told["images"][0]["test"] == (4 if first == "train" else 8)
        assert told["described"] == (12 if first == "train" else 0)
    assert run_command("predict", "out", "photos/red/000.png", cwd=tmp_path).status == 0


def test_a_probe_uses_the_scales_it_is_asked_for(place: Path, tmp_path: Path) -> None:
    words = ("probe", "--data", place / "photos", "--weights", place / "run", "--out", "out", "--json", "--splits", 1)
    first = json.loads(run_command(*words, "--scales", "36,44", cwd=tmp_path).stdout)
    then = json.loads(run_command(*words, cwd=tmp_path).stdout)
    assert first["dimensions"] == 2 * then["dimensions"]
    assert then["described"] == 0
    assert then["features"][0]["scales"] == [36]


def test_nothing_of_the_users_is_overwritten(place: Path, tmp_path: Path) -> None:
    """Neither by a picture, nor by figures, nor a classifier by a training."""
    make_photos(tmp_path / "photos", per_class=3)
    for name in ("report.html", "answers.csv", "classifier.safetensors"):
        (tmp_path / name.split(".")[0]).mkdir()
        (tmp_path / name.split(".")[0] / name).write_text("mine")
        words = ("svm", "own", "--features", place / "one.safetensors", "--out", name.split(".")[0])
        assert f"{name} was not written by `verydeep svm`" in run_command(*words, cwd=tmp_path).mistake()
        assert (tmp_path / name.split(".")[0] / name).read_text() == "mine"
    photo = place / "photos" / "blue" / "000.png"
    before = (tmp_path / "photos" / "red" / "000.png").read_bytes()
    asked = ("similar", photo, "--features", place / "out" / "features.safetensors", "--out", "photos/red")
    for _ in range(2):  # the second search overwrites the first one's picture
        assert run_command(*asked, cwd=tmp_path).status == 0
        assert (tmp_path / "photos" / "red" / "000.png").read_bytes() == before
        names = sorted(path.name for path in (tmp_path / "photos" / "red").iterdir())
        assert names == ["000-2.png", "000.png", "001.png", "002.png", "similar.json"]
    (tmp_path / "photos" / "red" / "similar.json").write_text("{}")
    assert "similar.json was not written by `verydeep similar`" in run_command(*asked, cwd=tmp_path).mistake()
    told = run_command("train", "A", "--data", "photos", "--out", place / "out", cwd=tmp_path).mistake()
    assert "contains SVMs of `verydeep svm` or `probe`" in told


def test_a_refusal_leaves_no_folder_behind(place: Path, tmp_path: Path) -> None:
    (tmp_path / "user.txt").write_text("mine")
    for out in ("user.txt", "."):
        words = ("features", place / "run", "--data", place / "photos", "--out", out)
        assert run_command(*words, cwd=tmp_path).status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["user.txt"]


def test_every_unreadable_photo_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no photo")
    for verb in (("predict", place / "out"), ("similar", "--features", place / "out" / "features.safetensors")):
        answer = run_command(*verb, tmp_path / "bad.png", "none.png", cwd=tmp_path)
        assert answer.status == 2
        assert "Traceback" not in answer.stderr
        assert "bad.png" in answer.stderr
        assert "none.png" in answer.stderr


def test_similar_works_without_pictures_if_the_images_no_longer_exist(trained: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", per_class=3)
    words = ("features", trained, "--data", "photos", "--layer", "pool5", "--out", "f.safetensors")
    assert run_command(*words, cwd=tmp_path).status == 0
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    answer = run_command(*("similar", "elsewhere/red/000.png", "--features", "f.safetensors", "--json"), cwd=tmp_path)
    assert answer.status == 0
    assert "no pictures" in answer.stderr
    assert len(json.loads(answer.stdout)[0]["neighbours"]) == 9


# Incomplete or invalid metadata, and impossible features: all are broken files.
BROKEN: list[dict[str, Any]] = [
    {"net": {"net": "D"}},
    {"splits": "abc"},
    {"classes": 5},
    {"pool": "sum"},
    {"data": 5},
    {"mirror": "yes"},
    {"layer": None},
]


@pytest.mark.parametrize("changed", BROKEN, ids=str)
def test_broken_metadata_is_reported(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "f.safetensors"
    save_features(path, made_up(recipe={**made_up().recipe, **changed}))
    with pytest.raises(VerydeepError, match=r"not a features file, or corrupted|inconsistent shapes"):
        load_features(path)
    found = learn_svms("own", [one_file(tmp_path)], svm=SvmSettings(splits=1, C=(1.0,)), machine=HERE)
    if "net" not in changed:  # of which the figures are made, too
        recipe = {**found.first.recipe, **changed}
        write_transfer(replace(found, features=(replace(found.first, recipe=recipe),)), tmp_path / "out")
        with pytest.raises(VerydeepError, match="is not a classifier"):
            load_svm(tmp_path / "out" / "classifier.safetensors")


def one_file(folder: Path) -> Path:
    save_features(folder / "one.safetensors", made_up())
    return folder / "one.safetensors"


def test_empty_descriptors_and_invalid_scales_are_reported(tmp_path: Path) -> None:
    rows = made_up().scales[256]
    for scales in ({256: rows[:, :0]}, {0: rows}):
        save_features(tmp_path / "f.safetensors", made_up(scales=scales))
        with pytest.raises(VerydeepError, match=r"inconsistent shapes|or corrupted"):
            load_features(tmp_path / "f.safetensors")


def test_a_protocol_of_another_dataset_is_refused(tmp_path: Path) -> None:
    marks = np.where(np.arange(160)[:, None] % 4 == np.arange(4), 1, -1).astype(np.int8)
    told: dict[str, Any] = {"marks": marks, "labels": np.full(160, -1), "sets": ("train", "val", "test", "test") * 40}
    save_features(tmp_path / "f.safetensors", made_up(data="voc2007", **told))
    for protocol in ("voc2012", "voc2012-action"):
        with pytest.raises(VerydeepError, match="does not fit these features, which are of voc2007"):
            learn_svms(protocol, [tmp_path / "f.safetensors"])
