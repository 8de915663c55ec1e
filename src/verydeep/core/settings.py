"""Settings of training, data, machine, boxes, descriptors, SVMs and the server, one dataclass each.

Those of the machine change results by rounding at most, and are not part of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .config import LARGEST_SIDE, STRIDE, Scale, as_typed, check_crop, flag, setting, typed
from .errors import VerydeepError

MOST_BATCH, MOST_QUEUE, MOST_PORT = 64, 10_000, 65_535
LEAST_BYTES, MOST_BYTES = 1_000, 1_000_000_000

FEWEST_SPLITS, MOST_SPLITS = 1, 100
NEIGHBOURS = (1, 5, 10, 20, 50)

DEV_FRACTION = 0.1
MOST_SEED = 2**48
MOST_RETRIES = 10
MOST_PROCESSES = 512  # larger numbers are typing mistakes
PIXEL_LIMIT = 89_478_485  # a quarter of a gigabyte as RGB: few photos have more, and decompression bombs do
MOST_PIXELS = 2**31 - 1
PAPER_SCALE = Scale(256, 256)

# Groups of arguments in help.
DATA, NET, LEARNING, SCHEDULE = "Data", "Net and weights", "Training", "Schedule"
IMAGES, DEV, BOXES, MERGING = "Image preprocessing", "Validation", "Boxes", "Box merging"
DESCRIPTORS, SVM, SERVER = "Descriptors", "SVM", "Server"
OUTPUT, LOADING, MACHINE = "Output", "Data loading", "Hardware"


@dataclass(frozen=True)
class DataSettings:
    """The images, their classes, and the split of data that have none of their own."""

    data: str = setting(
        "digits",
        "dataset: a folder, a list file, or digits, imagenet:DIR, caltech101:DIR, caltech256:DIR",
        DATA,
        placeholder="DATA",
    )
    boxes: tuple[str, ...] = setting(
        (),
        "box files: folders of PASCAL VOC XML or YOLO labels, CSV, COCO or VIA JSON; FOLDER=FILE: names in FILE are "
        "relative to FOLDER below DATA; can be repeated",
        DATA,
        placeholder="FILE,…",
    )
    classes: tuple[str, ...] = setting(
        (),
        "use only these classes: names or patterns, such as 'c*,dog'; repeat the flag for names that contain commas",
        DATA,
        names=True,
        placeholder="NAME,…",
    )
    folders: Literal["auto", "classes", "splits"] = setting(
        "auto",
        "read the folders of the data as classes, or as splits (train/, val/, test/) with class folders; auto: by name",
        DATA,
    )
    exclude: str | None = setting(
        None,
        "leave out the images that this CSV file lists, such as suspects.csv of `data check`",
        DATA,
        placeholder="FILE",
    )
    dev_fraction: float | None = setting(
        None,
        "fraction of the training images held out for validation (learning-rate schedule, best epoch) (default: 0.1)",
        DATA,
    )
    test_fraction: float = setting(
        0.2, "fraction of the images held out for testing, if the dataset has no test split", DATA
    )
    split_seed: int = setting(0, "random seed of the split", DATA)
    group_by: str | None = setting(
        None,
        "split whole groups of images, such as those of an animal or a video: a column of the list file, or a regular "
        "expression that finds the group in an image's path",
        DATA,
        placeholder="COLUMN|PATTERN",
    )

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
    S: Scale = setting(
        PAPER_SCALE, "training scale: shorter side of the resized image in pixels, 256 or a range 256-512", IMAGES
    )
    crop: int = setting(224, "side of a training crop in pixels, a multiple of 32", IMAGES)
    width: float = setting(1.0, "multiplier of the number of channels of each hidden layer", NET)
    initialise: Literal["glorot", "gaussian", "gaussian-literal"] = setting(
        "glorot", "random initialisation: Glorot and Bengio's, or Gaussian of std 0.01 or, literally, 0.1", NET
    )
    start: str = setting(
        "none",
        "initial weights: a run, checkpoint, weight file or name of `weights list`; released: the public weights of "
        "the net; none: random weights",
        NET,
        placeholder="MODEL",
    )
    preprocessing: Literal["recorded", "caffe", "rgb-mean", "torchvision", "torchvision-features"] = setting(
        "recorded", "preprocessing that the weights expect, if their file does not record it", NET
    )
    new_fc: Literal["random", "fitted"] = setting(
        "random", "FC layers without initial weights: random, or fitted to the training images before training", NET
    )
    learn: Literal["all", "fc", "last"] = setting(
        "all", "layers to train: all, all FC layers, or the last one", LEARNING
    )
    head_epochs: int = setting(0, "number of first epochs that train only the randomly initialised layers", SCHEDULE)
    batch: int = setting(256, "batch size; 0: 256, or an eighth of the training images if that is less", LEARNING)
    class_weights: str = setting(
        "none",
        "factors of the loss by class: none, balanced (rare classes count as much as frequent ones), or a table with "
        "the columns class and weight",
        LEARNING,
        placeholder="none|balanced|FILE",
    )
    lr: float = setting(1e-2, "initial learning rate", LEARNING)
    momentum: float = setting(0.9, "momentum of SGD", LEARNING)
    momentum_at_drop: Literal["rescale", "keep"] = setting(
        "rescale", "momentum buffers at learning-rate drops: rescale as Caffe, or keep as PyTorch", LEARNING
    )
    weight_decay: float = setting(5e-4, "L2 penalty on weights", LEARNING)
    bias_weight_decay: float = setting(0.0, "L2 penalty on biases; 0 in Oxford's own files", LEARNING)
    bias_lr: float = setting(2.0, "multiplier of the learning rate for biases; 2 in Oxford's own files", LEARNING)
    drops: int = setting(
        3, "number of plateaus at which the learning rate is divided by 10; the next one ends training", SCHEDULE
    )
    patience: int = setting(5, "number of epochs without improvement that make a plateau", SCHEDULE)
    improvement: float = setting(
        0.1, "decrease of the dev top-1 error that counts as improvement, in percentage points", SCHEDULE
    )
    hold_at_chance: bool = setting(
        True, "do not divide the learning rate while the dev error is no better than chance", SCHEDULE
    )
    drop_at: tuple[int, ...] = setting(
        (),
        "divide the learning rate after these epochs, such as 30,50, not at plateaus",
        SCHEDULE,
        placeholder="EPOCH,…",
    )
    divergence_retries: int = setting(
        0, "number of times a diverged training returns to its best epoch, with a tenth of the learning rate", SCHEDULE
    )
    max_epochs: int = setting(74, "maximum number of epochs", SCHEDULE)
    max_steps: int = setting(370_000, "maximum number of steps", SCHEDULE)
    context: Literal["crop", "photo"] = setting(
        "crop",
        "train on crops surrounded by zeros, as in the paper (crop), or on windows of whole images, as dense "
        "evaluation sees them (photo)",
        IMAGES,
    )
    mirror: bool = setting(True, "flip half of the crops horizontally", IMAGES)
    colour_shift: Literal["sqrt", "eigenvalue", "off"] = setting(
        "sqrt", "PCA colour shift in proportion to the square root of the eigenvalues, or to the eigenvalues", IMAGES
    )
    validate: Literal["centre", "dense"] = setting(
        "centre", "evaluation on the dev images after each epoch, at Q = S: of a centre crop, or dense", DEV
    )
    pooling: Literal["up", "down"] = setting(
        "up", "rounding of map sizes in pooling: up as Caffe, down as PyTorch", NET
    )
    resampling: Literal["bilinear", "bicubic"] = setting(
        "bilinear", "interpolation for resizing, with antialiasing", IMAGES
    )
    other_side: Literal["round", "truncate"] = setting("round", "rounding of the longer side after resizing", IMAGES)
    decoding: Literal["whole", "reduced"] = setting(
        "whole", "reduced: decode large training JPEGs at a lower resolution and resize only the crop, faster", IMAGES
    )
    bad_images: Literal["stop", "skip"] = setting("stop", "at an unreadable image, stop or skip it", DATA)
    seed: int = setting(0, "random seed of initial weights, order of images, crops and dropout", LEARNING)

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

    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "device to run the net on; auto: cuda, else mps, else cpu", MACHINE
    )
    precision: Literal["auto", "float32", "bf16", "fp16", "float64"] = setting(
        "auto",
        "precision of convolutions and matmuls; auto: bf16 on CUDA, or fp16 if bf16 is not supported, and float32 "
        "elsewhere, but bf16 for long inference on a CPU with AMX if it agrees with float32 on a sample of the images; "
        "float64: for checks",
        MACHINE,
    )
    layout: Literal["auto", "channels_last", "contiguous"] = setting(
        "auto", "memory format of feature maps; auto: channels_last, on mps contiguous", MACHINE
    )
    compile: bool = setting(False, "compile the training step with torch.compile; starts slowly, for GPUs", MACHINE)
    workers: int = setting(
        -1, "number of data-loading processes; 0: load in the main process; -1: as CPU cores allow, up to 16", LOADING
    )
    read_timeout: int = setting(600, "timeout in seconds for a batch from the data-loading workers", LOADING)
    read_retries: int = setting(0, "number of times to retry reading a file after an I/O error", LOADING)
    peer_timeout: int = setting(300, "timeout in seconds for another process of a torchrun job", MACHINE)
    max_pixels: int = setting(
        0,
        f"largest number of pixels of an image; raise it to read larger images; 0: Pillow's limit, {PIXEL_LIMIT:,}",
        LOADING,
    )
    threads: int = setting(
        0, "number of CPU threads; 0: all cores within the CPU quota (cgroup), affinity and OMP_NUM_THREADS", MACHINE
    )
    tensorboard: bool = setting(False, "also write a TensorBoard log into the run's folder", OUTPUT)
    track: tuple[Literal["wandb", "mlflow", "trackio"], ...] = setting(
        (),
        "also log each epoch to these experiment trackers, which have to be installed: wandb, mlflow, trackio",
        OUTPUT,
        placeholder="NAME,…",
    )
    device_batch: int = setting(0, "micro-batch size for gradient accumulation; 0: chosen by free memory", MACHINE)
    recompute: bool = setting(False, "gradient checkpointing: recompute feature maps to save memory", MACHINE)
    bf16_gradients: bool = setting(False, "all-reduce gradients in bf16: half the traffic, less exact sums", MACHINE)

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
            "no data: pass a folder with a folder per class, a list file, or the name of a dataset, such as "
            "digits, which is built in, as --data."
        )
    return DataSettings(**typed(DataSettings, given))


@dataclass(frozen=True)
class BoxSettings:
    """A localisation model and its training (Sect. A.1): one box for all classes, or one for each."""

    regression: Literal["PCR", "SCR"] = setting(
        "PCR", "predict a box per class (PCR), or one box for all classes (SCR)", BOXES
    )
    dropout: bool = setting(True, "dropout in training; with few images it makes predicted boxes too small", BOXES)
    balance: bool = setting(True, "rescale the initial FC layers to fit the learning rate, with equal outputs", BOXES)
    half_of_box: bool = setting(False, "train on crops that show at least half of the box, as OverFeat does", BOXES)

    def outputs(self, classes: int) -> int:
        """The number of outputs of the last layer: 4 per box."""
        return 4 * classes if self.regression == "PCR" else 4


@dataclass(frozen=True)
class MergeSettings:
    """How boxes are merged to one per label, where the paper leaves it open; see `verydeep.data.boxes`."""

    t: float | None = setting(
        None, "largest distance at which two boxes are merged; none: the one tuned on the dev images", MERGING
    )
    match: Literal["relative", "literal"] = setting(
        "relative",
        "distance of two boxes: relative: distance of centres over mean diagonal, plus 1 - IoU; literal: distance of "
        "centres plus area of intersection, in pixels, as the OverFeat paper has it",
        MERGING,
    )
    coordinates: Literal["windows", "pair"] = setting(
        "windows",
        "a merged box is the mean of all predicted boxes in it (windows), or of the two that were merged (pair), "
        "as the OverFeat paper has it",
        MERGING,
    )
    merge: Literal["within", "across"] = setting(
        "within",
        "merge the boxes of each label by themselves (within), or those of all labels together (across)",
        MERGING,
    )
    rate: Literal["window", "image"] = setting(
        "window",
        "score of a predicted box: the posterior of its class at its place in the image, or that of the whole image; "
        "a merged box has the sum of its scores",
        MERGING,
    )

    def __post_init__(self) -> None:
        if self.t is not None and not self.t >= 0:
            raise VerydeepError(f"t, the largest distance of boxes that merge, must be 0 or more, not {self.t}.")


@dataclass(frozen=True)
class FeatureSettings:
    """The descriptor of an image at each scale; the spatial mean is averaged with the mirror image's."""

    layer: str = setting(
        "fc7",
        "layer that gives the descriptor: fc7, fc6, pool5, conv4_3, …, after ReLU, or fc7-before-relu, …",
        DESCRIPTORS,
        placeholder="LAYER",
    )
    scales: tuple[int, ...] = setting(
        (),
        "scales Q, shorter sides of the resized image in pixels, such as 256,384,512 (default: the net's test scale, "
        "or 256)",
        DESCRIPTORS,
        placeholder="Q,…",
    )
    pool: Literal["mean", "max"] = setting(
        "mean", "pooling over the feature map: mean, as in App. B, or maximum", DESCRIPTORS
    )
    mirror: bool = setting(True, "average with the descriptor of the mirror image", DESCRIPTORS)

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

    aggregate: Literal["stack", "average", "max"] = setting(
        "stack",
        "how an image's descriptors of several scales are combined: concatenated, averaged or maximum",
        DESCRIPTORS,
    )
    normalise: Literal["both", "scale", "end", "none"] = setting(
        "both", "L2-normalise the descriptor of each scale, the combined descriptor at the end, or both", DESCRIPTORS
    )


