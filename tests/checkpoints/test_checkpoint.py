"""A net on disk, and starting one net from another (Sect. 3.1)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import SHARED
from verydeep import create_net
from verydeep.checkpoints.checkpoint import (
    Metadata,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from verydeep.checkpoints.preprocessing import MEAN_RGB
from verydeep.checkpoints.pretrained import read_weights
from verydeep.core.errors import VerydeepError
from verydeep.core.files import only_one, write_atomically
from verydeep.models.vgg import Net
from verydeep.training.initialise import PRE_INITIALISED, start_from

CARD = Metadata("B", 32, 1 / 16, ("a", "b", "c"), (1.5, 2.5, 3.5), 36)


def small(name: str = "B", classes: int = 3, seed: int = 0, crop: int = 32, width: float = 1 / 16) -> Net:
    return create_net(name, classes, crop, width, seed=seed)


def test_save_and_load_are_bitwise_equal(tmp_path: Path) -> None:
    net = small(seed=9).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    momentum = {name: torch.rand_like(value) for name, value in net.named_parameters()}
    save_checkpoint(tmp_path / "x.safetensors", net, replace(CARD, state={"step": 3, "lr": 0.1}), momentum)
    found = load_checkpoint(tmp_path / "x.safetensors")
    assert found.metadata == replace(CARD, state={"step": 3, "lr": 0.1})
    for name, value in net.named_parameters():
        assert torch.equal(dict(found.net().named_parameters())[name], value)
        assert torch.equal(found.momentum[name], momentum[name])
    assert len(found.sha256) == 64
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_truncated_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, small(), CARD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VerydeepError, match=r"x\.safetensors is corrupted"):
        load_checkpoint(path)


def test_metadata_of_another_net_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", small("B"), replace(CARD, net="D"))
    with pytest.raises(VerydeepError, match="does not contain the net D"):
        load_checkpoint(tmp_path / "x.safetensors").net()


def test_weights_without_metadata_are_refused(tmp_path: Path) -> None:
    save_file(dict(small().state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(VerydeepError, match="no verydeep metadata"):
        load_checkpoint(tmp_path / "w.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(VerydeepError, match=r"No space left on device; the one saved before is intact"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["B", "C", "D", "E"])
def test_deeper_nets_copy_four_conv_and_three_fc_layers_of_a(name: str) -> None:
    """Sect. 3.1; for E exactly 4 + 3 of its 19 layers, and the rest as drawn."""
    source, net, drawn = small("A", seed=1), small(name, seed=2), small(name, seed=2)
    done = start_from(net, source.state_dict(), "A", classes_equal=True)
    assert done.copied == PRE_INITIALISED
    assert set(done.random) == {spec.name for spec in net.specs} - set(PRE_INITIALISED)
    for spec in net.specs:
        origin = source if spec.name in PRE_INITIALISED else drawn
        assert torch.equal(net.layer(spec.name).weight, origin.layer(spec.name).weight)
    assert done.lines()[0] == "copied 7 layers: conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8"
    assert done.lines()[1].startswith(f"random {len(net.specs) - 7} layers: conv1_2, ")


def test_the_same_net_copies_all_layers_and_other_classes_need_a_new_head() -> None:
    source = small("D", seed=1)
    same, renamed, more = small("D", seed=2), small("D", seed=2), small("D", classes=5, seed=2)
    assert len(start_from(same, source.state_dict(), "D", classes_equal=True).copied) == 16
    assert start_from(renamed, source.state_dict(), "D", classes_equal=False).random == {"fc8": "its classes differ"}
    done = start_from(more, source.state_dict(), "D", classes_equal=False)
    assert list(done.random) == ["fc8"]
    assert torch.equal(more.layer("conv5_3").weight, source.layer("conv5_3").weight)
    assert torch.equal(more.layer("fc8").weight, small("D", classes=5, seed=2).layer("fc8").weight)


def test_a_start_of_another_width_is_refused() -> None:
    with pytest.raises(VerydeepError, match=r"no layer of net B .* fits the initial weights, of net B"):
        start_from(small("B"), small("B", width=1 / 8).state_dict(), "B", classes_equal=False)


def test_another_crop_leaves_the_first_fc_layer_random() -> None:
    done = start_from(small("A", crop=64), small("A", crop=32).state_dict(), "A", classes_equal=True)
    assert list(done.random) == ["fc6"]


def conv_file(path: Path, metadata: dict[str, str] | None, swap: bool = False) -> Net:
    """The convolutions of a full-width net A in a file, with its first layer for RGB or, swapped, BGR."""
    net = create_net("A", classes=2, crop=32, seed=8)
    tensors = {name: value.half() for name, value in net.state_dict().items() if name.startswith("conv")}
    if swap:
        tensors["conv1_1.weight"] = tensors["conv1_1.weight"].flip(1).contiguous()
    save_file(tensors, path, metadata=metadata)
    return net


BGR = {"channel_order": "BGR", "mean_bgr": "103.939,116.779,123.68", "input_range": "0-255"}


def test_a_bgr_file_is_flipped_to_rgb(tmp_path: Path) -> None:
    net = conv_file(tmp_path / "bgr.safetensors", BGR, swap=True)
    found = read_weights(str(tmp_path / "bgr.safetensors"))
    assert found.net == "A"
    assert found.mean == pytest.approx(MEAN_RGB)
    expected = net.layer("conv1_1").weight.half().float()
    assert torch.equal(found.tensors["conv1_1.weight"], expected)
    assert not torch.allclose(found.tensors["conv1_1.weight"].flip(1), expected)


def test_unrecorded_preprocessing_is_never_guessed(tmp_path: Path) -> None:
    net = conv_file(tmp_path / "x.safetensors", None)
    with pytest.raises(VerydeepError, match="pass --preprocessing caffe"):
        read_weights(str(tmp_path / "x.safetensors"))
    assert read_weights(str(tmp_path / "x.safetensors"), "rgb-mean").mean == pytest.approx(MEAN_RGB)
    found = read_weights(str(tmp_path / "x.safetensors"), "torchvision")
    photo = torch.rand(1, 3, 20, 20) * 255
    weight = net.layer("conv1_1").weight.half().float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = torch.conv2d((photo / 255 - mean[:, None, None]) / std[:, None, None], weight, padding=1)
    ours = photo - torch.tensor(found.mean)[:, None, None]
    torch.testing.assert_close(
        torch.conv2d(ours, found.tensors["conv1_1.weight"], padding=1), theirs, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("nan", "NaN or infinite values in conv2_1.weight"),
        ("missing", "is missing the weight of the layer conv4_2"),
        ("grey", "it does not take RGB images"),
    ],
)
def test_invalid_weight_files(tmp_path: Path, change: str, says: str) -> None:
    net = create_net("A", classes=2, crop=32)
    tensors = {name: value.clone() for name, value in net.state_dict().items() if name.startswith("conv")}
    metadata = dict(BGR)
    if change == "nan":
        tensors["conv2_1.weight"][0] = float("nan")
    elif change == "missing":
        del tensors["conv4_2.weight"]
    else:
        tensors["conv1_1.weight"] = tensors["conv1_1.weight"][:, :1].contiguous()
        metadata["net"] = "A"
    save_file(tensors, tmp_path / "w.safetensors", metadata=metadata)
    with pytest.raises(VerydeepError, match=says):
        read_weights(str(tmp_path / "w.safetensors"))


def test_the_shared_ilsvrc_layers_load_with_their_preprocessing() -> None:
    path = SHARED / "weights" / "net_d_conv_ilsvrc.safetensors"
    if not path.exists():
        pytest.skip("the ILSVRC layers are not on this machine")
    found = read_weights(str(path))
    assert found.net == "D"
    assert found.mean == pytest.approx(MEAN_RGB)
    done = start_from(create_net("D", classes=3, crop=32), found.tensors, found.net, classes_equal=False)
    assert len(done.copied) == 13
    assert set(done.random) == {"fc6", "fc7", "fc8"}
    raw = load_file(path)["conv1_1.weight"].float()
    assert torch.equal(found.tensors["conv1_1.weight"], raw[:, [2, 1, 0]])


def flipped(path: Path, bit: int) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_any_changed_bit_is_detected(tmp_path: Path) -> None:
    """All bits of the length and the header's ends, and some of all over the file, by the card and by the whole."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, small(), replace(CARD, state={"step": 3}))
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(0)
    chosen = [*range(64 + 32), *range(8 * header - 64, 8 * header), *rng.integers(64, 8 * header, 300).tolist()]
    for bit in chosen:
        flipped(path, bit)
        for read in (load_checkpoint, read_metadata):
            with pytest.raises(VerydeepError, match=r"x\.safetensors"):
                read(path)
        path.write_bytes(good)
    for bit in rng.integers(8 * header, 8 * len(good), 50).tolist():
        flipped(path, bit)
        with pytest.raises(VerydeepError, match=r"x\.safetensors is corrupted: its bytes are not those"):
            load_checkpoint(path)
        assert read_metadata(path).state == {"step": 3}  # the header is as it was written
        path.write_bytes(good)
    assert load_checkpoint(path).metadata.state == {"step": 3}


