"""The learning-rate range test (Smith 2017): at which learning rates does the loss of these data fall?

Training starts as `train` does, with the same seed, and takes `STEPS` steps whose learning rate rises exponentially
from `LOWEST` to `HIGHEST`. The loss of each batch, before its step, is smoothed by an exponential moving average with
bias correction. The test ends where the smoothed loss is above `DIVERGED` times its minimum, or is not finite. The
suggestion is the rate at which the smoothed loss falls most steeply by the logarithm of the rate, without the first
steps, whose mean is of few losses, and the last. These are the rules and values of PyTorch Lightning's `lr_find`, but
for the lowest rate, which is 1e-8 there, and that nothing is suggested where the loss does not leave chance: it then
moves by noise and by the size of the outputs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.settings import DataSettings, TrainSettings
from .optim import LEFT_CHANCE
from .run import TrainingRun, prepare

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
BETA = 0.98  # of the moving average
DIVERGED = 4.0  # times the smallest smoothed loss
SKIP_FIRST, SKIP_LAST = 10, 1  # steps that are not suggested


@dataclass(frozen=True)
class RateTest:
    """The loss at each learning rate, from the lowest on, and smoothed; ``lr`` is the rate that `train` would use.

    ``suggestion`` is None where the loss stays at chance; ``diverged_at`` is the rate that ended the test, if any.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    diverged_at: float | None
    lr: float

    @property
    def sentence(self) -> str:
        """What the test says about the learning rate."""
        if self.suggestion is None:
            return f"The loss stays at chance in these {len(self.rates)} steps, so no learning rate is suggested."
        end = "" if self.diverged_at is None else f" and diverges at {self.diverged_at:.2g}"
        return f"The loss falls fastest at a learning rate of {self.suggestion:.2g}{end}; train would use {self.lr:g}."

    def to_json(self) -> dict[str, Any]:
        """``{suggestion, lr, diverged_at, steps: [{lr, loss, smoothed_loss}]}``."""
        columns = zip(self.rates, self.losses, self.smoothed, strict=True)
        return {
            "suggestion": self.suggestion,
            "lr": self.lr,
            "diverged_at": self.diverged_at,
            "steps": [{"lr": rate, "loss": loss, "smoothed_loss": smooth} for rate, loss, smooth in columns],
        }


def range_test(run: TrainingRun, data: DataSettings, settings: TrainSettings) -> RateTest:
    """Runs the test with the settings of a training; writes nothing.

    Raises:
        VerydeepError: as `verydeep.train`.
    """
    trainer = prepare(run, data, settings).trainer(run, None)
    rates = tuple(np.geomspace(LOWEST, HIGHEST, STEPS).tolist())
    losses: list[float] = []
    smoothed: list[float] = []
    with trainer.machine.running(static_shapes=True), run.reporter.track("testing learning rates", STEPS) as advance:
        for rate, (loss, smooth) in zip(rates, _smoothed(trainer.losses_at(rates)), strict=False):
            if smooth > DIVERGED * min(smoothed, default=smooth):
                break
            losses.append(loss)
            smoothed.append(smooth)
            advance(1, f"lr {rate:.1e}  loss {smooth:.3f}")
    count = len(losses)
    diverged_at = rates[count] if count < STEPS else None
    learns = min(smoothed, default=0.0) < LEFT_CHANCE * run.task.chance_loss(trainer.sets["dev"])
    suggestion = steepest(rates, smoothed) if learns else None
    return RateTest(rates[:count], tuple(losses), tuple(smoothed), suggestion, diverged_at, trainer.settings.lr)


def _smoothed(losses: Iterator[float]) -> Iterator[tuple[float, float]]:
    """Each loss, and the mean of all so far with weights that fall by `BETA` a step."""
    total = 0.0
    for number, loss in enumerate(losses, start=1):
        total = BETA * total + (1 - BETA) * loss
        yield loss, total / (1 - BETA**number)


def steepest(rates: tuple[float, ...], smoothed: list[float]) -> float | None:
    """The rate of the steepest fall of the smoothed losses; None where they do not fall, or are too few."""
    considered = smoothed[SKIP_FIRST : len(smoothed) - SKIP_LAST]
    if len(considered) < 2:
        return None
    slopes = np.gradient(considered)  # rates are equally far apart in their logarithm
    return rates[SKIP_FIRST + int(slopes.argmin())] if slopes.min() < 0 else None
