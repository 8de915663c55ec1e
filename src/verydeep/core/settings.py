"""Settings of training, data, machine, boxes, descriptors, SVMs and the server, one dataclass each.

Those of the machine change results by rounding at most, and are not part of a run.
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
MOST_PROCESSES = 512  # larger numbers are typing mistakes
PIXEL_LIMIT = 89_478_485  # a quarter of a gigabyte as RGB: few photos have more, and decompression bombs do
MOST_PIXELS = 2**31 - 1
PAPER_SCALE = Scale(256, 256)

# Groups of arguments in help.
DATA, NET, LEARNING, SCHEDULE = "Data", "Net and weights", "Learning", "Schedule"
IMAGES, DEV, BOXES, MERGING = "Image size and augmentation", "Evaluation during training", "Boxes", "Merging of boxes"
DESCRIPTORS, SVM, SERVER = "Descriptors", "SVM", "Server"
OUTPUT, LOADING, MACHINE = "Output", "Data loading", "Machine"


@dataclass(frozen=True)
class DataSettings:
    """The images, their classes, and the split of data that have none of their own."""

    data: str = setting("digits", "folder, list file, or digits, imagenet:DIR, caltech101:DIR, caltech256:DIR", DATA)
    boxes: tuple[str, ...] = setting(
        (), "box files: folder of VOC XML, CSV, COCO JSON; [FOLDER=]FILE,…; repeatable", DATA
    )
    classes: tuple[str, ...] = setting(
        (), "only these classes, names or patterns: 'c*,dog'; repeatable, for names with commas", DATA, names=True
    )
    folders: Literal["auto", "classes", "splits"] = setting(
        "auto", "folders of the data are classes, or splits (train/, val/, test/) of class folders", DATA
    )
    dev_fraction: float | None = setting(None, "share of images for learning-rate drops and the best epoch (0.1)", DATA)
    test_fraction: float = setting(0.2, "share of images held out for testing, where the data have no test set", DATA)
    split_seed: int = setting(0, "random seed of the split", DATA)

    def __post_init__(self) -> None:
        dev = dev_share(self, DEV_FRACTION)
        if not (0 < dev < 1 and 0 < self.test_fraction < 1 and dev + self.test_fraction < 1):
            raise VerydeepError(
                f"dev-fraction {dev} and test-fraction {self.test_fraction} must be above 0, and together below 1, to "
                "leave images for training."
            )


def dev_share(settings: DataSettings, usual: float) -> float:
    """The dev fraction of the settings, or the dataset's default."""
    return usual if settings.dev_fraction is None else settings.dev_fraction


