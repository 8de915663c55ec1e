"""App. A: what a localisation net predicts, how it is trained, and from candidates to predictions and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from test_merge import A, B, C, windows
from torch.nn import functional as F

import verydeep
from verydeep.checkpoints.checkpoint import Metadata
from verydeep.core.config import to_json
from verydeep.core.device import resolve_device
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import BoxSettings, MachineSettings
from verydeep.data.boxes import iou
from verydeep.data.dataloader import Batch
from verydeep.data.image_io import Pixels
from verydeep.evaluation.protocols import parse_box_protocol
from verydeep.localisation.inference import (
    BoxPredictor,
    BoxViews,
    CandidateBoxes,
    ScoringNet,
    check_classes,
    check_rater,
)
from verydeep.localisation.rebalance import balance
from verydeep.localisation.task import LocalisationTask
from verydeep.localisation.windows_file import load_windows, save_windows
from verydeep.models.vgg import Net, create_net

CLASSES = ("a", "b", "c")


def metadata(regression: str = "PCR", **changes: Any) -> Metadata:
    boxes = to_json(BoxSettings(regression=regression)) if regression else {}  # type: ignore[arg-type]
    made = Metadata("A", 32, 1 / 16, CLASSES, (110.0, 115.0, 120.0), 40, box_settings=boxes)
    return replace(made, **changes)


def box_net(regression: str = "PCR", seed: int = 0) -> Net:
    outputs = {"PCR": 12, "SCR": 4, "": 3}[regression]
    return create_net("A", classes=outputs, crop=32, width=1 / 16, seed=seed).eval()


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def find(
    photos: list[Pixels],
    protocol: str,
    labels: list[list[int]],
    regression: str = "PCR",
    net: Net | None = None,
    rater: ScoringNet | None = None,
) -> list[CandidateBoxes]:
    """Windows of photos by a protocol of one scale."""
    asked = parse_box_protocol(protocol, 32)
    here = resolve_device(MachineSettings(workers=0, threads=1), 1)
    net = box_net(regression) if net is None else net
    finder = BoxPredictor(net, metadata(regression), rater, asked, here)
    views = BoxViews(asked.scales[0], "bilinear", "round")
    found = finder.run(((index, views(pixels)) for index, pixels in enumerate(photos)), np.array(labels))
    return [found[index] for index in range(len(photos))]


def told(regression: str, boxes: list[list[float]]) -> Net:
    """A net that predicts the same boxes, cxcywh in shares of the crop, for any input."""
    net = box_net(regression)
    with torch.no_grad():
        net.layer("fc8").weight.zero_()
        bias = net.layer("fc8").bias
        assert bias is not None
        bias.copy_(torch.tensor(boxes).flatten())
    return net


def test_a_box_is_where_its_window_is_by_hand() -> None:
    """Centre crop of a 64x96 photo at Q = 48: 48x72, corner (8, 20); a box of half the crop at its middle."""
    (found,) = find([photo(64, 96)], "centre@48", [[0]], "SCR", told("SCR", [[0.5, 0.5, 0.5, 0.5]]))
    scaled = np.array([20 + 8, 8 + 8, 20 + 24, 8 + 24])
    assert found.boxes.shape == (1, 1, 4)
    assert found.boxes[0, 0] == pytest.approx(scaled * 64 / 48)
    assert found.ratings.tolist() == [[1.0]]


def test_per_class_regression_predicts_the_box_of_the_label() -> None:
    boxes = [[0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]]
    (found,) = find([photo(32, 32)], "centre@32", [[2, 0, 2]], "PCR", told("PCR", boxes))
    assert found.boxes[0].tolist() == [[16, 16, 32, 32], [0, 0, 32, 32], [16, 16, 32, 32]]


def test_boxes_are_cut_at_the_photos_edge_and_have_no_negative_size() -> None:
    (found,) = find([photo(32, 32)], "centre@32", [[0]], "SCR", told("SCR", [[0.5, 0.5, 3.0, -1.0]]))
    assert found.boxes[0, 0].tolist() == [0, 16, 32, 16]


def test_dense_has_a_window_every_32_pixels_and_its_box_there() -> None:
    """A photo of 64x96: windows at 0, 32 down and 0, 32, 64 across, row by row."""
    (found,) = find([photo(64, 96)], "dense@64", [[0]], "SCR", told("SCR", [[0.5, 0.5, 0.25, 0.25]]))
    corners = [(down, across) for down in (0, 32) for across in (0, 32, 64)]
    expected = [[across + 12, down + 12, across + 20, down + 20] for down, across in corners]
    assert found.boxes[:, 0].tolist() == expected


@pytest.mark.parametrize("regression", ["PCR", "SCR"])
def test_dense_at_the_crop_is_the_centre_crop(regression: str) -> None:
    labels = [[0, 1], [2, 2]]
    photos = [photo(40, 40), photo(50, 50, 1)]
    dense, centre = (find(photos, f"{method}@32", labels, regression) for method in ("dense", "centre"))
    for one, other in zip(dense, centre, strict=True):
        assert one.boxes == pytest.approx(other.boxes, abs=1e-4)


def test_a_batch_equals_single_images_in_any_order() -> None:
    photos = [photo(40, 60, n) for n in range(4)] + [photo(60, 40, n) for n in range(3)]
    labels = [[n % 3, (n + 1) % 3] for n in range(7)]
    together = find(photos, "dense@40", labels)
    for index in (6, 0, 3):
        (alone,) = find([photos[index]], "dense@40", [labels[index]])
        assert together[index].boxes == pytest.approx(alone.boxes, abs=1e-3)
    turned = find(photos[::-1], "dense@40", labels[::-1])[::-1]
    assert all(a.boxes == pytest.approx(b.boxes, abs=1e-3) for a, b in zip(together, turned, strict=True))


def test_the_mirror_image_has_the_mirrored_boxes() -> None:
    """With :mirror a photo and its mirror image have the same windows, mirrored."""
    here = photo(40, 64)
    (plain,), (other,) = (find([one], "dense@40:mirror", [[1]]) for one in (here, here[:, ::-1].copy()))
    back = other.boxes.copy()
    back[..., 0], back[..., 2] = 64 - other.boxes[..., 2], 64 - other.boxes[..., 0]
    many = len(plain.boxes) // 2
    assert plain.boxes[:many] == pytest.approx(back[many:], abs=1e-3)
    assert plain.boxes[many:] == pytest.approx(back[:many], abs=1e-3)
    assert find([here], "dense@40", [[1]])[0].boxes == pytest.approx(plain.boxes[:many], abs=1e-3)


def test_offsets_give_a_grid_twice_as_fine_that_holds_the_plain_one() -> None:
    """OverFeat's trick: 64x64 has 2x2 windows; the other starts of the last pooling put more 16 pixels between."""
    net = told("SCR", [[0.5, 0.5, 0.25, 0.25]])
    (plain,) = find([photo(64, 64)], "dense@64", [[0]], "SCR", net)
    (fine,) = find([photo(64, 64)], "dense@64:offsets", [[0]], "SCR", net)
    corners = {(float(box[1]) - 12, float(box[0]) - 12) for box in fine.boxes[:, 0]}
    assert corners == {(down, across) for down in (0, 16, 32, 48) for across in (0, 16, 32, 48)}
    real = box_net("SCR")
    (plain,), (fine,) = (find([photo(64, 64)], name, [[0]], "SCR", real) for name in ("dense@64", "dense@64:offsets"))
    assert fine.boxes[: len(plain.boxes)] == pytest.approx(plain.boxes, abs=1e-3)


