"""A converted net's check on photos: a small net that knows these three only, and net E where it is on this machine.

The small net has random layers but for fc8, which is solved so that each photo's class leads by `LEAD` logits. Without
biases its scores are proportional to the contrast, as the check supposes of a net: 8 at low contrast, 1 at the lowest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Command
from verydeep.checkpoints.checkpoint import Checkpoint, Metadata, load_classifier, save_checkpoint
from verydeep.checkpoints.preprocessing import CAFFE_MEAN_BGR, KNOWN, MEAN_RGB, Preprocessing, to_our_pixels
from verydeep.checkpoints.registry import ilsvrc_classes
from verydeep.core.progress import Collected, Silent
from verydeep.data.class_names import caption
from verydeep.evaluation.sanity_check import (
    FULL,
    LOW,
    LOWEST,
    PHOTOS,
    PhotoCheck,
    Photos,
    Reading,
    check_on_photos,
    photos_before,
)
from verydeep.models.vgg import create_net

LEAD = 128.0
CLASSES = ilsvrc_classes()
LABELS = [next(place for place, name in enumerate(CLASSES) if name.startswith(wnid[:9])) for wnid in PHOTOS.values()]
BGR = Preprocessing("BGR", CAFFE_MEAN_BGR)
Change = Callable[[Tensor], Tensor]


def as_rows_first(weight: Tensor) -> Tensor:
    """fc6 as a reader makes it that takes a file's channels, rows, columns for rows, columns, channels."""
    outputs, channels, height, width = weight.shape
    return weight.flatten(1).reshape(outputs, height, width, channels).permute(0, 3, 1, 2)


def as_channels_first(weight: Tensor) -> Tensor:
    """The opposite mistake."""
    return weight.permute(0, 2, 3, 1).flatten(1).reshape(weight.shape)


@pytest.fixture(scope="module")
def knowing() -> Checkpoint:
    """A small net that knows the three photos, as of a file with BGR pixels minus the mean."""
    net = create_net("A", classes=1000, crop=64, width=1 / 32, seed=3)
    metadata = Metadata("A", 64, 1 / 32, CLASSES, MEAN_RGB, 64, origin={"pixels": BGR.to_json()})
    checkpoint = Checkpoint(Path("small"), metadata, dict(net.state_dict()), {}, "")
    images = photos_before(checkpoint, LABELS).images - torch.tensor(MEAN_RGB)[:, None, None]
    with torch.no_grad():
        known = net.eval().penultimate(images).flatten(1)
        wanted = torch.zeros(3, 1000).index_put_((torch.arange(3), torch.tensor(LABELS)), torch.tensor(LEAD))
        solved = (torch.linalg.pinv(known) @ wanted).T[:, :, None, None]
    return replace(checkpoint, weights={**checkpoint.weights, "fc8.weight": solved})


def misread(checkpoint: Checkpoint, stated: Preprocessing, true: Preprocessing = BGR, fc6: Change | None = None) -> Any:
    """The net as converted from a file of ``true`` pixels by somebody who states others."""
    weights = dict(checkpoint.weights)
    factor = torch.tensor(true.std)[:, None, None] / true.scale
    stored = weights["conv1_1.weight"] if true.order == "RGB" else weights["conv1_1.weight"].flip(1)
    weights["conv1_1.weight"], mean = to_our_pixels(stored * factor, stated)
    if fc6 is not None:
        weights["fc6.weight"] = fc6(weights["fc6.weight"]).contiguous()
    metadata = replace(checkpoint.metadata, mean=mean, origin={"pixels": stated.to_json()})
    return replace(checkpoint, weights=weights, metadata=metadata)


def judged(checkpoint: Checkpoint) -> PhotoCheck:
    return photos_before(checkpoint, LABELS).judge(Silent())


def test_a_sound_net_passes(knowing: Checkpoint) -> None:
    result = judged(knowing)
    assert (result.cause, result.warning) == ("", "")
    assert [caption(row.classes[0][0]) for row in result.predictions] == list(PHOTOS)
    assert result.to_json() == {
        "photos": [row.to_json() for row in result.predictions],
        "cause": None,
        "warning": None,
    }