@dataclass(frozen=True)
class TrainSettings:
    """The recipe of Sect. 3.1; the defaults are the paper's, and `verydeep.training.recipes` adapts them to a run."""

    net: str = setting("D", "net of Table 1: A, A-LRN, B, C, D, E or shallow-B", NET)
    S: Scale = setting(PAPER_SCALE, "training scale: smallest image side in pixels, 256 or a range 256-512", IMAGES)
    crop: int = setting(224, "side of a training crop in pixels, a multiple of 32", IMAGES)
    width: float = setting(1.0, "factor on the channels of every hidden layer", NET)
    initialise: Literal["glorot", "gaussian", "gaussian-literal"] = setting("glorot", "random initialisation", NET)
    start: str = setting("none", "initial weights: a run, checkpoint, weight file or public weights; none: random", NET)
    preprocessing: Literal["recorded", "caffe", "rgb-mean", "torchvision", "torchvision-features"] = setting(
        "recorded", "preprocessing of the initial weights, where their file does not record it", NET
    )
    new_fc: Literal["random", "fitted"] = setting(
        "random", "FC layers without initial weights: random, or fitted to the training images before step 1", NET
    )
    learn: Literal["all", "fc", "last"] = setting("all", "layers that are trained", LEARNING)
    head_epochs: int = setting(0, "first epochs, in which only randomly initialised layers are trained", SCHEDULE)
    batch: int = setting(256, "batch size; 0: 256 or an eighth of the training images, the smaller", LEARNING)
    lr: float = setting(1e-2, "initial learning rate", LEARNING)
    momentum: float = setting(0.9, "momentum of SGD", LEARNING)
    momentum_at_drop: Literal["rescale", "keep"] = setting(
        "rescale", "momentum at learning-rate drops: rescale as Caffe, keep as PyTorch", LEARNING
    )
    weight_decay: float = setting(5e-4, "L2 penalty on weights", LEARNING)
    bias_weight_decay: float = setting(0.0, "L2 penalty on biases (0 in Oxford's own files)", LEARNING)
    bias_lr: float = setting(2.0, "factor on the learning rate of biases (2 in Oxford's own files)", LEARNING)
    drops: int = setting(
        3, "divisions of the learning rate by 10, at a plateau each, before the next one ends training", SCHEDULE
    )
    patience: int = setting(5, "epochs without improvement that make a plateau", SCHEDULE)
    improvement: float = setting(0.1, "percentage points of dev top-1 error that count as improvement", SCHEDULE)
    hold_at_chance: bool = setting(True, "no drop before the dev error is better than chance", SCHEDULE)
    drop_at: tuple[int, ...] = setting((), "drop after these epochs, in place of the plateau rule: 30,50", SCHEDULE)
    divergence_retries: int = setting(
        0, "times a diverged training returns to its best epoch, with a tenth of the learning rate", SCHEDULE
    )
    max_epochs: int = setting(74, "maximum number of epochs", SCHEDULE)
    max_steps: int = setting(370_000, "maximum number of steps", SCHEDULE)
    mirror: bool = setting(True, "mirror half of the crops", IMAGES)
    colour_shift: Literal["sqrt", "eigenvalue", "off"] = setting("sqrt", "PCA colour shift: its convention", IMAGES)
    validate: Literal["centre", "dense"] = setting("centre", "protocol on the dev set after each epoch, at Q = S", DEV)
    pooling: Literal["up", "down"] = setting("up", "rounding of sizes in pooling: up as Caffe, down as PyTorch", NET)
    resampling: Literal["bilinear", "bicubic"] = setting("bilinear", "antialiased filter for rescaling", IMAGES)
    other_side: Literal["round", "truncate"] = setting("round", "rounding of a rescaled image's other side", IMAGES)
    decoding: Literal["whole", "reduced"] = setting(
        "whole", "reduced: decode large training JPEGs coarsely and rescale only the crop, faster", IMAGES
    )
    bad_images: Literal["stop", "skip"] = setting("stop", "stop at or skip unreadable images", DATA)
    seed: int = setting(0, "random seed of weights, order, crops and dropout", LEARNING)

    def __post_init__(self) -> None:
        check_crop(self.crop)
        if self.S.smallest < self.crop:
            raise VerydeepError(f"S {self.S} is below the crop of {self.crop}: raise S or lower --crop.")
        for name in ("width", "lr"):
            if not getattr(self, name) > 0:
                raise VerydeepError(f"{name} must be above 0, not {getattr(self, name)}.")
        _check_least(
            self, 0, "batch head_epochs momentum weight_decay bias_weight_decay bias_lr drops improvement seed"
        )
        _check_least(self, 0, "divergence_retries")
        _check_least(self, 1, "patience max_epochs max_steps")
        if list(self.drop_at) != sorted({epoch for epoch in self.drop_at if epoch > 0}):
            raise VerydeepError(f"drop-at must list epochs from 1 up, each once and in order, not {self.drop_at}.")
        if self.seed > MOST_SEED:
            raise VerydeepError(f"seed must be at most {MOST_SEED}, not {self.seed}.")
        if self.momentum >= 1:
            raise VerydeepError(f"momentum must be below 1, not {self.momentum}.")


def _check_least(settings: Any, least: int, names: str) -> None:
    for name in names.split():
        if not getattr(settings, name) >= least:
            raise VerydeepError(f"{flag(name)} must be {least} or more, not {getattr(settings, name)}.")


