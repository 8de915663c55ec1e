"""Settings: what a training, its data and the machine are asked for; typed flags and JSON both ways.

What is wished of the machine is kept apart: it never changes what is computed beyond rounding, and is not
part of a run.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..models.architectures import LARGEST_SIDE, check_crop, check_net_name
from .errors import VerydeepError
from .nearest import nearest, nearest_setting
from .paths import listed_paths

DEV_FRACTION = 0.1
MOST_SEED = 2**48
MOST_RETRIES = 10
MOST_PROCESSES = 512  # a typing mistake should not fork without end
PIXEL_LIMIT = 89_478_485  # a quarter of a gigabyte as RGB: few photos have more, and a bomb does
MOST_PIXELS = 2**31 - 1
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Scale:
    """The training scale S: the smallest side in pixels, fixed or drawn from [smallest, largest]."""

    smallest: int
    largest: int

    @staticmethod
    def parse(text: str) -> Scale:
        """``256`` or ``256-512``; raises VerydeepError."""
        match = re.fullmatch(r"(\d{1,99})(?:-(\d{1,99}))?", text.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise VerydeepError(f"S {text[:60]!r} is not a scale: give one (256) or a range (256-512), in pixels.")
        if int(match[2] or match[1]) > LARGEST_SIDE:
            raise VerydeepError(f"S {text[:60]} is above {LARGEST_SIDE} pixels, more than any photo needs.")
        return Scale(int(match[1]), int(match[2] or match[1]))

    @property
    def test_scale(self) -> int:
        """Q = S for a fixed S, the mean of the range for a jittered one (Sect. 4.1)."""
        return (self.smallest + self.largest) // 2

    def test_scales(self, crop: int) -> tuple[int, ...]:
        """Several Q (Sect. 4.2): S - 32, S, S + 32 at a crop of 224, or the ends and mean of a range; none below it."""
        step = round(32 * crop / 224) if self.smallest == self.largest else 0
        return tuple(sorted({max(crop, self.smallest - step), self.test_scale, self.largest + step}))

    def __str__(self) -> str:
        return str(self.smallest) if self.smallest == self.largest else f"{self.smallest}-{self.largest}"


PAPER_SCALE = Scale(256, 256)


def setting(default: Any, text: str, names: bool = False) -> Any:
    """A field of a settings dataclass: its default, and what `--help` says of it.

    Args:
        names: a tuple of lists of names, each as it was typed: only who knows the names can tell which commas part two.
    """
    return field(default=default, metadata={"help": text, "names": names})


def lists_names(kind: type) -> set[str]:
    """The fields that hold lists of names, whose flags can be repeated."""
    return {item.name for item in dataclasses.fields(typing.cast(Any, kind)) if item.metadata.get("names")}


def comma_parts(lists: tuple[str, ...]) -> tuple[str, ...]:
    """What stands between the commas of several lists."""
    return tuple(part.strip() for text in lists for part in text.split(","))


@dataclass(frozen=True)
class DataSettings:
    """Which photos, which classes of them, and how they are split where they did not come split."""

    data: str = setting("digits", "folder, list file, or digits, imagenet:DIR, caltech101:DIR, caltech256:DIR")
    boxes: tuple[str, ...] = setting(
        (), "box files: VOC's XML folder, CSV, COCO's JSON; [FOLDER=]FILE,…; may be repeated"
    )
    classes: tuple[str, ...] = setting(
        (), "only these classes, names or patterns: 'c*,dog'; may be repeated, for names with commas", names=True
    )
    folders: Literal["auto", "classes", "splits"] = setting(
        "auto", "what the data's folders are: classes, or splits (train/, val/, test/) of class folders"
    )
    dev_fraction: float | None = setting(None, "share of photos that decides drops and the best epoch (.1)")
    test_fraction: float = setting(0.2, "share of photos that is only reported, where the data have no test set")
    split_seed: int = setting(0, "seed of the split")

    def __post_init__(self) -> None:
        dev = dev_share(self, DEV_FRACTION)
        if not (0 < dev < 1 and 0 < self.test_fraction < 1 and dev + self.test_fraction < 1):
            raise VerydeepError(
                f"dev-fraction {dev} and test-fraction {self.test_fraction} must be above 0 and "
                "leave photos to learn from: together below 1."
            )


def dev_share(settings: DataSettings, usual: float) -> float:
    """The fraction asked for, or the data set's usual one."""
    return usual if settings.dev_fraction is None else settings.dev_fraction


