"""The keywords of `verydeep.train` and `verydeep.train_boxes`, for editors and type checkers.

They are the fields of the settings, and `tests/core/test_arguments.py` holds that; only names and types are repeated
here, as no other form is understood by editors. Text, as on the command line, is accepted for any of them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from .config import Scale

_Function = TypeVar("_Function", bound=Callable[..., Any])


class DataArguments(TypedDict, total=False):
    """The fields of `verydeep.DataSettings` as keywords."""

    data: str | Path
    boxes: Sequence[str | Path] | str
    classes: Sequence[str] | str
    folders: Literal["auto", "classes", "splits"]
    exclude: str | Path | None
    dev_fraction: float | None
    test_fraction: float
    split_seed: int
    group_by: str | None


class TrainArguments(TypedDict, total=False):
    """The fields of `verydeep.TrainSettings` as keywords."""

    net: str
    S: Scale | str | int
    crop: int
    width: float
    initialise: Literal["glorot", "gaussian", "gaussian-literal"]
    start: str | Path
    preprocessing: Literal["recorded", "caffe", "rgb-mean", "torchvision", "torchvision-features"]
    new_fc: Literal["random", "fitted"]
    learn: Literal["all", "fc", "last"]
    head_epochs: int
    batch: int
    class_weights: str
    lr: float
    momentum: float
    momentum_at_drop: Literal["rescale", "keep"]
    weight_decay: float
    bias_weight_decay: float
    bias_lr: float
    drops: int
    patience: int
    improvement: float
    hold_at_chance: bool
    drop_at: Sequence[int] | str
    divergence_retries: int
    max_epochs: int
    max_steps: int
    context: Literal["crop", "photo"]
    mirror: bool
    colour_shift: Literal["sqrt", "eigenvalue", "off"]
    validate: Literal["centre", "dense"]
    pooling: Literal["up", "down"]
    resampling: Literal["bilinear", "bicubic"]
    other_side: Literal["round", "truncate"]
    decoding: Literal["whole", "reduced"]
    bad_images: Literal["stop", "skip"]
    seed: int


class BoxArguments(TypedDict, total=False):
    """The fields of `verydeep.BoxSettings` as keywords."""

    regression: Literal["PCR", "SCR"]
    dropout: bool
    balance: bool
    half_of_box: bool


class MachineArguments(TypedDict, total=False):
    """The fields of `verydeep.MachineSettings` as keywords."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "bf16", "fp16", "float64"]
    layout: Literal["auto", "channels_last", "contiguous"]
    compile: bool
    workers: int
    read_timeout: int
    read_retries: int
    peer_timeout: int
    max_pixels: int
    threads: int
    tensorboard: bool
    track: Sequence[Literal["wandb", "mlflow", "trackio"]] | str
    device_batch: int
    recompute: bool
    bf16_gradients: bool


class ClassifierArguments(DataArguments, TrainArguments, MachineArguments, total=False):
    """The keywords of `verydeep.train`."""


class LocaliserArguments(ClassifierArguments, BoxArguments, total=False):
    """The keywords of `verydeep.train_boxes`."""


def takes_settings(*kinds: type) -> Callable[[_Function], _Function]:
    """Shows the fields of settings in the signature of a function in place of its ``**given``.

    Notebooks, `help` and the reference read it; editors read the types of ``given``.
    """

    def with_signature(function: _Function) -> _Function:
        signature = inspect.signature(function)
        own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=item.type)
            for kind in kinds
            for item in dataclasses.fields(kind)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return function

    return with_signature