def test_crops_of_the_grid_are_as_training_crops() -> None:
    """25 windows of a 5x5 grid that touches the edges, each as if its crop were a photo of its own."""
    pixels = photo(40, 64)
    net = box_net()
    with torch.no_grad():
        net.layer("fc8").weight.mul_(0.001)  # small boxes near the middle of each crop, which no edge cuts
        bias = net.layer("fc8").bias
        assert bias is not None
        bias.copy_(torch.tensor([0.5, 0.5, 0.25, 0.25]).repeat(3))
    (found,) = find([pixels], "crops@40", [[1]], net=net)
    tops, lefts = (0, 2, 4, 6, 8), (0, 8, 16, 24, 32)
    assert len(found.boxes) == 25
    for number in (0, 7, 13, 24):
        top, left = tops[number // 5], lefts[number % 5]
        (alone,) = find([pixels[top : top + 32, left : left + 32].copy()], "centre@32", [[1]], net=net)
        assert found.boxes[number, 0] == pytest.approx(alone.boxes[0, 0] + [left, top, left, top], abs=1e-3)
    classifier = ScoringNet(box_net("", seed=5), metadata(""))
    (rated,) = find([photo(32, 32)], "crops@32", [[1]], rater=classifier)
    (centre,) = find([photo(32, 32)], "centre@32", [[1]], rater=classifier)
    assert rated.boxes == pytest.approx(np.repeat(centre.boxes, 25, axis=0), abs=1e-4)
    assert rated.ratings == pytest.approx(np.repeat(centre.ratings, 25, axis=0), abs=1e-5)


def test_offsets_that_leave_no_room_for_the_crop_are_left_out() -> None:
    net = create_net("A", classes=4, crop=32, width=1 / 16, pooling="down").eval()
    found = net.shifted_scores(torch.zeros(1, 3, 32, 32))
    assert [start for start, _ in found] == [(0, 0)]


def test_a_window_is_rated_by_its_own_posterior() -> None:
    classifier = box_net("", seed=5)
    pixels = photo(64, 96, 3)
    (found,) = find([pixels], "dense@64", [[2, 0]], "SCR", rater=ScoringNet(classifier, metadata("")))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        scores = classifier(image - torch.tensor([110.0, 115.0, 120.0])[None, :, None, None])
    expected = F.softmax(scores, dim=1)[0, [2, 0]].flatten(1).T.numpy()
    assert found.ratings == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crop": 64}, "has crop 64 and the localisation model 32"),
        ({"pooling": "down"}, "pooling down"),
    ],
)
def test_a_net_of_another_crop_cannot_score_boxes(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VerydeepError, match=sentence):
        check_rater(metadata(), metadata("", **change))