@dataclass(frozen=True)
class TrainSettings:
    """Sect. 3.1's recipe; the defaults are the paper's, and `verydeep.training.recipes` adapts them to a run."""

    net: str = setting("D", "net of Table 1: A, A-LRN, B, C, D, E or shallow-B")
    S: Scale = setting(PAPER_SCALE, "training scale: smallest image side in pixels, 256 or a range 256-512")
    crop: int = setting(224, "side of a training crop in pixels, a multiple of 32")
    width: float = setting(1.0, "factor on the channels of every hidden layer")
    initialise: Literal["glorot", "gaussian", "gaussian-literal"] = setting("glorot", "draw of the random layers")
    start: str = setting("none", "run, checkpoint, weight file or released weights to start from; none: random")
    preprocessing: Literal["recorded", "caffe", "rgb-mean", "torchvision", "torchvision-features"] = setting(
        "recorded", "pixels the start's weights expect, where their file does not record it"
    )
    new_fc: Literal["random", "fitted"] = setting(
        "random", "FC layers that the start does not have: random, or fitted to the training photos before step 1"
    )
    learn: Literal["all", "fc", "last"] = setting("all", "which layers learn")
    head_epochs: int = setting(0, "epochs in which only the layers that started random learn, before `learn`")
    batch: int = setting(256, "photos per step; 0 for 256 or an eighth of the training photos, the smaller")
    lr: float = setting(1e-2, "initial learning rate")
    momentum: float = setting(0.9, "momentum")
    momentum_at_drop: Literal["rescale", "keep"] = setting("rescale", "rescale follows Caffe, keep PyTorch")
    weight_decay: float = setting(5e-4, "L2 penalty on weights")
    bias_weight_decay: float = setting(0.0, "L2 penalty on biases (0 in Oxford's own files)")
    bias_lr: float = setting(2.0, "factor on the learning rate of biases (2 in Oxford's own files)")
    drops: int = setting(3, "how many times the rate is divided by 10 before a plateau ends training")
    patience: int = setting(5, "epochs without improvement that make a plateau")
    improvement: float = setting(0.1, "points of dev top-1 error that count as improvement")
    hold_at_chance: bool = setting(True, "no drop before the dev error has left chance")
    drop_at: tuple[int, ...] = setting((), "divide the rate after these epochs, in place of the plateau rule: 30,50")
    divergence_retries: int = setting(
        0, "times that a training which diverges returns to its best epoch, at a tenth of the learning rate"
    )
    max_epochs: int = setting(74, "end training after this many epochs")
    max_steps: int = setting(370_000, "end training after this many steps")
    mirror: bool = setting(True, "mirror half of the crops")
    colour_shift: Literal["sqrt", "eigenvalue", "off"] = setting("sqrt", "RGB colour shift by PCA: which convention")
    validate: Literal["centre", "dense"] = setting("centre", "how the dev part is tested each epoch, at Q = S")
    pooling: Literal["up", "down"] = setting("up", "how pooling rounds sizes: up as Caffe, down as PyTorch")
    resampling: Literal["bilinear", "bicubic"] = setting("bilinear", "antialiased filter of the rescale to S and Q")
    other_side: Literal["round", "truncate"] = setting("round", "how the other side of a rescaled photo is rounded")
    decoding: Literal["whole", "reduced"] = setting(
        "whole", "of training photos: reduced decodes large JPEGs coarsely and rescales the crop alone, faster"
    )
    bad_images: Literal["stop", "skip"] = setting("stop", "what to do when photos cannot be read")
    seed: int = setting(0, "seed of weights, order, crops and dropout")

    def __post_init__(self) -> None:
        check_net_name(self.net), check_crop(self.crop)
        if self.S.smallest < self.crop:
            raise VerydeepError(f"S {self.S} is below the crop of {self.crop}: raise S or lower --crop.")
        low = {"width": 0.0, "lr": 0.0}
        floor = {"batch": 0, "head_epochs": 0, "momentum": 0, "weight_decay": 0, "drops": 0, "seed": 0, "bias_lr": 0}
        floor |= {"patience": 1, "max_epochs": 1, "max_steps": 1, "bias_weight_decay": 0, "improvement": 0}
        floor |= {"divergence_retries": 0}
        for name, bound in low.items():
            if not getattr(self, name) > bound:
                raise VerydeepError(f"{name} must be above {bound:g}, not {getattr(self, name)}.")
        for name, least in floor.items():
            if not getattr(self, name) >= least:
                raise VerydeepError(f"{flag(name)} must be {least} or more, not {getattr(self, name)}.")
        if list(self.drop_at) != sorted({epoch for epoch in self.drop_at if epoch > 0}):
            raise VerydeepError(f"drop-at lists epochs from 1 up, each once and in order, not {self.drop_at}.")
        if self.seed > MOST_SEED:
            raise VerydeepError(f"seed must be at most {MOST_SEED}, not {self.seed}.")
        if self.momentum >= 1:
            raise VerydeepError(f"momentum must be below 1, not {self.momentum}.")