@dataclass(frozen=True)
class SvmSettings:
    """The classifier on descriptors, the values of C or k that are tried, and the random splits of one's own images."""

    loss: Literal["squared-hinge", "hinge"] = setting("squared-hinge", "loss of the SVM", SVM)
    C: tuple[float, ...] = setting(
        (0.01, 0.1, 1.0, 10.0, 100.0),
        "values of C, of which the best on the dev images is used",
        SVM,
        placeholder="X,…",
    )
    class_weights: str = setting(
        "none",
        "factors of the loss by class: none, balanced (rare classes count as much as frequent ones), or a table with "
        "the columns class and weight; not for images of several classes",
        SVM,
        placeholder="none|balanced|FILE",
    )
    exclude: str | None = setting(
        None,
        "leave out the images that this CSV file lists, such as suspects.csv of `data check`",
        SVM,
        placeholder="FILE",
    )
    group_by: str | None = setting(
        None,
        "split whole groups of own images, such as those of an animal or a video: a regular expression that finds the "
        "group in an image's path",
        SVM,
        placeholder="PATTERN",
    )
    splits: int = setting(3, "number of random training and test splits, of Caltech and own images", SVM)
    seed: int = setting(0, "random seed of the first split; the next splits use the next integers", SVM)
    classifier: Literal["svm", "logistic", "knn"] = setting(
        "svm",
        "linear SVMs as in the paper, logistic regression, or the nearest training images by cosine similarity",
        SVM,
    )
    k: tuple[int, ...] = setting(
        NEIGHBOURS,
        "numbers of neighbours of knn, of which the best on the dev images is used",
        SVM,
        placeholder="N,…",
    )

    def __post_init__(self) -> None:
        if not self.C or not all(value > 0 for value in self.C):
            values = ",".join(f"{value:g}" for value in self.C) or "none"
            raise VerydeepError(f"C must list values above 0, not {values}.")
        if len(set(self.C)) < len(self.C):
            raise VerydeepError(f"C lists a value twice: {','.join(f'{value:g}' for value in self.C)}.")
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise VerydeepError(f"k must list different numbers of neighbours, 1 or more, not {as_typed(self.k)!r}.")
        self._check_classifier()
        if not FEWEST_SPLITS <= self.splits <= MOST_SPLITS:
            raise VerydeepError(f"splits must be {FEWEST_SPLITS} to {MOST_SPLITS}, not {self.splits}.")
        _check_least(self, 0, "seed")

    def _check_classifier(self) -> None:
        """Raises VerydeepError for settings of another classifier."""
        if self.classifier != "svm" and self.loss != "squared-hinge":
            raise VerydeepError(f"loss is of SVMs: leave it out for classifier {self.classifier}.")
        if self.classifier != "knn" and self.k != NEIGHBOURS:
            raise VerydeepError(f"k is of classifier knn, not of {self.classifier}: leave it out.")
        if self.classifier == "knn" and self.class_weights != "none":
            raise VerydeepError("class-weights is of classifiers svm and logistic: leave it out for knn.")

    @property
    def parameter(self) -> str:
        """What is chosen on the dev images."""
        return "k" if self.classifier == "knn" else "C"

    @property
    def values(self) -> tuple[float, ...]:
        """The values of C, or of k, of which the best on the dev images is used."""
        return tuple(map(float, self.k)) if self.classifier == "knn" else self.C