def test_other_readers_of_safetensors_read_checkpoints(tmp_path: Path) -> None:
    net = small()
    save_checkpoint(tmp_path / "x.safetensors", net, CARD)
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())


def test_the_previous_file_is_kept_until_the_next_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, previous = tmp_path / "x", tmp_path / "previous"
    for seed in range(3):
        save_checkpoint(path, small(seed=seed), CARD, previous=previous)
    kept = [load_checkpoint(each).weights["fc8.weight"] for each in (path, previous)]
    assert torch.equal(kept[0], small(seed=2).layer("fc8").weight)
    assert torch.equal(kept[1], small(seed=1).layer("fc8").weight)
    monkeypatch.setattr(os, "fsync", lambda _handle: flipped(next(tmp_path.glob(".x.*")), 40_000))
    with pytest.raises(VerydeepError, match=r"x could not be saved: its disk returns other bytes"):
        save_checkpoint(path, small(seed=3), CARD, previous=previous)
    for each, before in zip((path, previous), kept, strict=True):
        assert torch.equal(load_checkpoint(each).weights["fc8.weight"], before)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["previous", "x"]


def test_the_previous_file_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    for seed in range(2):
        save_checkpoint(tmp_path / "x", small(seed=seed), CARD, previous=tmp_path / "previous")
    assert torch.equal(load_checkpoint(tmp_path / "x").weights["fc8.weight"], small(seed=1).layer("fc8").weight)
    assert torch.equal(load_checkpoint(tmp_path / "previous").weights["fc8.weight"], small(seed=0).layer("fc8").weight)


def test_a_locked_directory_is_cleaned_and_other_processes_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".last.safetensors.123.tmp").write_text("half")
    (tmp_path / ".mine.tmp").write_text("kept")
    with only_one(tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == [".mine.tmp"]
        with pytest.raises(VerydeepError, match="another process is using"), only_one(tmp_path):
            pass
    with only_one(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()  # nothing was put there