@dataclass(frozen=True)
class MachineSettings:
    """What can be wished of the machine; ``auto`` and 0 choose."""

    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where the net runs")
    precision: Literal["auto", "float32", "bf16", "fp16", "float64"] = setting(
        "auto", "of products, while sums stay float32; float64 is for proofs, and of everything"
    )
    layout: Literal["auto", "channels_last", "contiguous"] = setting("auto", "memory layout of maps")
    compile: bool = setting(False, "compile the training step (slow to start; for GPUs)")
    workers: int = setting(-1, "processes that read photos; -1 chooses, 0 reads in the main process")
    read_timeout: int = setting(600, "seconds a process may take to read a batch before it is given up")
    read_retries: int = setting(0, "times a photo is read again that the operating system could not give")
    peer_timeout: int = setting(300, "seconds another process of a job may be silent before this one ends")
    max_pixels: int = setting(0, f"pixels that a photo may have, of which larger ones are refused; 0: {PIXEL_LIMIT:,}")
    threads: int = setting(0, "CPU threads; 0: all cores that a quota and OMP_NUM_THREADS leave")
    tensorboard: bool = setting(False, "also write the log for TensorBoard, in the run's folder")
    device_batch: int = setting(0, "photos on the device at once; gradients of the parts of a batch add up")
    recompute: bool = setting(False, "keep the maps between stages alone, and compute the others again: less memory")
    bf16_gradients: bool = setting(False, "between processes gradients travel as bf16: half the bytes, rounded sums")

    def __post_init__(self) -> None:
        if not -1 <= self.workers <= MOST_PROCESSES or not 0 <= self.threads <= MOST_PROCESSES:
            raise VerydeepError(f"workers is -1 to {MOST_PROCESSES} and threads 0 to {MOST_PROCESSES}.")
        if self.read_timeout < 1 or not 0 <= self.read_retries <= MOST_RETRIES:
            raise VerydeepError(f"read-timeout is 1 or more seconds, and read-retries 0 to {MOST_RETRIES}.")
        if not 0 <= self.max_pixels <= MOST_PIXELS:
            raise VerydeepError(
                f"max-pixels is 1 to {MOST_PIXELS:,}, or 0 for {PIXEL_LIMIT:,}, not {self.max_pixels:,}."
            )
        if self.peer_timeout < 1:
            raise VerydeepError(f"peer-timeout is 1 or more seconds, not {self.peer_timeout}.")
        if self.device_batch < 0:
            raise VerydeepError(f"device-batch must be 0 or more, not {self.device_batch}.")


def flag(name: str) -> str:
    """How a setting is written on the command line, without the dashes."""
    return name.replace("_", "-")