def test_a_classification_net_of_other_classes_is_refused() -> None:
    check_classes(metadata(), metadata(""))
    for classes in (("x", "y", "z"), ("b", "a", "c")):
        with pytest.raises(VerydeepError, match="has other classes than the localisation model"):
            check_classes(metadata(), metadata("", classes=classes))


def batch(labels: list[int], boxes: list[list[float]]) -> Batch:
    count = len(labels)
    return Batch(
        torch.zeros(count, 3, 32, 32, dtype=torch.uint8),
        torch.tensor(labels),
        torch.zeros(count, 3),
        torch.ones(count, 1, dtype=torch.bool),
        torch.tensor(boxes),
    )


def task(regression: Literal["PCR", "SCR"]) -> LocalisationTask:
    return LocalisationTask(BoxSettings(regression=regression), strict=False)


def test_the_euclidean_loss_by_hand() -> None:
    """Half the squared distance, a photo: (.1² + .2² + 0 + .4²) / 2 = .105; the second is exact."""
    targets = [[0.5, 0.5, 0.5, 0.5], [0.2, 0.3, 0.1, 0.1]]
    outputs = torch.tensor([[0.6, 0.3, 0.5, 0.9], [0.2, 0.3, 0.1, 0.1]])
    loss, wrong = task("SCR").batch_loss(outputs, batch([0, 1], targets))
    assert loss.item() == pytest.approx(0.105)
    # Corners .35, -.15, .85, .75 and .25, .25, .75, .75: .4 x .5 in common of .5 x .9 + .25 - .2.
    assert wrong == 1
    assert float(iou([0.35, -0.15, 0.85, 0.75], [0.25, 0.25, 0.75, 0.75])) == pytest.approx(0.2 / 0.5)


