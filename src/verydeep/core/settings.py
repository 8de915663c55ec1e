"""Settings of training, data, machine, boxes, descriptors, SVMs and the server: what users choose, one dataclass each.

Those of the machine are kept apart: they never change what is computed beyond rounding, and are not part of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .config import LARGEST_SIDE, STRIDE, Scale, check_crop, flag, setting, typed
from .errors import VerydeepError

MOST_BATCH, MOST_QUEUE, MOST_PORT = 64, 10_000, 65_535
LEAST_BYTES, MOST_BYTES = 1_000, 1_000_000_000

FEWEST_SPLITS, MOST_SPLITS = 1, 100

DEV_FRACTION = 0.1
MOST_SEED = 2**48
MOST_RETRIES = 10
MOST_PROCESSES = 512  # a typing mistake should not fork without end
PIXEL_LIMIT = 89_478_485  # a quarter of a gigabyte as RGB: few photos have more, and a bomb does
MOST_PIXELS = 2**31 - 1
PAPER_SCALE = Scale(256, 256)


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
        check_crop(self.crop)
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


def named_data(given: dict[str, Any]) -> DataSettings:
    """The data to train on; raises VerydeepError where none are named, which nobody means."""
    if "data" not in given:
        raise VerydeepError(
            "which photos? Name them with --data: a folder with a folder per class, a list file, or a name such as "
            "digits, which are built in."
        )
    return DataSettings(**typed(DataSettings, given))


@dataclass(frozen=True)
class BoxSettings:
    """What a box net is: one box for all classes, or one for each; Sect. A.1."""

    regression: Literal["PCR", "SCR"] = setting("PCR", "a box per class (PCR), or a single one for all classes (SCR)")
    dropout: bool = setting(True, "dropout in training; on few photos it makes the boxes of testing too small")
    balance: bool = setting(True, "scale the start's FC maps to fit the rate, which changes nothing a net tells")
    half_of_box: bool = setting(False, "OverFeat's rule: training crops that show at least half of the box")

    def outputs(self, classes: int) -> int:
        """Outputs of the last layer: 4 of a box, for each class under PCR."""
        return 4 * classes if self.regression == "PCR" else 4


@dataclass(frozen=True)
class MergeSettings:
    """How many boxes become one a label, where the paper leaves it open; `verydeep.data.boxes` says what each means."""

    t: float | None = setting(None, "boxes merge while the best match is at most t; none: tuned on dev photos")
    match: Literal["relative", "literal"] = setting("relative", "distance over size plus 1 - IoU, or OverFeat's text")
    coordinates: Literal["windows", "pair"] = setting("windows", "a merged box: mean of its windows, or half-way")
    merge: Literal["within", "across"] = setting("within", "boxes of one label merge, or those of all together")
    rate: Literal["window", "image"] = setting(
        "window", "a box counts its own window's posterior of the label, or the image's (which counts windows)"
    )

    def __post_init__(self) -> None:
        if self.t is not None and not self.t >= 0:
            raise VerydeepError(f"t is how far apart boxes may be that merge: 0 or more, not {self.t}.")


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of each photo at each scale; the spatial mean is averaged with the mirror image's."""

    layer: str = setting("fc7", "the layer: fc7, fc6, pool5, conv4_3, … (after ReLU), or fc7-before-relu, …")
    scales: tuple[int, ...] = setting((), "smallest sides Q in pixels: 256,384,512 (the net's own test scale, or 256)")
    pool: Literal["mean", "max"] = setting("mean", "over the map's cells: their mean (App. B) or their maximum")
    mirror: bool = setting(True, "average with the mirror image's descriptor")

    def __post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise VerydeepError(f"scales names one twice: {','.join(map(str, self.scales))}.")
        for scale in self.scales:
            if not STRIDE <= scale <= LARGEST_SIDE:
                raise VerydeepError(f"a scale is {STRIDE} to {LARGEST_SIDE} pixels, not {scale}.")


@dataclass(frozen=True)
class DescriptorSettings:
    """How a photo's descriptors at several scales, and of several nets, become one vector.

    Scales are averaged, stacked or their maximum taken; nets are stacked. With ``normalise`` each net's descriptor
    at each scale is brought to length 1 first (``scale``), the final vector is (``end``), or both, so that no scale
    outweighs another.
    """

    aggregate: Literal["stack", "average", "max"] = setting("stack", "scales: stacked, averaged, or their maximum")
    normalise: Literal["both", "scale", "end", "none"] = setting("both", "length 1: each scale's, the whole, or both")


@dataclass(frozen=True)
class SvmSettings:
    """The linear SVM: its loss, the values of C that are tried, and the random splits of Caltech and own photos."""

    loss: Literal["squared-hinge", "hinge"] = setting("squared-hinge", "of a margin below 1")
    C: tuple[float, ...] = setting((0.01, 0.1, 1.0, 10.0, 100.0), "values tried; one is taken as it is")
    splits: int = setting(3, "random splits into training and test photos, where the data are split by chance")
    seed: int = setting(0, "seed of the first split; the next ones count up from it")

    def __post_init__(self) -> None:
        if not self.C or not all(value > 0 for value in self.C):
            raise VerydeepError(f"C lists values above 0, not {','.join(f'{value:g}' for value in self.C) or 'none'}.")
        if len(set(self.C)) < len(self.C):
            raise VerydeepError(f"C names a value twice: {','.join(f'{value:g}' for value in self.C)}.")
        if not FEWEST_SPLITS <= self.splits <= MOST_SPLITS:
            raise VerydeepError(f"splits is {FEWEST_SPLITS} to {MOST_SPLITS}, not {self.splits}.")
        if self.seed < 0:
            raise VerydeepError(f"seed must be 0 or more, not {self.seed}.")


@dataclass(frozen=True)
class ServeSettings:
    """Where a server listens, how it batches, and its limits."""

    host: str = setting("127.0.0.1", "the address it listens at; 0.0.0.0 lets other machines ask, without a password")
    port: int = setting(8000, "its port; 0 takes a free one")
    batch: int = setting(8, "photos that go through the net together, at most")
    queue: int = setting(128, "requests at work or waiting, at most; others are told to come back")
    max_bytes: int = setting(25_000_000, "of a photo's file")
    max_pixels: int = setting(50_000_000, "of a photo")
    patience: int = setting(30, "seconds a client may take to send a photo")
    heic: bool = setting(False, "also read HEIC, where pillow-heif is installed")

    def __post_init__(self) -> None:
        limits = {
            "port": (0, MOST_PORT),
            "batch": (1, MOST_BATCH),
            "queue": (1, MOST_QUEUE),
            "max_bytes": (LEAST_BYTES, MOST_BYTES),
            "max_pixels": (1, MOST_PIXELS),
            "patience": (1, 3600),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                shown = name.replace("_", "-")
                raise VerydeepError(f"{shown} is {least:,} to {most:,}, not {getattr(self, name):,}.")