@dataclass(frozen=True)
class SuspectSettings:
    """What counts as a near duplicate, and as a doubtful label, in `data check`."""

    near: float = setting(
        0.45,
        "largest distance (1 - cosine of descriptors) of near duplicates, as a fraction of the distance to their fifth "
        "nearest images: a lower value finds fewer",
        DESCRIPTORS,
    )

    clear: float = setting(
        0.2,
        "smallest margin of a doubtful label: half the difference of the scores of another class and of the label, "
        "from SVMs trained without the image; a higher value finds fewer",
        DESCRIPTORS,
    )

    def __post_init__(self) -> None:
        if not 0 < self.near < 1:
            raise VerydeepError(f"near must be above 0 and below 1, not {self.near}.")
        if not 0 <= self.clear < 1:
            raise VerydeepError(f"clear must be 0 or more and below 1, not {self.clear}.")


@dataclass(frozen=True)
class ServeSettings:
    """The server: its address, batching and limits."""

    host: str = setting(
        "127.0.0.1",
        "address to listen on; 0.0.0.0: all, so that other machines can use the server, without a password",
        SERVER,
        placeholder="ADDRESS",
    )
    port: int = setting(8000, "port to listen on; 0: any free one", SERVER)
    batch: int = setting(8, "maximum batch size", SERVER)
    queue: int = setting(128, "maximum number of pending requests; further ones are rejected", SERVER)
    max_bytes: int = setting(25_000_000, "maximum size of an image file in bytes", SERVER)
    max_pixels: int = setting(50_000_000, "maximum number of pixels of an image", SERVER)
    patience: int = setting(30, "timeout in seconds for a client that sends an image", SERVER)
    heic: bool = setting(False, "also accept HEIC images; needs pillow-heif", SERVER)

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
