"""Facts of the machine: choices by arithmetic, memory, refusals."""

import pytest
import torch

from verydeep import VerydeepError, create_net
from verydeep.core.device import resolve_device
from verydeep.core.processors import cores
from verydeep.core.settings import MachineSettings
from verydeep.models.architectures import net_facts
from verydeep.models.vgg import Net
from verydeep.training.memory import largest_micro_batch, training_bytes


def test_small_nets_leave_cores_to_the_workers_and_large_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verydeep.core.device.cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    doll, full = net_facts("A", crop=64, width=1 / 8).multiply_adds, net_facts("D").multiply_adds
    wish = MachineSettings(device="cpu", workers=1)
    assert resolve_device(wish, doll).threads == 3
    assert resolve_device(wish, full).threads == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "2,8")
    assert resolve_device(wish, full).threads == 2
    assert resolve_device(wish, full).loaders.count == 1
    assert resolve_device(MachineSettings(device="cpu", threads=3), full).threads == 3


def test_a_cpu_computes_in_float32_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device(MachineSettings(device="cpu"), 1).autocast_dtype is None
    assert resolve_device(MachineSettings(device="cpu", precision="bf16"), 1).autocast_dtype is torch.bfloat16
    with pytest.raises(VerydeepError, match="device cuda is not available"):
        resolve_device(MachineSettings(device="cuda"), 1)
    with pytest.raises(VerydeepError, match="workers must be -1 to 512"):
        MachineSettings(workers=-2)


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    machine = resolve_device(MachineSettings(device="cpu", threads=before + 1), 1)
    with machine.running():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert cores() >= 1


def test_micro_batches_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = net_facts("D")
    machine = resolve_device(MachineSettings(device="cpu"), 1)
    monkeypatch.setattr("verydeep.training.memory.free_bytes", lambda device: training_bytes(facts, 70) / 0.8)
    assert largest_micro_batch(facts, 256, machine) == 64
    assert largest_micro_batch(facts, 16, machine) == 16
    monkeypatch.setattr("verydeep.training.memory.free_bytes", lambda device: 1e9)
    with pytest.raises(VerydeepError, match=r"net D at crop 224 needs 1\.\d GiB for one image and 0\.9 GiB are free"):
        largest_micro_batch(facts, 256, machine)


def saved_bytes(net: Net) -> int:
    """What autograd keeps of a forward pass of four crops, without the weights."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(torch.zeros(4, 3, 96, 96))
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    return sum(size for pointer, size in saved.items() if pointer not in weights)


def test_the_estimate_covers_what_autograd_saves() -> None:
    """Against the bytes autograd really saves, for a net of which nothing else is large."""
    kept = saved_bytes(create_net("D", classes=10, crop=96, width=1 / 4).train())
    facts = net_facts("D", classes=10, crop=96, width=1 / 4)
    estimate = training_bytes(facts, 4) - training_bytes(facts, 0)
    assert kept <= estimate <= 2 * kept


def test_recomputed_maps_are_not_saved() -> None:
    """Between the forward and the backward pass only maps between stages are; the estimate has a stage more."""
    net = create_net("D", classes=10, crop=96, width=1 / 4).train()
    net.recompute = True
    floats = 3 * 96**2 + sum(net.layer(f"conv{stage}_3").out_channels * (96 >> stage) ** 2 for stage in (3, 4, 5))
    floats += sum(net.layer(f"conv{stage}_2").out_channels * (96 >> stage) ** 2 for stage in (1, 2))
    assert 4 * 4 * floats <= saved_bytes(net) <= 1.2 * 4 * 4 * floats  # and the FC layers' few
    facts = net_facts("D", classes=10, crop=96, width=1 / 4)
    of_photos = [training_bytes(facts, 4, recompute) - training_bytes(facts, 0) for recompute in (False, True)]
    # Net D's first stage has half of all maps.
    assert 0.4 * of_photos[0] < of_photos[1] < 0.75 * of_photos[0]
