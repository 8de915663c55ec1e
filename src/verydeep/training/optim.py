"""Sect. 3.1: SGD with momentum, and the learning rate schedule: divided by 10 at each plateau of the dev error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.settings import TrainSettings
from ..models.vgg import Net

LEFT_CHANCE = 0.9  # of the error, or the loss, of a constant guess


@dataclass(frozen=True)
class Plateau:
    """The schedule's state: the learning rate drops after ``patience`` epochs without improvement of the dev error.

    ``best`` is the error of the last improvement, in percent; ``stale`` the epochs since; ``drops`` how
    often the rate was divided by 10; ``finished`` is set at the plateau after the last drop.
    """

    best: float | None = None
    stale: int = 0
    drops: int = 0
    finished: bool = False

    def after(self, epoch: int, error: float, chance: float, settings: TrainSettings) -> Plateau:
        """The state after epoch number ``epoch`` (from 1), whose dev top-1 error was ``error`` percent.

        With ``drop_at`` the rate drops after the listed epochs, and training does not stop early. With
        ``hold_at_chance``, epochs count only once the error has been below `LEFT_CHANCE` of ``chance``: the error of a
        deep net stays at chance for many steps before it falls.
        """
        if settings.drop_at:
            best = error if self.best is None else min(self.best, error)
            return Plateau(best, 0, sum(epoch >= when for when in settings.drop_at))
        if self.best is None or (error < self.best and error <= self.best - settings.improvement):
            return Plateau(error, 0, self.drops)
        if settings.hold_at_chance and self.best > LEFT_CHANCE * chance:
            return Plateau(self.best, 0, self.drops)
        if self.stale + 1 < settings.patience:
            return Plateau(self.best, self.stale + 1, self.drops)
        return Plateau(self.best, 0, min(self.drops + 1, settings.drops), finished=self.drops == settings.drops)


@dataclass(frozen=True)
class TrainState:
    """The state of a training: all that resuming needs beside weights and momentum.

    ``batch`` counts the steps done in epoch ``epoch``; ``sums`` are that epoch's loss, wrong predictions and images so
    far; ``best`` is the dev error and loss of epoch ``best_epoch``; ``random`` names the layers that started random;
    ``at_once`` is the micro-batch size, which a resumed run keeps; ``scaler`` is the state of fp16's loss scaling.
    ``returns`` has the reason for each return to the best epoch, and ``diverged`` why training ended there.
    ``probe_error`` is the dev error in percent of linear SVMs on the start's descriptors, or None.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    sums: tuple[float, int, int] = (0.0, 0, 0)
    random: tuple[str, ...] = ()
    at_once: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    returns: tuple[str, ...] = ()
    diverged: str = ""
    probe_error: float | None = None

    @staticmethod
    def from_json(values: dict[str, Any]) -> TrainState:
        """Reads what `dataclasses.asdict` wrote."""
        loss, wrong, images = values["sums"]
        return TrainState(
            **{
                **values,
                "plateau": Plateau(**values["plateau"]),
                "sums": (loss, wrong, images),
                "best": None if values["best"] is None else (values["best"][0], values["best"][1]),
                "random": tuple(values["random"]),
                "returns": tuple(values.get("returns", ())),
            }
        )


def optimiser(net: Net, settings: TrainSettings) -> torch.optim.SGD:
    """SGD over the layers in order; biases have their own learning rate and decay, as in Oxford's files."""
    weights = [net.layer(spec.name).weight for spec in net.specs]
    biases = [bias for spec in net.specs if (bias := net.layer(spec.name).bias) is not None]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay, "factor": 1.0},
        {"params": biases, "weight_decay": settings.bias_weight_decay, "factor": settings.bias_lr},
    ]
    fused = weights[0].device.type in ("cpu", "cuda")
    sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    set_rate(sgd, settings.lr)
    for parameter in (*weights, *biases):  # the buffers of a first step are 0; fused SGD needs all or none
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def set_rate(sgd: torch.optim.SGD, rate: float) -> None:
    """Sets the learning rate of weights, and that of biases by its factor."""
    for group in sgd.param_groups:
        group["lr"] = rate * group["factor"]


def drop_rate(sgd: torch.optim.SGD, old: float, new: float, rescale: bool) -> None:
    """Changes the learning rate; with ``rescale`` the next steps equal Caffe's.

    Caffe keeps the rate inside the velocity (V = m·V + lr·g), PyTorch outside (V = m·V + g, lr·V), so
    Caffe's next step still carries the old rate's momentum: multiplying the buffers by old/new does that.
    """
    set_rate(sgd, new)
    if rescale:
        for buffer in momentum_buffers(sgd).values():
            buffer.mul_(old / new)


def momentum_buffers(sgd: torch.optim.SGD) -> dict[Tensor, Tensor]:
    """The momentum buffer of each parameter."""
    return {parameter: state["momentum_buffer"] for parameter, state in sgd.state.items()}


def learning_layers(net: Net, settings: TrainSettings, random: list[str], head: bool) -> list[str]:
    """Names of the trained layers: those that started random during the ``head`` epochs, else those of `learn`."""
    names = [spec.name for spec in net.specs]
    if head:
        return [name for name in names if name in random]
    return {"all": names, "fc": names[-3:], "last": names[-1:]}[settings.learn]


def freeze_all_but(net: Net, names: list[str]) -> None:
    """Disables the gradients of all but the named layers."""
    for spec in net.specs:
        net.layer(spec.name).requires_grad_(spec.name in names)