def test_under_pcr_only_the_labelled_class_gets_a_gradient() -> None:
    outputs = torch.rand(2, 12, requires_grad=True)
    loss, _ = task("PCR").batch_loss(outputs, batch([2, 0], [[0.5] * 4, [0.1] * 4]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    touched = outputs.grad.abs().view(2, 3, 4).sum(2) > 0
    assert touched.tolist() == [[False, False, True], [True, False, False]]


# guessed labels, guessed boxes, the class, its boxes; whether no guess has the class, whether none is right; why
def test_stored_candidates_are_loaded_by_key(tmp_path: Path) -> None:
    photos = (windows([[A, B], [B, C]], [[0.1, 0.2], [0.3, 0.4]]), windows([[C, C]], [[1, 1]]))
    save_windows(tmp_path, ("x", "y"), np.array([[0, 1], [1, 1]]), photos, "key")
    loaded = load_windows(tmp_path, "key")
    assert loaded is not None
    for candidates, other in zip(loaded, photos, strict=True):
        assert np.array_equal(candidates.boxes, other.boxes)
        assert np.array_equal(candidates.ratings, other.ratings)
    with np.load(tmp_path / "windows.npz") as stored:
        assert stored["ids"].tolist() == ["x", "y"]
    assert load_windows(tmp_path, "another") is None
    path = tmp_path / "windows.npz"
    path.write_bytes(path.read_bytes()[:200])
    assert load_windows(tmp_path, "key") is None
    assert load_windows(tmp_path / "nowhere", "key") is None


def test_a_localisation_model_and_a_classifier_are_not_confused(trained: Path, tmp_path: Path) -> None:
    from verydeep.checkpoints.checkpoint import load_localisation_model, save_checkpoint

    with pytest.raises(VerydeepError, match="is a classifier, not a localisation model"):
        load_localisation_model(trained / "best.safetensors")
    net: Any = box_net()
    save_checkpoint(tmp_path / "best.safetensors", net, metadata())
    assert load_localisation_model(tmp_path / "best.safetensors").net().layer("fc8").out_channels == 12
    with pytest.raises(VerydeepError, match="is a localisation model, not a classifier"):
        verydeep.load(tmp_path)
    with pytest.raises(VerydeepError, match="is a localisation model"):
        verydeep.evaluate(tmp_path, "dense@40")


def test_a_box_net_for_own_photos_keeps_the_rate_that_its_fc_layers_are_rescaled_to() -> None:
    from verydeep.training.recipes import settings_of_box_run

    settings, _ = settings_of_box_run("D", {"start": "x.safetensors"})
    assert (settings.lr, settings.new_fc, settings.divergence_retries) == (1e-3, "random", 3)


@pytest.mark.parametrize(("name", "start"), [("D/384-PCR", "D/384"), ("D/256-SCR-fc", "D/256"), ("D/100-PCR", None)])
def test_a_box_run_starts_from_the_classification_run_of_its_scale(name: str, start: str | None) -> None:
    from verydeep.training.recipes import papers_start, settings_of_box_run

    settings, boxes = settings_of_box_run(name if start else "D/384-PCR", {})
    assert papers_start(name) == start
    assert settings.lr == 1e-3
    assert settings.learn == ("fc" if name.endswith("-fc") else "all")
    assert boxes.regression in name
    with pytest.raises(VerydeepError, match="is a PCR run, not SCR"):
        settings_of_box_run("D/384-PCR", {"regression": "SCR"})
    with pytest.raises(VerydeepError, match="is not a localisation run"):
        settings_of_box_run("D/384", {})


def test_balancing_changes_the_scale_of_maps_and_no_prediction() -> None:
    net = create_net("B", classes=5, crop=32, width=1 / 16, seed=2).eval()
    with torch.no_grad():
        for name in ("fc6", "fc7"):
            bias = net.layer(name).bias
            assert bias is not None
            bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 60
    before = net.penultimate(images)
    first, second, third = balance(net, images, 1e-3)
    after = net.penultimate(images)
    assert torch.allclose(after, before * second, rtol=1e-4, atol=1e-6)
    assert after.flatten(1).square().sum(1).mean().item() == pytest.approx(500, rel=1e-4)
    assert net(images).square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)
    assert len({first, second, third, 1.0}) == 4


def test_after_balancing_each_fc_layers_part_of_the_curvature_is_small() -> None:
    """By autograd: the squared gradient of a box's four numbers by each layer's weights, times the rate."""
    rate = 1e-3
    net = create_net("A", classes=4, crop=32, width=1 / 16, seed=4).eval()
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 100
    with torch.no_grad():
        net.layer("fc6").weight.mul_(30)  # a start whose maps are far too large

    def parts() -> list[float]:
        found = torch.zeros(3)
        for image in images:
            for number in net(image[None]).flatten():
                weights = [net.layer(name).weight for name in ("fc6", "fc7", "fc8")]
                slopes = torch.autograd.grad(number, weights, retain_graph=True)
                found += torch.stack([slope.square().sum() for slope in slopes]) * rate / len(images)
        return found.tolist()

    before = parts()
    balance(net, images, rate)
    sixth, seventh, eighth = parts()
    assert max(before) > 4
    # Dropout's factor of 2 is in the inputs of fc7 and fc8, not here: 4 numbers of 1 / 2 each, and half of fc6's.
    assert eighth == pytest.approx(2.0, rel=1e-3)
    assert sixth == pytest.approx(2 * seventh, rel=1e-3)
    assert sixth + seventh < 0.5


def test_a_map_of_zeros_has_no_size_to_change() -> None:
    net = create_net("A", classes=4, crop=32, width=1 / 16)
    with torch.no_grad():
        net.layer("fc6").weight.zero_()
    assert balance(net, torch.ones(2, 3, 32, 32), 1e-3) == (1.0, 1.0, 1.0)
