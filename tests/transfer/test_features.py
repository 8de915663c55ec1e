"""App. B's descriptors: dense, averaged, by layer and scale, and their file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch.nn import functional as F

import verydeep
from conftest import make_photos, save_sealed
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Interrupted, Reporter, Silent, Stopping
from verydeep.core.settings import DescriptorSettings, FeatureSettings, MachineSettings
from verydeep.models.vgg import create_net
from verydeep.transfer import features_file
from verydeep.transfer.backbone import open_feature_net, usual_layer
from verydeep.transfer.descriptors import combine, descriptor
from verydeep.transfer.extract import Extraction, extract_features
from verydeep.transfer.features_file import METADATA_KEY, Features, Shards, load_features, save_features

HERE = MachineSettings(workers=0, threads=1)


def extract(run: Path, out: Path, **settings: Any) -> Features:
    """Descriptors of the coloured photos that the run was trained on."""
    made = extract_features(
        run / "run", str(run / "photos"), out, settings=FeatureSettings(**settings), machine=HERE, reporter=Silent()
    )
    return made.features


@pytest.fixture(scope="module")
def home(trained: Path) -> Path:
    return trained.parent


def test_a_descriptor_is_the_mean_map_of_both_images(home: Path, tmp_path: Path) -> None:
    """Computed once more with plain PyTorch, from the photo's file on."""
    found = extract(home, tmp_path / "f.safetensors", layer="pool5", scales=(40,))
    stored = load_file(home / "run" / "best.safetensors")
    tensors = {name: torch.from_numpy(value) for name, value in stored.items()}
    metadata = json.loads(safetensors_header(home / "run" / "best.safetensors")["verydeep"])
    for number in (0, 7, 29):
        photo = Image.open(home / "photos" / found.ids[number]).convert("RGB")
        width, height = photo.size
        short = min(width, height)
        photo = photo.resize((round(width * 40 / short), round(height * 40 / short)), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None].float()
        x = x - torch.tensor(metadata["mean"], dtype=torch.float32)[None, :, None, None]
        both = [plain_pool5(tensors, image).mean(dim=(2, 3))[0] for image in (x, x.flip(3))]
        expected = (both[0] + both[1]) / 2
        np.testing.assert_allclose(found.scales[40][number], expected.numpy(), rtol=1e-4, atol=1e-4)