@dataclass(frozen=True)
class MachineSettings:
    """Device, precision, processes and limits; ``auto``, and mostly 0, mean an automatic choice."""

    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "device of the net", MACHINE)
    precision: Literal["auto", "float32", "bf16", "fp16", "float64"] = setting(
        "auto", "precision of matmuls; sums stay float32 (float64: all in float64, for checks)", MACHINE
    )
    layout: Literal["auto", "channels_last", "contiguous"] = setting("auto", "memory layout of feature maps", MACHINE)
    compile: bool = setting(False, "torch.compile the training step (slow to start; for GPUs)", MACHINE)
    workers: int = setting(-1, "data-loading processes; -1: automatic, 0: load in the main process", LOADING)
    read_timeout: int = setting(600, "seconds before a data-loading process that reads a batch times out", LOADING)
    read_retries: int = setting(0, "times to retry reading a file after an I/O error", LOADING)
    peer_timeout: int = setting(300, "seconds before an unresponsive process of a torchrun job ends it", MACHINE)
    max_pixels: int = setting(0, f"refuse images with more pixels; 0: {PIXEL_LIMIT:,}", LOADING)
    threads: int = setting(0, "CPU threads; 0: all cores that quotas and OMP_NUM_THREADS allow", MACHINE)
    tensorboard: bool = setting(False, "also write a TensorBoard log, in the run's folder", OUTPUT)
    device_batch: int = setting(0, "micro-batch size (gradient accumulation); 0: chosen by free memory", MACHINE)
    recompute: bool = setting(False, "gradient checkpointing: recompute maps within stages, for less memory", MACHINE)
    bf16_gradients: bool = setting(False, "all-reduce gradients as bf16: half the bytes, rounded sums", MACHINE)

    def __post_init__(self) -> None:
        if not -1 <= self.workers <= MOST_PROCESSES or not 0 <= self.threads <= MOST_PROCESSES:
            raise VerydeepError(f"workers must be -1 to {MOST_PROCESSES} and threads 0 to {MOST_PROCESSES}.")
        if not 0 <= self.read_retries <= MOST_RETRIES:
            raise VerydeepError(f"read-retries must be 0 to {MOST_RETRIES}, not {self.read_retries}.")
        if not 0 <= self.max_pixels <= MOST_PIXELS:
            raise VerydeepError(
                f"max-pixels must be 1 to {MOST_PIXELS:,}, or 0 for {PIXEL_LIMIT:,}, not {self.max_pixels:,}."
            )
        _check_least(self, 1, "read_timeout peer_timeout")
        _check_least(self, 0, "device_batch")


def named_data(given: dict[str, Any]) -> DataSettings:
    """The data to train on; raises VerydeepError if there are none."""
    if "data" not in given:
        raise VerydeepError(
            "no data: give --data a folder with a folder per class, a list file, or the name of a dataset, such as "
            "digits, which is built in."
        )
    return DataSettings(**typed(DataSettings, given))


@dataclass(frozen=True)
class BoxSettings:
    """A localisation model and its training (Sect. A.1): one box for all classes, or one for each."""

    regression: Literal["PCR", "SCR"] = setting("PCR", "a box per class (PCR), or one for all classes (SCR)", BOXES)
    dropout: bool = setting(True, "dropout in training; with few images it makes predicted boxes too small", BOXES)
    balance: bool = setting(True, "rescale the initial FC layers to fit the learning rate; outputs stay", BOXES)
    half_of_box: bool = setting(False, "OverFeat's rule: training crops that show at least half of the box", BOXES)

    def outputs(self, classes: int) -> int:
        """The number of outputs of the last layer: 4 per box."""
        return 4 * classes if self.regression == "PCR" else 4


@dataclass(frozen=True)
class MergeSettings:
    """How boxes are merged to one per label, where the paper leaves it open; see `verydeep.data.boxes`."""

    t: float | None = setting(None, "merge boxes while the best match is at most t; none: tuned on dev images", MERGING)
    match: Literal["relative", "literal"] = setting(
        "relative", "distance over size plus 1 - IoU, or as in OverFeat's text", MERGING
    )
    coordinates: Literal["windows", "pair"] = setting(
        "windows", "a merged box is the mean of all its windows, or of the two boxes merged last", MERGING
    )
    merge: Literal["within", "across"] = setting("within", "merge boxes within labels, or across all labels", MERGING)
    rate: Literal["window", "image"] = setting(
        "window", "score a box by its window's posterior, or by the image's (which counts windows)", MERGING
    )

    def __post_init__(self) -> None:
        if self.t is not None and not self.t >= 0:
            raise VerydeepError(f"t, the largest distance of boxes that merge, must be 0 or more, not {self.t}.")


