"""One temperature for a protocol: fitted, stored in the checkpoint, applied last, and to nothing that is compared."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import verydeep
from conftest import TINY, Command, make_photos, paint
from verydeep.checkpoints.checkpoint import checkpoint_sha256, metadata_of, read_metadata
from verydeep.core.errors import VerydeepError
from verydeep.core.files import file_sha256
from verydeep.core.progress import Silent
from verydeep.deploy.server.models import Query, QueryImage, open_served
from verydeep.evaluation.metrics import mean_log_loss
from verydeep.evaluation.temperature import fit_temperature, tempered

HERE = verydeep.MachineSettings(workers=0, threads=1)
PROTOCOL = "dense@36"


def posteriors_of(seed: int, photos: int = 400, sharpness: float = 1.0) -> tuple[Any, Any]:
    """Labels drawn from posteriors of five classes, and those posteriors to the power of ``sharpness``, float32."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.full(5, 0.7), photos)
    labels = (rng.random((photos, 1)) > honest.cumsum(axis=1)).sum(axis=1)
    return tempered(honest, 1 / sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_the_temperature_of_overconfident_posteriors_is_found(sharpness: float) -> None:
    posteriors, labels = posteriors_of(0, 20_000, sharpness)
    assert fit_temperature(posteriors, labels) == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_is_that_of_least_loss(seed: int) -> None:
    posteriors, labels = posteriors_of(seed, 60, 1.7)
    found = fit_temperature(posteriors, labels)
    least = mean_log_loss(tempered(posteriors, found), labels)
    for other in (*np.geomspace(0.05, 20, 100), found * 1.001, found / 1.001):
        assert least <= mean_log_loss(tempered(posteriors, float(other)), labels)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 50))
def test_the_order_of_classes_stays(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    posteriors = rng.dirichlet(np.full(7, 0.2), 20).astype(np.float32)  # many near 0 and 1
    after = tempered(posteriors, temperature)
    ranked = np.take_along_axis(after, np.argsort(-posteriors, axis=1, kind="stable"), axis=1)
    assert (np.diff(ranked, axis=1) <= 0).all()
    np.testing.assert_allclose(after.sum(axis=1), 1)


def test_temperature_one_changes_nothing() -> None:
    posteriors, _ = posteriors_of(1)
    np.testing.assert_allclose(tempered(posteriors, 1.0), posteriors, atol=1e-6)


def test_there_is_no_temperature_where_all_are_wrong() -> None:
    posteriors = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]], dtype=np.float32)
    with pytest.raises(VerydeepError, match="no temperature is the best where"):
        fit_temperature(posteriors, np.array([1, 0, 0]))