def plain_pool5(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Net A's five stages, written out."""
    for stage in (["1_1"], ["2_1"], ["3_1", "3_2"], ["4_1", "4_2"], ["5_1", "5_2"]):
        for name in stage:
            x = F.relu(F.conv2d(x, tensors[f"conv{name}.weight"], tensors[f"conv{name}.bias"], padding=1))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def safetensors_header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


def test_layer_names() -> None:
    net = create_net("A-LRN", classes=3, crop=32, width=1 / 32)
    names = net.map_names()
    assert names[:3] == ("conv1_1-before-relu", "conv1_1", "pool1")
    assert names[-5:] == ("fc6-before-relu", "fc6", "fc7-before-relu", "fc7", "fc8")
    assert [name for name in names if name.startswith("pool")] == [f"pool{stage}" for stage in range(1, 6)]
    x = torch.randn(2, 3, 40, 52) * 50
    net.eval()
    with torch.no_grad():
        for name in names:
            cut = create_net("A-LRN", classes=3, crop=32, width=1 / 32).eval()
            cut.cut_after(name)
            torch.testing.assert_close(cut.activations(x, name), net.activations(x, name), msg=name)
        torch.testing.assert_close(net.activations(x, "fc7"), net.penultimate(x))
        torch.testing.assert_close(net.activations(x, "fc8"), net(x))
        for number, pooled in enumerate(net.stages(x), start=1):
            torch.testing.assert_close(net.activations(x, f"pool{number}"), pooled)
        for layer in ("conv3_2", "fc6"):
            before = net.activations(x, f"{layer}-before-relu")
            assert before.min() < 0
            torch.testing.assert_close(net.activations(x, layer), before.clamp(min=0))


def test_a_cut_net_has_no_weights_of_later_layers() -> None:
    net = create_net("D", classes=3, crop=32, width=1 / 32)
    net.cut_after("conv4_2")
    assert [spec.name for spec in net.specs][-1] == "conv4_2"
    assert not any(name.startswith(("conv4_3", "conv5", "fc")) for name in net.state_dict())


def test_a_batch_equals_single_images_and_an_image_its_mirror_image() -> None:
    net = create_net("A", classes=3, crop=32, width=1 / 16).eval()
    x = torch.randn(5, 3, 45, 52) * 50
    with torch.no_grad():
        together = descriptor(net, x, "fc7", "mean", mirror=True)
        alone = torch.cat([descriptor(net, one[None], "fc7", "mean", mirror=True) for one in x])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(descriptor(net, x.flip(3), "fc7", "mean", mirror=True), together)
        most = descriptor(net, x, "pool5", "max", mirror=False)
        torch.testing.assert_close(most, net.activations(x, "pool5").amax(dim=(2, 3)))


UNIT = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
OTHER = np.array([[0.0, 2.0], [3.0, 4.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("settings", "expected", "why"),
    [
        (("stack", "none"), [0.6, 0.8, 0, 2], "one after another, as they are"),
        (("stack", "scale"), [0.6, 0.8, 0, 1], "each of length 1"),
        (("stack", "both"), [0.6 / 2**0.5, 0.8 / 2**0.5, 0, 1 / 2**0.5], "and the whole too"),
        (("average", "none"), [0.3, 1.4], "the mean"),
        (("average", "scale"), [0.3, 0.9], "the mean of unit lengths"),
        (("max", "scale"), [0.6, 1.0], "the larger of each dimension"),
        (("average", "end"), [0.3 / 2.05**0.5, 1.4 / 2.05**0.5], "only the whole"),
    ],
)
def test_scales_together_by_hand(settings: tuple[Any, Any], expected: list[float], why: str) -> None:
    found = combine([{256: 5 * UNIT if settings[1] == "scale" else UNIT, 384: OTHER}], DescriptorSettings(*settings))
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, err_msg=why)


def test_stack_of_one_scale_is_that_scale_and_nets_are_stacked() -> None:
    for normalise in ("both", "scale", "end", "none"):
        found = [combine([{256: OTHER}], DescriptorSettings(how, normalise)) for how in ("stack", "average", "max")]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])
    two = combine([{256: UNIT}, {256: OTHER}], DescriptorSettings("average", "none"))
    np.testing.assert_array_equal(two, np.concatenate([UNIT, OTHER], axis=1))
    nothing = combine([{256: np.zeros((1, 3), np.float32)}], DescriptorSettings())
    assert not nothing.any()


def test_a_resumed_extraction_is_complete_and_computes_nothing_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(home, tmp_path / "whole.safetensors", layer="fc7", scales=(36, 44))
    settings, out = FeatureSettings(layer="fc7", scales=(36, 44)), tmp_path / "parts.safetensors"
    monkeypatch.setattr("verydeep.evaluation.inference.BATCH_IMAGES", 2)
    calls = iter(range(1000))
    stopping = Stopping(Silent(), lambda: next(calls) >= 6)
    with pytest.raises(Interrupted):
        extract_features(home / "run", str(home / "photos"), out, settings=settings, machine=HERE, reporter=stopping)
    assert not out.exists()
    first = sum(len(rows) for rows in Shards(next(tmp_path.glob("parts.safetensors.*.parts")), whole.key).rows.values())
    assert first == 14  # seven batches of two
    made = extract_features(home / "run", str(home / "photos"), out, settings=settings, machine=HERE)
    assert made.computed + first == 2 * len(whole)
    assert not list(tmp_path.glob("*.parts"))
    for scale in (36, 44):
        np.testing.assert_allclose(made.features.scales[scale], whole.scales[scale], rtol=1e-5, atol=1e-5)
    again = extract_features(home / "run", str(home / "photos"), out, settings=settings, machine=HERE)
    assert again.computed == 0
    more = replace(settings, scales=(36, 40))
    added = extract_features(home / "run", str(home / "photos"), out, settings=more, machine=HERE)
    assert added.computed == len(whole)
    assert list(load_features(out).scales) == [36, 40, 44]


