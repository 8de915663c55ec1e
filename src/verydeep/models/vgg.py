"""Sect. 2: the fully-convolutional nets of Table 1, and their initialisers.

Shapes: B batch, K classes, H W pixels, h w cells of a map, D channels. The FC layers are convolutions (Sect. 3.2), so
the same net takes training crops and whole images. Hidden layers end in ReLU (Sect. 2.1); the output is scores before
the soft-max.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from ..core.config import STRIDE
from ..core.errors import VerydeepError
from ..core.out_of_memory import within_memory
from . import bf16
from .architectures import Layer, has_lrn, layers
from .layers import Convolution, FullyConnected
from .map_cache import MapCache

Initialiser = Literal["glorot", "gaussian", "gaussian-literal"]
Pooling = Literal["up", "down"]
BEFORE_RELU = "-before-relu"  # suffix of the name of a map before ReLU
GAUSSIAN_STD = {"gaussian": 0.01, "gaussian-literal": 0.1}  # Sect. 3.1: "10^-2 variance" and how all code read it


class Net(nn.Module):
    """A very deep ConvNet: from float (B,3,H,W), RGB 0-255 minus the mean, to scores (B,K,h,w).

    For training crops h = w = 1. Pooling rounds sizes ``up``, as in the original code, so that no border pixel is lost,
    or ``down``, PyTorch's default; for multiples of 32 pixels the two are equal.
    """

    takes = "float"
    recompute = False  # gradient checkpointing of stages (Chen et al. 2016): slower, less memory
    map_cache: MapCache | None = None  # of the last maps, while the convolutions do not change
    most_values = math.inf  # of the images of a pass without gradients, lowered where memory runs out

    def __init__(self, name: str, classes: int, crop: int, width: float, pooling: Pooling = "up") -> None:
        super().__init__()
        self.name, self.classes, self.crop, self.width, self.pooling = name, classes, crop, width, pooling
        self.specs: tuple[Layer, ...] = layers(name, classes, crop, width)
        for spec in self.specs:
            self.add_module(spec.name, _convolution(spec))
        # Krizhevsky's alpha 1e-4 is not divided by the 5 channels of the sum; PyTorch's is.
        self.lrn = nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0) if has_lrn(name) else None

    def layer(self, name: str) -> nn.Conv2d:
        """The layer of that name (``conv1_1`` to ``fc8``)."""
        layer = getattr(self, name)
        assert isinstance(layer, nn.Conv2d)
        return layer

    @property
    def dropout_units(self) -> tuple[int, int]:
        """The numbers of units of fc6 and fc7, to which dropout applies."""
        return self.layer("fc6").out_channels, self.layer("fc7").out_channels

    def stages(self, x: Tensor) -> list[Tensor]:
        """The five maps after pooling, (B,D,h,w) at strides 2, 4, 8, 16, 32, for use as a backbone.

        Args:
            x: float (B,3,H,W).
        """
        maps = []
        for stage in range(1, 6):
            if self.recompute and torch.is_grad_enabled():
                x = recomputed(self._pooled_stage, stage, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = self._pooled_stage(stage, x)
            maps.append(x)
        return maps

    def activations(self, x: Tensor, layer: str) -> Tensor:
        """The map of a layer by name, (B,D,h,w); later layers are not computed.

        Args:
            x: float (B,3,H,W).
            layer: a name of `map_names`: ``pool5``, ``conv4_3`` or ``fc7`` (after ReLU, and in A-LRN after LRN),
                ``fc7-before-relu``, or ``fc8``, the scores.
        """
        if layer.startswith("fc"):
            self._check_size(x)
        return self._within_memory(partial(self._activations, layer=layer), x)

    def _activations(self, x: Tensor, layer: str) -> Tensor:
        names = self.map_names()
        names = names[: names.index(layer) + 1]
        passed = [stage for stage in range(1, 6) if f"pool{stage}" in names]
        for stage in passed:
            x = self._pooled_stage(stage, x)
        for name in names[names.index(f"pool{passed[-1]}") + 1 :] if passed else names:
            x = self._next_map(name, x)
        return x

    def map_names(self) -> tuple[str, ...]:
        """The names of all maps, from the input to the output."""
        names: list[str] = []
        for number, spec in enumerate(self.specs):
            if spec.name == "fc8":
                names.append(spec.name)
                continue
            names += [spec.name + BEFORE_RELU, spec.name]
            if spec.stage <= 5 and [after.stage for after in self.specs[number + 1 :][:1]] != [spec.stage]:
                names.append(f"pool{spec.stage}")
        return tuple(names)

    def cut_after(self, layer: str) -> None:
        """Deletes the layers that the map of a layer does not need."""
        weighted = layer.removesuffix(BEFORE_RELU)
        last = max(n for n, spec in enumerate(self.specs) if weighted in (spec.name, f"pool{spec.stage}"))
        for spec in self.specs[last + 1 :]:
            delattr(self, spec.name)
        self.specs = self.specs[: last + 1]

    def reset_classifier(self, classes: int, seed: int = 0) -> None:
        """Replaces fc8 by a random layer of other outputs, on the device of the old one."""
        old = self.layer("fc8").weight
        self.classes, self.specs = classes, layers(self.name, classes, self.crop, self.width)
        self.add_module("fc8", _convolution(self.specs[-1]))
        initialise_layers(self, ["fc8"], "glorot", seed)
        self.layer("fc8").to(old.device, old.dtype)

    def _next_map(self, name: str, x: Tensor) -> Tensor:
        """A map (B,D,h,w) from the one before it in `map_names`, which ReLU overwrites."""
        if name.endswith(BEFORE_RELU) or name == "fc8":
            return torch.as_tensor(self.layer(name.removesuffix(BEFORE_RELU))(x))
        x = F.relu(x, inplace=True)
        return self.lrn(x) if self.lrn is not None and name == "conv1_1" else x

    def _pooled_stage(self, stage: int, x: Tensor) -> Tensor:
        even = x.shape[2] % 2 == x.shape[3] % 2 == 0  # then sizes rounded up and down are equal
        return self._stage(stage, x, pooled=True) if even else self._pool(self._stage(stage, x))

    def _stage(self, stage: int, x: Tensor, pooled: bool = False) -> Tensor:
        """The map (B,D,h,w) of a stage before its pooling, or after it (``pooled``, of even maps)."""
        names = [spec.name for spec in self.specs if spec.stage == stage]
        for name in names:
            layer = self.layer(name)
            assert isinstance(layer, Convolution)
            last = pooled and name == names[-1]
            if self.lrn is not None and name == "conv1_1":
                x = self.lrn(layer.rectified(x))
                x = self._pool(x) if last else x
            else:
                x = layer.rectified(x, pooled=last)
        return x

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=self.pooling == "up")

    def penultimate(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """The map of fc7 after ReLU and dropout, (B,D,h,w).

        Args:
            x: float (B,3,H,W).
            keep: dropout mask in training mode, bool (B, units of fc6 + units of fc7); None draws it from PyTorch's
                generator. Ignored in evaluation mode.
        """
        return self._hidden(self.windows(x), keep)

    def windows(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """What fc6 sees: the last pooled map (B,D,h,w), or its windows (B,D,k,k) for ``cells`` as in `forward`."""
        self._check_size(x)
        last = self._last_map(x) if self.map_cache is None else self.map_cache(x, self._last_map)
        if cells is None or not len(cells):
            return last
        side = self.crop // STRIDE
        return torch.stack(
            [image[:, y : y + side, x : x + side] for image, (y, x) in zip(last, cells.tolist(), strict=True)]
        )

    def _last_map(self, x: Tensor) -> Tensor:
        return self._within_memory(lambda part: self.stages(part)[-1], x)

    def _within_memory(self, convolutions: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A map (B,D,h,w) of images (B,3,H,W), computed in parts of the batch where memory runs out without gradients.

        The maps of the convolutions need nearly all of a net's memory. With gradients all of them are kept, and
        training halves its micro-batches.
        """
        if torch.is_grad_enabled():
            return convolutions(x)
        if bf16.runs(x):
            convolutions = partial(bf16.in_parts, convolutions)
        values = math.prod(x.shape[1:])
        size = max(1, int(min(len(x), self.most_values / values)))
        maps, fits = within_memory(lambda count: [convolutions(part) for part in torch.split(x, count)], size)
        if fits < size:
            self.most_values = fits * values
        return maps[0] if len(maps) == 1 else torch.cat(maps)

    def _check_size(self, x: Tensor) -> None:
        # If sizes are rounded up, one pixel is enough for the last cell of fc6's kernel.
        smallest = STRIDE * (self.crop // STRIDE - 1) + 1 if self.pooling == "up" else self.crop
        if min(x.shape[-2:]) < smallest:
            raise VerydeepError(
                f"an image of {x.shape[-1]}x{x.shape[-2]} pixels is smaller than the net's crop of {self.crop}."
            )

    def _hidden(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """fc6 and fc7 with ReLU and dropout on the last pooled map, (B,D,h,w)."""
        units = self.dropout_units[0]
        keep6, keep7 = (None, None) if keep is None else (keep[:, :units], keep[:, units:])
        x = F.relu(self.layer("fc6")(x), inplace=True)
        x = _dropout(x, keep6, self.training)
        x = F.relu(self.layer("fc7")(x), inplace=True)
        return _dropout(x, keep7, self.training)

    def forward(self, x: Tensor, keep: Tensor | None = None, cells: Tensor | None = None) -> Tensor:
        """Scores (B,K,h,w) before the soft-max; arguments as for `penultimate`.

        Args:
            cells: row and column of one cell of each image, int64 (B,2): only its scores are computed, (B,K,1,1).
        """
        return self.scores_of(self.windows(x, cells), keep)

    def scores_of(self, windows: Tensor, keep: Tensor | None = None) -> Tensor:
        """Scores (B,K,h,w) from what `windows` returns: the FC layers."""
        return torch.as_tensor(self.layer("fc8")(self._hidden(windows, keep)))

    def shifted_scores(self, x: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
        """OverFeat's offset pooling (Sermanet et al. 2014): score maps on a grid twice as fine, as four maps.

        The last pooling is applied at each of its four offsets, and the FC layers to each of the four maps.

        Returns:
            For each offset the shift of its map in pixels, down and across, and its scores (B,K,h,w). Offsets that
            leave less than the net's crop are omitted.
        """
        self._check_size(x)
        x = self._within_memory(self._unpooled_last_map, x)
        maps = []
        up = 1 if self.pooling == "up" else 0
        for down, across in itertools.product((0, 1), repeat=2):
            cells = [(side - gone + up) // 2 for side, gone in zip(x.shape[-2:], (down, across), strict=True)]
            if min(cells) >= self.crop // STRIDE:
                scores = self.layer("fc8")(self._hidden(self._pool(x[:, :, down:, across:]), None))
                maps.append(((down * STRIDE // 2, across * STRIDE // 2), scores))
        return maps

    def _unpooled_last_map(self, x: Tensor) -> Tensor:
        for stage in range(1, 5):
            x = self._pooled_stage(stage, x)
        return self._stage(5, x)

    def mean_scores(self, x: Tensor) -> Tensor:
        """The score map averaged over its cells, (B,K).

        fc8 is linear, so it is applied once to the mean of fc7's map, which is equal and cheaper.
        """
        return self._mean_scores(self.penultimate(x))

    def mean_scores_from(self, last: Tensor) -> Tensor:
        """Mean scores (B,K) from the map of the last convolution after its ReLU, (B,D,h,w): the rest of the net."""
        return self._mean_scores(self._hidden(self._pool(last), None))

    def _mean_scores(self, penultimate: Tensor) -> Tensor:
        mean = penultimate.mean(dim=(2, 3), keepdim=True)
        return torch.as_tensor(self.layer("fc8")(mean).flatten(1))


class Head(nn.Module):
    """The FC layers of a net as a module: from `Net.windows` to scores (B,K,h,w)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, windows: Tensor, keep: Tensor | None = None, _cells: Tensor | None = None) -> Tensor:
        """As `Net.forward`, whose arguments it takes; the windows are those of the cells already."""
        return self.net.scores_of(windows, keep)


def _convolution(spec: Layer) -> nn.Conv2d:
    padding = spec.kernel // 2 if spec.stage <= 5 else 0
    # Weights are initialised later: PyTorch's own initialisation would only cost time.
    with torch.device("meta"):
        kind = Convolution if spec.stage <= 5 else FullyConnected
        layer = kind(spec.inputs, spec.outputs, spec.kernel, padding=padding)
    for name, value in list(layer.named_parameters()):  # `to_empty` would import parts of PyTorch for half a second
        setattr(layer, name, nn.Parameter(torch.empty(value.shape)))
    return layer


def _dropout(x: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """Dropout with ratio .5, scaled by 2 in training (Sect. 3.1); ``keep`` bool (B,D) or None."""
    if not training or keep is None:
        return F.dropout(x, 0.5, training)
    return x * (2 * keep[:, :, None, None].to(x.dtype))


def create_net(
    name: str,
    classes: int = 1000,
    crop: int = 224,
    width: float = 1.0,
    initialise: Initialiser = "glorot",
    seed: int = 0,
    pooling: Pooling = "up",
) -> Net:
    """Creates a net of Table 1 with random weights.

    Args:
        name: A, A-LRN, B, C, D, E or shallow-B.
        classes: K, at least 1.
        crop: side of a training crop in pixels, a multiple of 32.
        width: factor on the channels of every hidden layer.
        initialise: ``glorot`` (Glorot & Bengio 2010), ``gaussian`` (std .01) or ``gaussian-literal`` (std .1).
        seed: the same seed gives the same weights.
        pooling: rounds the pooled size ``up`` or ``down``.

    Raises:
        VerydeepError: an unknown net or initialiser, a crop that is not a multiple of 32.

    >>> create_net("A", classes=10, crop=32, width=1 / 16)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10, 1, 1])
    """
    net = Net(name, classes, crop, width, pooling)
    initialise_layers(net, [spec.name for spec in net.specs], initialise, seed)
    return net


def initialise_layers(net: Net, names: list[str], initialise: Initialiser, seed: int) -> None:
    """Initialises the named layers, with biases of 0; each layer's draw depends on (seed, layer) only.

    Glorot's fans count k·k for convolutions; an FC layer is one matmul at the crop, so its fan-out is its outputs. The
    Gaussians are Sect. 3.1's "zero mean and 10^-2 variance" read as std .01 and std .1.
    """
    if initialise not in ("glorot", *GAUSSIAN_STD):
        known = ", ".join(("glorot", *GAUSSIAN_STD))
        raise VerydeepError(f"unknown initialiser {initialise!r}: use one of {known}.")
    for number, spec in enumerate(net.specs):
        if spec.name not in names:
            continue
        layer = net.layer(spec.name)
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        if initialise == "glorot":
            fan_in = spec.inputs * spec.kernel**2
            fan_out = spec.outputs * (spec.kernel**2 if spec.stage <= 5 else 1)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        else:
            nn.init.normal_(layer.weight, 0.0, GAUSSIAN_STD[initialise], generator=generator)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