def test_where_all_are_right_a_part_of_each_label_counts_as_uniform() -> None:
    """The temperature has the least log loss with labels of Platt's form, so it is above 0; more images lower it."""
    posteriors = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]], dtype=np.float32)
    found = fit_temperature(posteriors, np.array([0, 1, 1]))
    targets = np.where(np.eye(2)[[0, 1, 1]] == 1, 1 - 0.5 / 5, 0.5 / 5)

    def loss(temperature: float) -> float:
        return float(-(targets * np.log(tempered(posteriors, temperature))).sum())

    assert all(loss(found) <= loss(float(other)) for other in np.geomspace(0.02, 50, 100))
    assert fit_temperature(np.tile(posteriors, (10, 1)), np.tile([0, 1, 1], 10)) < found


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {"p": {}},
        {"p": {"temperature": 0.0}},
        {"p": {"temperature": "2"}},
        {"p": 1.5},
        {"p": {"temperature": 1.0, "risk_coverage": [[1]]}},
    ],
)
def test_metadata_of_other_forms_are_refused(bad: Any, trained: Path) -> None:
    values = read_metadata(trained / "best.safetensors").to_json()
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError)):
        metadata_of({**values, "calibration": bad})


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was evaluated, exported and described, and then calibrated; ``before`` is its copy."""
    place = tmp_path_factory.mktemp("calibrated")
    for name, colour in {"blue": (90, 90, 110), "green": (90, 110, 90), "red": (110, 90, 90)}.items():
        for index in range(40):
            paint(place / "photos" / name / f"{index:03d}.png", index + sum(map(ord, name)), colour)
    verydeep.train("A", place / "run", data=str(place / "photos"), **{**TINY, "max_epochs": 3, "dev_fraction": 0.3})
    verydeep.evaluate(place / "run", PROTOCOL, machine=HERE)
    verydeep.extract_features(place / "run", str(place / "photos"), place / "f.safetensors", machine=HERE)
    shutil.copytree(place / "run", place / "before")
    verydeep.calibrate(place / "run", PROTOCOL, machine=HERE)
    return place


def images_of(place: Path) -> list[Path]:
    return sorted((place / "photos").glob("*/00*.png"))


def probabilities(model: Any, images: list[Path], protocol: str | None = None) -> list[tuple[tuple[str, float], ...]]:
    return [prediction.classes for prediction in model.predict(images, 3, protocol)]


def test_a_calibration_changes_the_metadata_alone(calibrated: Path) -> None:
    before, after = (calibrated / name / "best.safetensors" for name in ("before", "run"))
    assert file_sha256(before) != file_sha256(after)
    assert checkpoint_sha256(after) == checkpoint_sha256(before) == file_sha256(before)
    metadata = read_metadata(after)
    assert replace(metadata, calibration={}) == read_metadata(before)
    fitted = metadata.calibration[PROTOCOL]
    assert fitted["images"] >= 20
    assert fitted["nll_after"] < fitted["nll_before"]


def test_evaluations_of_before_stay_valid(calibrated: Path) -> None:
    folder = calibrated / "run" / "evaluations" / "test" / PROTOCOL
    assert verydeep.fuse([folder])["fusion"]["top1_error"] is not None  # refused where the checkpoint differs
    assert "an earlier one" not in (calibrated / "run" / "report.html").read_text()
    assert verydeep.load_features(calibrated / "f.safetensors").ids
    machine = verydeep.MachineSettings(workers=0, threads=1)
    assert verydeep.find_similar(images_of(calibrated)[:1], calibrated / "f.safetensors", machine=machine)


def test_evaluate_stores_posteriors_without_it_and_says_both(calibrated: Path, tmp_path: Path) -> None:
    stored = verydeep.load_scores(calibrated / "before" / "evaluations" / "test" / PROTOCOL)
    found = verydeep.evaluate(calibrated / "run", PROTOCOL, out=tmp_path / "again", machine=HERE)
    np.testing.assert_array_equal(found.scores.posteriors, stored.posteriors)
    assert found.scores.checkpoint == stored.checkpoint
    temperature = read_metadata(calibrated / "run" / "best.safetensors").calibration[PROTOCOL]["temperature"]
    expected = mean_log_loss(tempered(stored.posteriors, temperature), stored.labels)
    assert found.summary["calibrated"]["nll"] == pytest.approx(expected, abs=1e-5)
    assert found.summary["nll"] == pytest.approx(mean_log_loss(stored.posteriors, stored.labels), abs=1e-5)
    other = verydeep.evaluate(calibrated / "run", "centre@36", out=tmp_path / "other", machine=HERE)
    assert other.summary["calibrated"] is None


def test_predictions_are_calibrated_in_the_same_order(calibrated: Path) -> None:
    images = images_of(calibrated)
    model, plain = (verydeep.load(calibrated / "run", machine=HERE, calibration=wanted) for wanted in (True, False))
    before, after = probabilities(plain, images), probabilities(model, images)
    assert before == probabilities(verydeep.load(calibrated / "before", machine=HERE), images)
    assert [[name for name, _ in row] for row in after] == [[name for name, _ in row] for row in before]
    assert isinstance(model, verydeep.Model)
    expected = -np.sort(-tempered(model.posteriors(images), model.temperature() or 0.0), axis=1)
    np.testing.assert_allclose([[value for _, value in row] for row in after], expected, atol=1e-6)
    assert np.abs(np.array([row[0][1] for row in after]) - [row[0][1] for row in before]).max() > 1e-3
    assert probabilities(model, images, "centre@36") == probabilities(plain, images, "centre@36")


def test_copies_of_a_model_carry_it_until_the_weights_change(calibrated: Path, tmp_path: Path) -> None:
    model = verydeep.load(calibrated / "run", machine=HERE)
    assert isinstance(model, verydeep.Model)
    temperature = model.temperature()
    saved = verydeep.load(model.save(tmp_path / "copy.safetensors"), machine=HERE)
    for copy in (saved, pickle.loads(pickle.dumps(model)), model.to(torch.bfloat16), model.eval()):
        assert isinstance(copy, verydeep.Model)
        assert copy.temperature() == temperature
    assert model.train().temperature() is None


def test_exports_and_other_formats_carry_it(calibrated: Path, tmp_path: Path) -> None:
    run = calibrated / "run"
    temperature = read_metadata(run / "best.safetensors").calibration[PROTOCOL]["temperature"]
    for form, name in (("onnx", "net.onnx"), ("safetensors", "net.safetensors")):
        verydeep.export(run, form, tmp_path / name, machine=HERE)
        verydeep.export(run, form, tmp_path / f"plain-{name}", machine=HERE, calibration=False)
        assert PROTOCOL in next(
            line for line in (tmp_path / f"{name}.card.md").read_text().splitlines() if line.startswith("| calibration")
        )
    verydeep.convert(str(run), tmp_path / "net.pth")
    verydeep.convert(str(tmp_path / "net.pth"), tmp_path / "again")
    for name in ("net.onnx", "net.safetensors", "net.pth", "again"):
        loaded = verydeep.load(tmp_path / name, machine=HERE)
        assert isinstance(loaded, verydeep.Classifier)
        assert loaded.temperature() == temperature, name
    for name in ("plain-net.onnx", "plain-net.safetensors"):
        loaded = verydeep.load(tmp_path / name, machine=HERE)
        assert isinstance(loaded, verydeep.Classifier)
        assert loaded.temperature() is None
    assert "calibration" in (run / "README.md").read_text()


def test_a_server_answers_as_predict_does(calibrated: Path) -> None:
    image = images_of(calibrated)[0]
    for wanted in (True, False):
        model = verydeep.load(calibrated / "run", machine=HERE, calibration=wanted)
        served = open_served("run", model, None, None, None, HERE, Silent())
        (reply,) = served.run(Query("predict"), [QueryImage(verydeep.read_image(image))])
        assert reply["predictions"] == model.predict([image])[0].to_json()["predictions"]
        assert (served.temperature is not None) == wanted


def test_the_commands(calibrated: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(calibrated / "run", tmp_path / "run")
    image, few = images_of(calibrated)[0], ("--workers", 0, "--threads", 1)
    result = json.loads(command("calibrate", "run", "centre@36", *few, "--json", cwd=tmp_path).stdout)
    assert (result["protocol"], result["set"]) == ("centre@36", "dev")
    assert result["nll_after"] <= result["nll_before"]
    assert set(read_metadata(tmp_path / "run" / "best.safetensors").calibration) == {PROTOCOL, "centre@36"}
    shown = command("calibrate", "run", *few, cwd=tmp_path)
    assert "temperature: " in shown.stdout, shown.stderr
    assert result["risk_coverage"][-1][1] == result["images"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "After calibration (temperature" in page
    assert "accuracy, calibrated" in page
    assert "the images that choose thresholds" in page
    predicted = command("predict", "run", image, "--json", cwd=tmp_path)
    plain = command("predict", "run", image, "--json", "--no-calibration", cwd=tmp_path)
    assert predicted.stdout != plain.stdout
    assert "probabilities are calibrated for dense@36 (temperature" in predicted.stderr
    assert "calibrated" not in plain.stderr
    assert (
        "not calibrated for dense@40" in command("predict", "run", image, "--protocol", "dense@40", cwd=tmp_path).stderr
    )
    assert "calibrated (temperature" in command("evaluate", "run", *few, cwd=tmp_path).stdout


REJECT_AT = 60  # the net is hardly trained


def test_unlikely_images_are_unknown(calibrated: Path, tmp_path: Path, command: Command) -> None:
    """By `predict` in Python and as a command, in each format, and by the server; of exports as of the run."""
    run, images = calibrated / "run", images_of(calibrated)
    model = verydeep.load(run, machine=HERE)
    rejection = model.rejection(REJECT_AT)
    found = model.predict(images, 3, reject_at=REJECT_AT)
    assert [one.unknown for one in found] == [one.classes[0][1] < rejection.threshold for one in found]
    assert {one.unknown for one in found} == {True, False}
    verydeep.export(run, "onnx", tmp_path / "net.onnx", machine=HERE)
    assert verydeep.load(tmp_path / "net.onnx", machine=HERE).rejection(REJECT_AT) == rejection
    served = open_served("run", model, None, None, None, HERE, Silent(), REJECT_AT)
    replies = served.run(Query("predict"), [QueryImage(verydeep.read_image(image)) for image in images])
    assert [reply["unknown"] for reply in replies] == [one.unknown for one in found]
    words = ("predict", run, *images, "--reject-at", f"{REJECT_AT}%")
    answer = command(*words, "--json")
    assert [one["unknown"] for one in json.loads(answer.stdout)] == [one.unknown for one in found]
    assert str(rejection) in answer.stderr
    lines = command(*words, "--top", 1, "--csv").stdout.splitlines()
    assert lines[0] == "image,rank,class,probability,unknown"
    assert [line.rpartition(",")[2] == "yes" for line in lines[1:]] == [one.unknown for one in found]
    assert command(*words).stdout.count(": unknown\n") == sum(one.unknown or False for one in found)


def test_mistakes_of_reject_at_are_sentences(calibrated: Path, command: Command) -> None:
    run, image = calibrated / "run", images_of(calibrated)[0]
    for words, sentence in {
        (
            run,
            image,
            "--protocol",
            "centre@36",
        ): "centre@36 has no threshold yet: run `verydeep calibrate RUN centre@36`",
        (calibrated / "before", image): "dense@36 has no threshold yet: run `verydeep calibrate RUN dense@36` first",
        (run, image, "--no-calibration"): "leave out --no-calibration",
    }.items():
        assert sentence in command("predict", *words, "--reject-at", 5).mistake()
        assert sentence in command("serve", *(word for word in words if word != image), "--reject-at", 5).mistake()
    assert (
        "images cannot show an error of at most 0.1 %" in command("predict", run, image, "--reject-at", 0.1).mistake()
    )
    assert "'all' is not a percentage" in command("predict", run, image, "--reject-at", "all").mistake()
    with pytest.raises(VerydeepError, match="leave out --no-calibration"):
        verydeep.predict(run, image, calibration=False, reject_at=5)


def test_a_resumed_training_drops_it(calibrated: Path, tmp_path: Path) -> None:
    shutil.copytree(calibrated / "before", tmp_path / "run")
    verydeep.calibrate(tmp_path / "run", PROTOCOL, last=True, machine=HERE)
    last = tmp_path / "run" / "last.safetensors"
    assert read_metadata(last).calibration
    verydeep.train("A", tmp_path / "run", resume=True, max_epochs=4)
    assert not read_metadata(last).calibration


def test_mistakes_are_sentences(calibrated: Path, tmp_path: Path, command: Command) -> None:
    make_photos(tmp_path / "few", 2)
    verydeep.export(calibrated / "run", "onnx", tmp_path / "net.onnx", machine=HERE)
    verydeep.convert(str(calibrated / "run"), tmp_path / "net.pth")
    before = file_sha256(calibrated / "run" / "best.safetensors")
    for words, sentence in {
        ("dense@36", "--set", "train"): "a net is more confident on the images that trained it",
        ("dense@36", "--set", "val"): "has no set 'val': its sets are train, dev, test",
        ("dense@36", "--data", tmp_path / "few", "--set", "all"): "has 6 labelled images in its set all: a temperature",
        ("dense@20",): "below the net's crop of 32 pixels",
        ("sparse@36",): "is not a protocol",
    }.items():
        assert sentence in command("calibrate", calibrated / "run", *words, "--workers", 0).mistake()
    assert "is an exported file: calibrate the run" in command("calibrate", tmp_path / "net.onnx").mistake()
    assert "is not a run: make one with `verydeep convert`" in command("calibrate", tmp_path / "net.pth").mistake()
    assert file_sha256(calibrated / "run" / "best.safetensors") == before
