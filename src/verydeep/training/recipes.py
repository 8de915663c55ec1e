"""Sect. 3.1: training recipes by the name of a run.

A run is named as in the paper: ``D/256`` is net D trained at S = 256, ``D/256-512`` with S drawn from [256, 512],
``D/256-512-fc`` the same with only the FC layers trained (Sect. 4.4). A net's name alone, ``D``, is the recipe for
users' own images.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from ..core.config import Scale, comma_parts, flag, lists_names, typed
from ..core.errors import VerydeepError
from ..core.settings import PAPER_SCALE, BoxSettings, TrainSettings
from ..models.architectures import check_net_name

PAPER_SCALES = ("256", "384", "256-512")
SHALLOW = ("A", "A-LRN", "shallow-B")  # trained from random weights at S = 256
RELEASED_NETS = ("A", "B", "D", "E")  # whose pretrained weights are published
RELEASED = "released"  # a start: downloaded weights of the net
OWN_BOX_BATCH = 32  # on few images a localisation model needs more steps than a classifier
# Settings that a resumed run may change; data must be the same images at another place.
RESUMABLE_CHANGES = ("max_epochs", "max_steps", "data", "boxes", "exclude")
FINE_TUNE_LR = 1e-3  # Sect. 3.1: a smaller rate from pre-trained weights
OWN_LR = 1e-4  # batches are small on few images: fine-tuning at 1e-3 diverges (NOTES.md)
# Settings that the paper leaves open, and those of the length of training: they may apply to all runs of an experiment.
OF_ALL_RUNS = (
    *("initialise", "momentum_at_drop", "bias_weight_decay", "bias_lr", "hold_at_chance", "colour_shift", "pooling"),
    *("resampling", "other_side", "patience", "improvement", "validate", "bad_images", "max_epochs", "max_steps"),
    "seed",
)
OF_ALL_BOX_RUNS = ("dropout", "balance", "half_of_box")  # the same of localisation models

# Two readings of the paper, as settings that differ from ours: its text word for word, and the code of its authors.
PROFILES: dict[str, dict[str, Any]] = {
    "paper-literal": {
        "initialise": "gaussian-literal",
        "bias_lr": 1.0,
        "bias_weight_decay": 5e-4,
        "colour_shift": "eigenvalue",
    },
    "oxford-code": {"resampling": "bicubic"},
}


def settings_of_run(run: str, overrides: dict[str, Any]) -> TrainSettings:
    """The settings of a run named as in the paper, or of a net's name alone, with ``overrides``.

    ``A/256`` starts from Gaussian weights (std .01), the deeper nets from layers of another run, which ``start`` names;
    at S = 384 or jittered S the learning rate starts at 1e-3. A net's name alone is the recipe for own images: S = 8/7
    of the crop; with a start, fine-tuning at 1e-4, new FC layers fitted first, and returns to the best epoch where
    training diverges. The default start is the released weights of the net, if there are any of its width.

    Raises:
        VerydeepError: not a run's name, an unknown setting, a value of the wrong type or range.
    """
    overrides = typed(TrainSettings, overrides)
    match = re.fullmatch(r"([^/]+)(?:/(\d+(?:-\d+)?)(-fc)?)?", run)
    if not match:
        raise VerydeepError(f"{run!r} is not a run: use a net (D), or a net and its S (D/256, D/256-512).")
    net = check_net_name(match[1])
    if match[2]:
        return TrainSettings(**{**_paper_recipe(Scale.parse(match[2]), bool(match[3])), "net": net, **overrides})
    if net in RELEASED_NETS and overrides.get("width", 1.0) == 1.0:
        overrides = {"start": RELEASED, **overrides}
    return TrainSettings(**{**_own_recipe(overrides), "net": net, **overrides})


def _paper_recipe(scale: Scale, only_fc: bool) -> dict[str, Any]:
    first = scale == PAPER_SCALE
    return {
        "S": scale,
        "lr": 1e-2 if first else FINE_TUNE_LR,
        "initialise": "gaussian",
        "learn": "fc" if only_fc else "all",
    }


def papers_start(run: str) -> str | None:
    """The run that a run of the paper starts from (Sect. 3.1); None for random weights.

    Net A, A-LRN and shallow-B are shallow enough for random weights at S = 256; the deeper nets take
    layers of A/256, S = 384 starts from S = 256, and a jittered S from S = 384.
    """
    net, _, scale = run.partition("/")
    boxes = re.fullmatch(r"(.+)-(SCR|PCR)(-fc)?", scale)
    if boxes:  # Sect. A.1: "with the corresponding classification models (trained on the same scales)"
        return f"{net}/{boxes[1]}" if boxes[1] in PAPER_SCALES else None
    if scale.removesuffix("-fc") not in PAPER_SCALES:
        return None
    if scale == "256":
        return None if net in SHALLOW else "A/256"
    return f"{net}/256" if scale == "384" else f"{net}/384"


def settings_of_box_run(run: str, overrides: dict[str, Any]) -> tuple[TrainSettings, BoxSettings]:
    """The settings of a localisation run (Sect. A.1), named in the paper's terms, or of a net's name alone.

    ``D/384-PCR`` starts from the classification run ``D/384`` at a learning rate of 1e-3; with ``-fc`` at the end only
    the FC layers are trained ("1st and 2nd FC", and the new last one). A net's name alone is the recipe for own images.

    Args:
        overrides: fields of TrainSettings and BoxSettings.

    Raises:
        VerydeepError: not a run's name, an unknown setting, a value of the wrong type or range.
    """
    of_boxes = {item.name for item in fields(BoxSettings)}
    boxes = typed(BoxSettings, {name: value for name, value in overrides.items() if name in of_boxes})
    rest = typed(TrainSettings, {name: value for name, value in overrides.items() if name not in of_boxes})
    match = re.fullmatch(r"([^/]+)(?:/(\d+(?:-\d+)?)-(SCR|PCR)(-fc)?)?", run)
    if not match:
        raise VerydeepError(f"{run!r} is not a localisation run: use a net (D), or net, S and head (D/384-PCR).")
    net = check_net_name(match[1])
    if not match[2]:
        own = {**_own_recipe(rest), "head_epochs": 0, "batch": OWN_BOX_BATCH}
        if rest.get("start", "none") != "none":  # the FC layers are rescaled to fit this rate
            own |= {"lr": FINE_TUNE_LR, "new_fc": "random"}
        # On little-trained FC layers dropout makes maps larger than those of evaluation (NOTES.md).
        return TrainSettings(**{**own, "net": net, **rest}), BoxSettings(**{"dropout": False, **boxes})
    if boxes.get("regression", match[3]) != match[3]:
        raise VerydeepError(
            f"{run} is a {match[3]} run, not {boxes['regression']}: rename it, or use only the name of the net."
        )
    recipe = {**_paper_recipe(Scale.parse(match[2]), bool(match[4])), "lr": FINE_TUNE_LR}
    return TrainSettings(**{**recipe, "net": net, **rest}), BoxSettings(**{**boxes, "regression": match[3]})


def _own_recipe(overrides: dict[str, Any]) -> dict[str, Any]:
    side = round(overrides.get("crop", 224) * 256 / 224)
    recipe: dict[str, Any] = {"S": Scale(side, side), "batch": 0}
    if overrides.get("start", "none") != "none":
        recipe |= {
            "lr": OWN_LR,
            "new_fc": "fitted",
            "divergence_retries": 3,
            "patience": 3,
            "drops": 1,
            "max_epochs": 30,
        }
        # New layers that cannot be fitted are initialised as in the paper (std .01), and trained alone at first:
        # Glorot's larger weights on top of trained maps diverge.
        recipe |= {"initialise": "gaussian", "head_epochs": 3}
    return recipe


def minimal_overrides(usual: Callable[[dict[str, Any]], Any], settings: Any) -> dict[str, Any]:
    """The fewest overrides, by name, with which a recipe gives these settings.

    Args:
        usual: the recipe, from overrides to settings.
    """
    overrides: dict[str, Any] = {}
    while True:  # an override may change the defaults of other settings
        current = usual(overrides)
        more = [item.name for item in fields(settings) if getattr(current, item.name) != getattr(settings, item.name)]
        if not more:
            break
        overrides |= {name: getattr(settings, name) for name in more}
    for name in list(overrides):  # drop those that others imply
        rest = {other: value for other, value in overrides.items() if other != name}
        with suppress(VerydeepError):
            overrides = rest if usual(rest) == settings else overrides
    return overrides


def resume_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides of a resumed run, without those that leave a choice to the run, which keeps what it chose."""
    automatic = {"batch": 0, "start": RELEASED}
    return {name: value for name, value in overrides.items() if name not in automatic or automatic[name] != value}


def apply_overrides(started: Any, overrides: dict[str, Any]) -> Any:
    """Settings of a resumed run: those of its start, with the changes that are allowed.

    Raises:
        VerydeepError: a setting differs that a run cannot change.
    """
    for name, value in overrides.items():
        before = getattr(started, name)
        same = comma_parts(before) == comma_parts(value) if name in lists_names(type(started)) else before == value
        if name not in RESUMABLE_CHANGES and not same:
            raise VerydeepError(
                f"the run was started with {flag(name)} {before}, not {value}: "
                f"resume without --{flag(name)}, or start a new run with another --out."
            )
    return replace(started, **{name: value for name, value in overrides.items() if name in RESUMABLE_CHANGES})