def typed(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Given settings, as text or values, with the types of the dataclass's fields.

    Raises:
        VerydeepError: an unknown setting (the nearest is suggested) or a value that does not fit.
    """
    hints = get_type_hints(kind)
    for name in given:
        if name not in hints:
            raise VerydeepError(unknown_setting(flag(name), [flag(known) for known in hints]))
    whole = lists_names(kind)
    given = {
        name: [value] if name in whole and isinstance(value, str) and value else value for name, value in given.items()
    }
    return {name: _parse(hints[name], value, flag(name)) for name, value in given.items()}


def named_data(given: dict[str, Any]) -> DataSettings:
    """The data to train on; raises VerydeepError where none are named, which nobody means."""
    if "data" not in given:
        raise VerydeepError(
            "which photos? Name them with --data: a folder with a folder per class, a list file, or a name such as "
            "digits, which are built in."
        )
    return DataSettings(**typed(DataSettings, given))


def unknown_setting(name: str, known: list[str]) -> str:
    """The sentence for a setting that does not exist."""
    near = nearest_setting(name, known)
    return f"there is no setting {name!r}" + (f": did you mean {near!r}?" if near else "; --help lists them.")


def _parse(hint: Any, value: Any, name: str) -> Any:
    """A value of the field's type from text (a flag, JSON) or from the value itself."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value in choices:
            return value
        near = nearest(str(value), choices)
        hint_text = f"did you mean {near!r}? " if near else ""
        raise VerydeepError(f"{name} is one of {', '.join(choices)}, not {value!r}. {hint_text}".strip())
    if get_origin(hint) is types.UnionType:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if value in (None, "", "none") else _parse(kinds[0], value, name)
    if get_origin(hint) is tuple:
        if isinstance(value, str):
            parts = listed_paths(value) if name == "boxes" else value.split(",")
        else:
            parts = list(value) if isinstance(value, list | tuple) else [value]
        if value and not any(str(part).strip(" ,") for part in parts):
            raise VerydeepError(f"{name} lists nothing: give values with commas between, or leave it out.")
        return tuple(_parse(get_args(hint)[0], str(part).strip(), name) for part in parts if str(part).strip())
    if hint is Scale:
        return value if isinstance(value, Scale) else Scale.parse(str(value))
    if hint is bool:
        return _parse_bool(value, name)
    try:
        number = hint(value)
        if hint is str:
            number.encode("utf8", "surrogateescape")  # JSON can tell half of a surrogate pair
    except (ValueError, TypeError, OverflowError):
        raise VerydeepError(f"{name} takes {_KIND[hint]}, not {value!r}.") from None
    if (hint is int and not isinstance(value, str) and number != value) or (
        hint is float and not math.isfinite(number)
    ):
        raise VerydeepError(f"{name} takes {_KIND[hint]}, not {value!r}.")
    return number


_KIND = {int: "a whole number", float: "a number", str: "text"}


def _parse_bool(value: Any, name: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if str(value).lower() not in words:
        raise VerydeepError(f"{name} is yes or no, not {value!r}.")
    return words[str(value).lower()]


def to_json(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON values; `from_json` is the way back."""
    values = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
    return {
        name: str(value) if isinstance(value, Scale) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def from_json(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """The dataclass `to_json` wrote; raises VerydeepError for unknown or mistyped settings."""
    return kind(**typed(kind, values))


def field_help(kind: type) -> list[tuple[str, str, str, Any]]:
    """Name, placeholder, help text and default of each setting, for the command line."""
    rows = []
    hints = get_type_hints(kind)
    for item in dataclasses.fields(typing.cast(Any, kind)):
        hint = hints[item.name]
        if get_origin(hint) is types.UnionType:  # of a kind and None
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            shape = "|".join(get_args(hint))
        elif hint is bool:
            shape = "yes|no"
        else:
            shape = {int: "N", float: "X", str: "TEXT", Scale: "S"}.get(hint, "LIST")
        rows.append((item.name, shape, item.metadata["help"], item.default))
    return rows