@dataclass(frozen=True)
class FeatureSettings:
    """The descriptor of an image at each scale; the spatial mean is averaged with the mirror image's."""

    layer: str = setting("fc7", "fc7, fc6, pool5, conv4_3, … (after ReLU), or fc7-before-relu, …", DESCRIPTORS)
    scales: tuple[int, ...] = setting(
        (), "smallest image sides Q in pixels: 256,384,512 (the net's own test scale, or 256)", DESCRIPTORS
    )
    pool: Literal["mean", "max"] = setting("mean", "pooling over the map: mean (App. B) or maximum", DESCRIPTORS)
    mirror: bool = setting(True, "average with the mirror image's descriptor", DESCRIPTORS)

    def __post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise VerydeepError(f"scales lists a value twice: {','.join(map(str, self.scales))}.")
        for scale in self.scales:
            if not STRIDE <= scale <= LARGEST_SIDE:
                raise VerydeepError(f"scales must be {STRIDE} to {LARGEST_SIDE} pixels, not {scale}.")


@dataclass(frozen=True)
class DescriptorSettings:
    """How an image's descriptors of several scales and nets are combined into one vector.

    Scales are stacked, averaged, or their maximum is taken; nets are stacked. ``normalise`` scales each net's
    descriptor at each scale to norm 1 (``scale``), the final vector (``end``), or both.
    """

    aggregate: Literal["stack", "average", "max"] = setting("stack", "combination of scales", DESCRIPTORS)
    normalise: Literal["both", "scale", "end", "none"] = setting(
        "both", "L2 normalisation: of each scale, of the whole descriptor, or both", DESCRIPTORS
    )


@dataclass(frozen=True)
class SvmSettings:
    """The linear SVM: its loss, the values of C that are tried, and the random splits of Caltech and own images."""

    loss: Literal["squared-hinge", "hinge"] = setting("squared-hinge", "loss of the SVM", SVM)
    C: tuple[float, ...] = setting((0.01, 0.1, 1.0, 10.0, 100.0), "values to choose from; a single one is used", SVM)
    splits: int = setting(3, "number of random training and test splits (of Caltech and own images)", SVM)
    seed: int = setting(0, "random seed of the first split; the next ones count up from it", SVM)

    def __post_init__(self) -> None:
        if not self.C or not all(value > 0 for value in self.C):
            values = ",".join(f"{value:g}" for value in self.C) or "none"
            raise VerydeepError(f"C must list values above 0, not {values}.")
        if len(set(self.C)) < len(self.C):
            raise VerydeepError(f"C lists a value twice: {','.join(f'{value:g}' for value in self.C)}.")
        if not FEWEST_SPLITS <= self.splits <= MOST_SPLITS:
            raise VerydeepError(f"splits must be {FEWEST_SPLITS} to {MOST_SPLITS}, not {self.splits}.")
        _check_least(self, 0, "seed")


@dataclass(frozen=True)
class ServeSettings:
    """The server: its address, batching and limits."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 admits other machines, without password", SERVER)
    port: int = setting(8000, "port; 0: a free one", SERVER)
    batch: int = setting(8, "maximum batch size", SERVER)
    queue: int = setting(128, "maximum number of pending requests; more are refused", SERVER)
    max_bytes: int = setting(25_000_000, "maximum size of an image file", SERVER)
    max_pixels: int = setting(50_000_000, "maximum pixels of an image", SERVER)
    patience: int = setting(30, "seconds a client may take to send an image", SERVER)
    heic: bool = setting(False, "also read HEIC (needs pillow-heif)", SERVER)

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
                shown = flag(name)
                raise VerydeepError(f"{shown} must be {least:,} to {most:,}, not {getattr(self, name):,}.")
