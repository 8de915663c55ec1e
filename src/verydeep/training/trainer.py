"""Sect. 3.1: the training loop, from random weights or from those of another net, resumable after any step.

One epoch takes one random crop of each training image; then the dev part is evaluated and the plateau rule applied.
Every random draw depends on (seed, epoch, image), so a resumed training is bitwise equal to an uninterrupted one on the
same machine.

Training diverges where a loss, a gradient or the dev part's posteriors are not finite, and, if it may retry, where
the dev loss is no better than chance and twice the best epoch's. It then returns to the weights of its best epoch, with
a tenth of the learning rate and no momentum, `divergence_retries` times at most; after that it stops at that epoch. If
it may retry, the initial weights are evaluated as epoch 0, so the result is never worse than the start.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.checkpoint import Checkpoint, Metadata, load_checkpoint, save_checkpoint
from ..checkpoints.run_dir import BEST, LAST, PREVIOUS, RunLog
from ..core.device import Machine, free_bytes
from ..core.errors import Diverged, VerydeepError
from ..core.files import write_json
from ..core.out_of_memory import within_memory
from ..core.progress import Interrupted, Reporter, Stopping
from ..core.settings import TrainSettings
from ..core.team import Team
from ..data.dataloader import Batch, TrainingLoader
from ..data.open import Dataset
from ..models.map_cache import MapCache
from ..models.vgg import Head, Net
from .optim import (
    LEFT_CHANCE,
    TrainState,
    drop_rate,
    freeze_all_but,
    learning_layers,
    momentum_buffers,
    optimiser,
    set_rate,
)
from .task import Task

SAVE_EVERY_SECONDS = 900.0
CACHE_SHARE = 0.25  # of the free memory, for the maps of frozen convolutions


@dataclass(frozen=True)
class TrainStart:
    """What training starts or resumes from; ``momentum`` is by parameter name, empty before step 1."""

    net: Net
    metadata: Metadata
    settings: TrainSettings
    sets: dict[str, Dataset]
    state: TrainState
    momentum: dict[str, Tensor]


class Trainer:
    """Trains a net: model, optimiser and state; `run` trains to the end."""

    def __init__(
        self,
        task: Task,
        start: TrainStart,
        machine: Machine,
        folder: Path,
        log: RunLog | None,
        reporter: Reporter,
        team: Team,
    ) -> None:
        self.net, self.metadata, self.settings, self.sets = start.net, start.metadata, start.settings, start.sets
        self.machine, self.folder, self.reporter = machine, folder, reporter
        self.state, self._task, self._team, self._log = start.state, task, team, log
        self.net.recompute = machine.recompute
        self._placed = machine.place_model(self.net)
        self._sgd = optimiser(self.net, self.settings)
        set_rate(self._sgd, self.rate)
        buffers = momentum_buffers(self._sgd)
        for name, parameter in self.net.named_parameters():
            if name in start.momentum:
                buffers[parameter].copy_(start.momentum[name])
        self._scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.autocast_dtype == torch.float16)
        if self.state.scaler:
            self._scaler.load_state_dict(self.state.scaler)
        weights = task.class_weights(self.sets["train"], self.settings)
        self._class_weights = None if weights is None else weights.to(machine.device)
        self._minus_mean = -torch.tensor(self.metadata.mean, dtype=torch.float32, device=machine.device)[None]
        self._only_fc = False  # whether the trained layers take the maps of whole images
        frozen = self.settings.learn != "all" and machine.device.type == "cpu"
        self._cache = MapCache(int(CACHE_SHARE * free_bytes(machine.device))) if frozen else None

    @property
    def rate(self) -> float:
        """The current learning rate."""
        return self.settings.lr / float(10 ** (self.state.plateau.drops + len(self.state.returns)))

    def run(self, stop: Callable[[], bool], saved: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Trains to the end, or until ``stop()`` is true after a step; returns the content of result.json.

        Args:
            saved: called when the directory has changed: before the first step, and after each epoch.

        Raises:
            VerydeepError: an image cannot be read, the disk is full.
        """
        loader = self._loader()
        if self.state.step == 0:
            if self.settings.divergence_retries:
                self._validate_start(stop)
            self._save(LAST)
        saved()
        started = time.monotonic()
        ended = self._ended()
        while ended is None:
            try:
                if not self._epoch(loader, stop):
                    ended = "interrupted"
                    break
            except Diverged as fault:
                self._return_to_best(str(fault))
            saved()
            ended = self._ended()
        if ended == "interrupted":
            self._save(LAST)
        return self._result(ended, time.monotonic() - started)

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """Takes a step at each learning rate; yields the mean loss of each step's batch, before the step.

        It ends early where a loss or a gradient is not finite. The layers learn that do after the head epochs; epochs
        follow each other without validation, and nothing is saved.
        """
        loader, learner = self._loader(), self._learner(learning_layers(self.net, self.settings, [], head=False))
        batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
        steps = -(-len(self.sets["train"]) // self.settings.batch)
        for number, (rate, batch) in enumerate(zip(rates, batches, strict=False)):
            set_rate(self._sgd, rate)
            self.state = replace(self.state, batch=number % steps, sums=(0.0, 0, 0))
            try:
                self._step(learner, batch)
            except Diverged:
                return
            yield self.state.sums[0] / self.state.sums[2]

    def close_log(self) -> None:
        """Ends the run in its trackers."""
        if self._log is not None:
            self._log.close()

    def _loader(self) -> TrainingLoader:
        return TrainingLoader(
            self.sets["train"],
            self.settings,
            np.array(self.metadata.colour_axes),
            sum(self.net.dropout_units),
            self.machine.loaders,
            self._task.targets(self.sets["train"]),
            self._team,
        )

    def _learner(self, learning: list[str]) -> Callable[..., Any]:
        """The callable that steps call, of which only the layers ``learning`` are trained."""
        freeze_all_but(self.net, learning)
        self.net.train(self._task.dropout)  # training mode changes dropout only
        self.net.map_cache = self._cache if _sees_images_again(self.settings) else None
        self._only_fc = self.settings.context == "photo" and not any(name.startswith("conv") for name in learning)
        return self._team.wrap_ddp(Head(self.net) if self._only_fc else self._placed, self.machine.bf16_gradients)

    def _ended(self) -> str | None:
        if self.state.diverged:
            return "diverged"
        if self.state.plateau.finished:
            return "plateau"
        if self.state.step >= self.settings.max_steps and not self.state.batch:  # the last epoch is validated
            return "max_steps"
        return "max_epochs" if self.state.epoch >= self.settings.max_epochs else None

    def _epoch(self, loader: TrainingLoader, stop: Callable[[], bool]) -> bool:
        """Trains the rest of an epoch and validates; False where ``stop`` interrupted it."""
        head = self.state.epoch < self.settings.head_epochs and bool(self.state.random)
        learning = learning_layers(self.net, self.settings, list(self.state.random), head)
        learner = self._learner(learning)
        started, saved, first = time.monotonic(), time.monotonic(), self.state.sums[2]
        label = f"epoch {self.state.epoch + 1}" + (f" ({', '.join(learning)} only)" if head else "")
        with self.reporter.track(label, len(self.sets["train"])) as advance:
            advance(first, "")
            for batch in loader.epoch(self.state.epoch, self.state.batch):
                if self.state.step >= self.settings.max_steps:
                    break
                seen = self.state.sums[2]
                self._step(learner, batch)
                advance(self.state.sums[2] - seen, self._note(started, first))
                if self._team.all_reduce(stop())[0]:  # all processes stop after the same step
                    return False
                if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                    self._save(LAST)
                    saved = time.monotonic()
        try:
            self._close_epoch(head, time.monotonic() - started, self.state.sums[2] - first, stop)
        except Interrupted:
            return False
        except RuntimeError:
            if not stop():
                raise
            return False  # all were interrupted, and another process left first
        return True

    def _note(self, started: float, first: int) -> str:
        loss, wrong, seen = self.state.sums
        speed = (seen - first) / max(time.monotonic() - started, 1e-9)
        return f"loss {loss / seen:.3f}  error {100 * wrong / seen:.1f} %  lr {self.rate:.0e}  {speed:.1f} img/s"

    def _step(self, learner: Callable[..., Any], batch: Batch) -> None:
        """One step of SGD on the mean loss of the batch, accumulated over its micro-batches and the team's shards."""
        first = self.state.batch * self.settings.batch
        total = min(self.settings.batch, len(self.sets["train"]) - first)
        batch, at_once = batch.to(self.machine.device), self.state.at_once
        size = max(1, min(at_once, len(batch.labels)))
        least = size if self._team.size > 1 else 1  # another process would wait for a gradient that is not computed
        (loss_sum, wrong), fits = within_memory(partial(self._gradients, learner, batch, total), size, least)
        loss_sum, wrong = self._team.all_reduce(loss_sum, wrong)
        if not (math.isfinite(loss_sum) and self._gradient_is_finite()):
            raise Diverged(f"the loss or its gradient is not finite {self._where(self.state.step + 1)}")
        self._scaler.step(self._sgd)
        self._scaler.update()
        before = self.state
        sums = (before.sums[0] + loss_sum, before.sums[1] + int(wrong), before.sums[2] + total)
        at_once = fits if fits < size else at_once
        self.state = replace(before, step=before.step + 1, batch=before.batch + 1, sums=sums, at_once=at_once)

    def _gradients(self, learner: Callable[..., Any], batch: Batch, total: int, at_once: int) -> tuple[float, float]:
        """Adds up the gradients of a shard's micro-batches; returns the sum of its losses, and how many are wrong.

        Args:
            total: the number of images of the whole batch.
            at_once: the micro-batch size.
        """
        loss_sum, wrong = 0.0, 0.0
        self._sgd.zero_grad(set_to_none=True)
        parts = list((self._windows(batch, at_once) if self._only_fc else batch).parts(at_once))
        for number, part in enumerate(parts, start=1):
            inputs = part.images if self._only_fc else self._input(part)
            with self._team.no_sync(learner, last=number == len(parts)):
                with self.machine.autocast():
                    outputs = learner(inputs, part.keep, part.cells).flatten(1)
                loss, count = self._task.batch_loss(outputs, part, self._class_weights)
                # DDP averages gradients over shards of unequal size; the loss is the mean over the whole batch.
                share = loss * self._team.size / total
                self._scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.item()
            wrong += count
        return loss_sum, wrong

    def _input(self, part: Batch) -> Tensor:
        return self.machine.to_input(part.images, part.shift + self._minus_mean)

    def _windows(self, batch: Batch, at_once: int) -> Batch:
        """A batch of whole images of any sizes as one of the windows that fc6 sees, (B,D,k,k)."""
        with self.machine.autocast():
            windows = [self.net.windows(self._input(part), part.cells) for part in batch.parts(at_once)]
        return replace(batch, images=torch.cat(windows), places=torch.zeros((len(batch.labels), 0), dtype=torch.int64))

    def _gradient_is_finite(self) -> bool:
        """Whether a step can be taken; fp16's gradient scaler skips such steps by itself."""
        gradients = [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]
        return self._scaler.is_enabled() or bool(torch.nn.utils.get_total_norm(gradients).isfinite())

    def _where(self, step: int) -> str:
        return f"at step {step} (epoch {self.state.epoch + 1}, learning rate {self.rate:g})"

    def _validate(self, stop: Callable[[], bool]) -> tuple[float, float]:
        """The dev error in percent, and the dev loss."""
        self.net.eval()
        self.net.map_cache = self._cache
        watched = Stopping(self.reporter, stop)
        return self._task.validate(self.net, self.metadata, self.sets["dev"], self.machine, watched, self._team)

    def _validate_start(self, stop: Callable[[], bool]) -> None:
        """Validates the initial weights as epoch 0."""
        error, loss = self._validate(stop)
        if math.isfinite(error):
            self.state = replace(self.state, best=(error, loss))
            self._save(BEST)

    def _blown_up(self, loss: float) -> bool:
        """Whether a dev loss is no better than chance, though that of an earlier epoch was."""
        if not self.settings.divergence_retries or self.state.best is None:
            return False
        return loss > max(LEFT_CHANCE * self._task.chance_loss(self.sets["dev"]), 2 * self.state.best[1])

    def _return_to_best(self, fault: str) -> None:
        """Restores the best epoch's weights, or the last checkpoint's; ends where no retries are left."""
        self._team.all_gather(None)  # no process reads the file before it is complete
        validated = self.state.best is not None
        weights = load_checkpoint(self.folder / (BEST if validated else LAST)).weights
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                value.copy_(weights[name])
        for buffer in momentum_buffers(self._sgd).values():
            buffer.zero_()
        self.state = replace(self.state, batch=0, sums=(0.0, 0, 0))
        if validated and len(self.state.returns) < self.settings.divergence_retries:
            self.state = replace(self.state, returns=(*self.state.returns, fault))
            set_rate(self._sgd, self.rate)
            self.reporter.warn(
                f"training diverged: {fault}; returning to epoch {self.state.best_epoch}, the best so far, "
                f"with a learning rate of {self.rate:g}"
            )
        else:
            self.state = replace(self.state, diverged=fault)
        if not validated:
            self._save(BEST)
        self._save(LAST)

    def _close_epoch(self, head: bool, seconds: float, seen: int, stop: Callable[[], bool]) -> None:
        """Validates, updates the learning rate and `best`, logs and saves."""
        error, loss = self._validate(stop)
        if not math.isfinite(error):
            raise Diverged(f"the dev part's posteriors are not finite {self._where(self.state.step)}")
        where, blown_up = self._where(self.state.step), self._blown_up(loss)
        rate, state = self.rate, self.state
        plateau = state.plateau
        if not head:
            plateau = plateau.after(state.epoch + 1, error, self._task.chance(self.sets["dev"]), self.settings)
        # Among epochs of equal error the one of lower loss is better.
        best = state.best is None or (error, loss) < state.best
        self.state = replace(state, epoch=state.epoch + 1, batch=0, sums=(0.0, 0, 0), plateau=plateau)
        if best:
            self.state = replace(self.state, best=(error, loss), best_epoch=self.state.epoch)
        if self.rate != rate:
            drop_rate(self._sgd, rate, self.rate, self.settings.momentum_at_drop == "rescale")
        loss_sum, wrong, images = state.sums
        name = self._task.error
        row = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            "lr": rate,
            "loss": loss_sum / images,
            f"train_{name}": 100 * wrong / images,
            f"dev_{name}": error,
            f"dev_{self._task.loss}": loss,
            "seconds": round(seconds, 3),
            "images_per_second": round(seen / max(seconds, 1e-9), 2),
        }
        if self._log is not None:
            self._log.write(**row)
        self.reporter.say(
            f"epoch {row['epoch']}: loss {row['loss']:.3f}, train error {row[f'train_{name}']:.1f} %, "
            f"dev error {error:.1f} %{' (best)' if best else ''}, lr {rate:.0e}, {row['images_per_second']:.1f} img/s"
        )
        if blown_up and not best:
            raise Diverged(f"the dev loss rose to {loss:.3g} {where}")
        if best:
            self._save(BEST)
        self._save(LAST)

    def _save(self, name: str) -> None:
        self.state = replace(self.state, scaler=self._scaler.state_dict())
        if not self._team.is_main:
            return
        metadata = replace(self.metadata, state=asdict(self.state))
        names = {id(parameter): key for key, parameter in self.net.named_parameters()}
        buffers = {names[id(parameter)]: buffer for parameter, buffer in momentum_buffers(self._sgd).items()}
        last = name == LAST
        previous = self.folder / PREVIOUS if last else None
        save_checkpoint(self.folder / name, self.net, metadata, buffers if last else None, previous)

    def _result(self, ended: str, seconds: float) -> dict[str, Any]:
        result = {
            "ended": ended,
            "epochs": self.state.epoch,
            "steps": self.state.step,
            "best_epoch": self.state.best_epoch,
            f"best_dev_{self._task.error}": None if self.state.best is None else self.state.best[0],
            "drops": self.state.plateau.drops,
            "returns": list(self.state.returns),
            "diverged": self.state.diverged or None,
            "probe_dev_top1_error": self.state.probe_error,
            "test_scale": self.metadata.test_scale,
            "test_scales": list(self.settings.S.test_scales(self.metadata.crop)),
            "seconds": round(seconds, 1),
            "folder": str(self.folder),
        }
        if self._team.is_main:
            write_json(self.folder / "result.json", result)
        return result


def _sees_images_again(settings: TrainSettings) -> bool:
    """Whether the net's inputs are the same in every epoch: whole images at one scale, with their mirror images."""
    one_scale = settings.S.smallest == settings.S.largest
    return settings.context == "photo" and one_scale and settings.colour_shift == "off"


def resumed(checkpoint: Checkpoint) -> tuple[Net, TrainState]:
    """The net and the training state of a checkpoint.

    Raises:
        VerydeepError: it has no training state.
    """
    if not checkpoint.metadata.state:
        raise VerydeepError(f"{checkpoint.path} has no training state to resume from: pass it to --start instead.")
    net = checkpoint.net()
    if any(value.dtype == torch.float64 for value in checkpoint.weights.values()):  # kept as saved
        net.double().load_state_dict(checkpoint.weights)
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    try:
        state = TrainState.from_json(checkpoint.metadata.state)
    except (TypeError, ValueError, KeyError):
        raise VerydeepError(
            f"{checkpoint.path} has a training state that this version of verydeep cannot read."
        ) from None
    if {name: value.shape for name, value in checkpoint.momentum.items()} != shapes:
        raise VerydeepError(
            f"{checkpoint.path} is corrupted: its momentum buffers do not match the shapes of its layers."
        )
    return net, state