def test_an_interrupted_scale_survives_the_extraction_of_another(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that computes nothing, as its scale is in the file."""
    out, photos = tmp_path / "f.safetensors", str(home / "photos")
    monkeypatch.setattr("verydeep.evaluation.inference.BATCH_IMAGES", 2)

    def made_at(scale: int, reporter: Reporter | None = None) -> Extraction:
        settings = FeatureSettings(layer="fc7", scales=(scale,))
        return extract_features(home / "run", photos, out, settings=settings, machine=HERE, reporter=reporter)

    images = len(made_at(36).features)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        made_at(44, Stopping(Silent(), lambda: next(calls) >= 3))
    assert made_at(36).computed == 0
    assert made_at(40).computed == images
    assert made_at(44).computed == images - 8  # four batches of two were finished
    assert not list(tmp_path.glob("*.parts"))


def test_shards_are_flushed_and_broken_or_foreign_ones_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    shards = Shards(tmp_path / "parts", "key")
    shards.add(256, [3, 1], rows)
    assert not (tmp_path / "parts").exists()  # they wait
    monkeypatch.setattr(features_file, "FLUSH_SECONDS", -1.0)
    shards.add(384, [0], rows[:1])
    assert len(list((tmp_path / "parts").iterdir())) == 1
    (tmp_path / "parts" / "00001.safetensors").write_bytes(b"torn")
    again = Shards(tmp_path / "parts", "key")
    assert again.has(256, 1)
    assert again.has(256, 3)
    assert again.has(384, 0)
    assert not again.has(384, 1)
    np.testing.assert_array_equal(again.whole(256, [1, 3]), rows[::-1])
    assert not Shards(tmp_path / "parts", "another").rows
    short = {"Q256": rows, "Q256/photos": np.array([7]), "Qx": rows, "Qx/photos": np.array([1, 2])}
    save_sealed(short, tmp_path / "parts" / "00002.safetensors", metadata={"key": "key"})
    assert not Shards(tmp_path / "parts", "key").has(256, 7)


def test_a_file_of_other_images_nets_or_protocols_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.safetensors"
    extract(home, out, layer="pool5", scales=(36,))
    before = out.read_bytes()
    other = make_photos(tmp_path / "other", per_class=4)
    for data, settings in (
        (str(home / "photos"), FeatureSettings(layer="pool4", scales=(36,))),
        (str(home / "photos"), FeatureSettings(layer="pool5", scales=(36,), mirror=False)),
        (str(other), FeatureSettings(layer="pool5", scales=(36,))),
    ):
        with pytest.raises(VerydeepError, match="already contains different descriptors: A pool5@36 of 30 images"):
            extract_features(home / "run", data, out, settings=settings, machine=HERE)
    assert out.read_bytes() == before


def test_a_file_round_trips_and_faults_are_reported(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    made = extract(home, path, layer="pool5", scales=(36, 44))
    found = load_features(path)
    assert (found.ids, found.classes, found.sets, found.key) == (made.ids, made.classes, made.sets, made.key)
    assert found.recipe == made.recipe
    assert found.title == "A pool5@36,44"
    np.testing.assert_array_equal(found.labels, made.labels)
    bad = {36: found.scales[36].copy()}
    bad[36][4, 2] = np.nan
    save_features(tmp_path / "nan.safetensors", replace(found, scales=bad))
    with pytest.raises(VerydeepError, match=f"NaN or infinite descriptors at Q = 36, first of image {found.ids[4]}"):
        load_features(tmp_path / "nan.safetensors")
    twice = replace(found, ids=(found.ids[1], *found.ids[1:]))
    short = replace(found, labels=found.labels[1:])
    for wrong in (twice, short, replace(found, scales={36: found.scales[36][:, :2], 44: found.scales[44]})):
        save_features(tmp_path / "wrong.safetensors", wrong)
        with pytest.raises(VerydeepError, match="has arrays of inconsistent shapes"):
            load_features(tmp_path / "wrong.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-7])
    save_sealed({"x": np.zeros(2)}, tmp_path / "other.safetensors", metadata={METADATA_KEY: "[]"})
    for name in ("torn", "other"):
        with pytest.raises(VerydeepError, match="not a features file, or corrupted"):
            load_features(tmp_path / f"{name}.safetensors")


def test_weight_files_without_fc_layers_give_pool5(tmp_path: Path) -> None:
    net = create_net("A", classes=3)
    tensors = {k: v.numpy() for k, v in net.state_dict().items() if k.startswith("conv")}
    told = {"channel_order": "BGR", "mean_bgr": "103.939,116.779,123.68", "input_range": "0-255"}
    path = tmp_path / "conv.safetensors"
    save_file(tensors, path, metadata=told)
    assert usual_layer(path) == "pool5"
    found = open_feature_net(path, "pool5")
    assert found.metadata.test_scale == 256
    assert found.metadata.mean == pytest.approx((123.68, 116.779, 103.939))
    np.testing.assert_array_equal(found.net.layer("conv1_1").weight.detach(), tensors["conv1_1.weight"][:, ::-1])
    with pytest.raises(VerydeepError, match="has no fc6, which fc7 needs: use --layer pool5 or an earlier one"):
        open_feature_net(path, "fc7")
    with pytest.raises(VerydeepError, match="net A has no layer 'conv9_1': its layers are conv1_1, pool1"):
        open_feature_net(path, "conv9_1")


def test_what_a_run_has_by_default(home: Path, tmp_path: Path) -> None:
    assert usual_layer(home / "run") == "fc7"
    found = extract(home, tmp_path / "f.safetensors")
    assert found.title == "A fc7@36"  # the run's own S
    assert set(found.sets) == {""}
    assert found.classes == ("blue", "green", "red")
    assert [found.classes[label] for label in found.labels] == [photo.split("/")[0] for photo in found.ids]
    assert verydeep.load_features(tmp_path / "f.safetensors").recipe["data"] == str(home / "photos")


def test_a_weight_file_that_lacks_a_convolution_is_refused(tmp_path: Path) -> None:
    tensors = {k: v.numpy() for k, v in create_net("D", 3, 32, 1 / 32).state_dict().items() if "conv4_3" not in k}
    told = {"net": "D", "channel_order": "BGR", "mean_bgr": "103.939,116.779,123.68", "input_range": "0-255"}
    save_file(tensors, tmp_path / "w.safetensors", metadata=told)
    with pytest.raises(VerydeepError, match="has layers of net D, but conv4_3 is missing"):
        open_feature_net(tmp_path / "w.safetensors", "pool5")


def test_a_nan_descriptor_is_not_stored(home: Path, tmp_path: Path) -> None:
    stored = load_file(home / "run" / "best.safetensors")
    metadata = safetensors_header(home / "run" / "best.safetensors")
    huge = {name: value * (1e30 if name == "conv2_1.weight" else 1) for name, value in stored.items()}
    huge = {name: value * (1e30 if name == "conv3_1.weight" else 1) for name, value in huge.items()}
    save_sealed(
        {name: value.astype(np.float32) for name, value in huge.items()}, tmp_path / "huge.safetensors", metadata
    )
    with pytest.raises(VerydeepError, match="a descriptor is NaN or infinite"):
        extract_features(
            tmp_path / "huge.safetensors",
            str(home / "photos"),
            tmp_path / "f.safetensors",
            settings=FeatureSettings(layer="pool5"),
            machine=HERE,
        )
    assert not (tmp_path / "f.safetensors").exists()


def test_scales_are_not_added_if_other_images_are_readable_now(tmp_path: Path, home: Path) -> None:
    photos = make_photos(tmp_path / "photos", per_class=3)
    good = (photos / "red" / "000.png").read_bytes()
    bad = b"no photo".ljust(len(good))
    (photos / "red" / "000.png").write_bytes(bad)
    (photos / "red" / "000.png").touch()
    stamp = (photos / "red" / "000.png").stat().st_mtime_ns
    settings = FeatureSettings(layer="pool5", scales=(36,))
    out, words = tmp_path / "f.safetensors", {"machine": HERE, "bad_images": "skip"}
    extract_features(home / "run", str(photos), out, settings=settings, **words)  # type: ignore[arg-type]
    (photos / "red" / "000.png").write_bytes(good)
    os.utime(photos / "red" / "000.png", ns=(stamp, stamp))  # as a disk that came back would show it
    with pytest.raises(VerydeepError, match="has 8 images, and 9 are readable now: use another --out"):
        extract_features(home / "run", str(photos), out, settings=replace(settings, scales=(44,)), **words)  # type: ignore[arg-type]