TORCHVISION = KNOWN["torchvision"]
NO_MEAN, UNIT = Preprocessing("BGR", (0.0, 0.0, 0.0)), Preprocessing("RGB", (0.0, 0.0, 0.0), 1 / 255)
MISREAD: dict[str, tuple[Preprocessing, Preprocessing, str, str]] = {  # stated, true, cause, remedy
    "BGR as RGB": (KNOWN["rgb-mean"], BGR, "channel order", "--preprocessing caffe"),
    "RGB as BGR": (BGR, KNOWN["rgb-mean"], "channel order", "--preprocessing rgb-mean"),
    "mean missing": (NO_MEAN, BGR, "mean", "--preprocessing caffe"),
    "0..1": (UNIT, BGR, "channel order and mean and scale", "--preprocessing caffe"),
    "too large": (KNOWN["rgb-mean"], TORCHVISION, "scale", "--preprocessing torchvision"),
    "too small": (TORCHVISION, KNOWN["rgb-mean"], "scale", "--preprocessing rgb-mean"),
    "too large and BGR": (BGR, TORCHVISION, "channel order and scale", "--preprocessing torchvision"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_wrong_preprocessing_is_found(knowing: Checkpoint, case: str) -> None:
    stated, true, cause, remedy = MISREAD[case]
    assert judged(misread(knowing, true, true)).warning == ""
    result = judged(misread(knowing, stated, true))
    assert result.cause == cause
    assert remedy in result.warning
    assert result.warning.startswith(f"wrong {cause}, probably: ")


@pytest.mark.parametrize(
    ("mistake", "order"), [(as_rows_first, "channel, row, column"), (as_channels_first, "row, column, channel")]
)
def test_wrong_order_of_fc6_is_found(knowing: Checkpoint, mistake: Change, order: str) -> None:
    result = judged(misread(knowing, BGR, fc6=mistake))
    assert result.cause == "order of fc6's inputs"
    assert f"with the order {order}; reorder the weights of fc6" in result.warning


def test_other_faults_are_told_apart(knowing: Checkpoint) -> None:
    reversed_names = replace(knowing, metadata=replace(knowing.metadata, classes=CLASSES[::-1]))
    result = photos_before(reversed_names, [999 - label for label in LABELS]).judge(Silent())
    assert result.cause == "unknown"
    assert "its class names are probably in another order" in result.warning
    damaged = {**knowing.weights, "fc7.weight": torch.zeros_like(knowing.weights["fc7.weight"])}
    result = judged(replace(knowing, weights=damaged))
    assert "its weights are probably damaged" in result.warning


def test_trying_leaves_the_net_as_it_was(knowing: Checkpoint) -> None:
    photos: Photos = photos_before(misread(knowing, BGR, fc6=as_rows_first), LABELS)
    before = {name: value.clone() for name, value in photos.net.state_dict().items()}
    photos.judge(Silent())
    assert all(torch.equal(value, before[name]) for name, value in photos.net.state_dict().items())


def test_contrast_is_what_it_says(knowing: Checkpoint) -> None:
    photos = photos_before(knowing, LABELS)
    full, low, lowest = (photos.log_posterior(Reading(BGR), contrast) for contrast in (FULL, LOW, LOWEST))
    expected = [torch.tensor([LEAD * contrast] + [0.0] * 999).log_softmax(0)[0] for contrast in (FULL, LOW, LOWEST)]
    assert [full, low, lowest] == pytest.approx([float(value) for value in expected], abs=0.02)


def test_only_nets_of_ilsvrc_are_judged(knowing: Checkpoint) -> None:
    wide = replace(knowing.metadata, width=1.0)
    others = {
        "narrow": knowing.metadata,
        "few classes": replace(wide, classes=CLASSES[:999]),
        "other classes": replace(wide, classes=tuple(f"class {number}" for number in range(1000))),
        "boxes": replace(wide, box_settings={"regression": "PCR"}),
    }
    reporter = Collected()
    for metadata in others.values():
        assert check_on_photos(replace(knowing, metadata=metadata), reporter) is None
    assert reporter.warnings == []


@pytest.mark.slow
def test_convert_warns_and_succeeds(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "random.safetensors"
    save_checkpoint(file, create_net("A", crop=32), Metadata("A", 32, 1.0, CLASSES, MEAN_RGB, 32))
    warned = command("convert", file, tmp_path / "run", "--json")
    check = json.loads(warned.stdout)["check"]
    assert warned.status == 0
    assert f"warning: {check['warning']}" in warned.stderr
    assert check["cause"] == "unknown"
    assert [photo["image"] for photo in check["photos"]] == list(PHOTOS)
    unchecked = command("convert", tmp_path / "run", tmp_path / "again", "--no-check", "--json")
    assert (unchecked.status, unchecked.stderr) == (0, "")
    assert json.loads(unchecked.stdout)["check"] is None
    assert "checked on photos: espresso as " in command("convert", file, tmp_path / "third").stdout


@pytest.mark.slow
def test_net_e_is_sound_and_its_faults_are_found(net_e: Path) -> None:
    """What `verydeep convert oxford-E RUN` checks."""
    knowing = load_classifier(net_e)
    assert [round(row.classes[0][1], 2) for row in _checked(knowing).predictions] == [1.0, 1.0, 1.0]
    swapped = _checked(misread(knowing, Preprocessing("BGR", MEAN_RGB)))  # which clear photos do not show
    assert swapped.cause == "mean"
    assert all(row.classes[0][1] > 0.99 for row in swapped.predictions)
    mistaken = _checked(misread(knowing, BGR, fc6=as_channels_first))
    assert mistaken.cause == "order of fc6's inputs"


def _checked(checkpoint: Checkpoint) -> PhotoCheck:
    reporter = Collected()
    result = check_on_photos(checkpoint, reporter)
    assert result is not None
    assert reporter.warnings == ([result.warning] if result.warning else [])
    return result
