"""Sect. 3.2: the evaluation protocols. Each defines the posterior (K,) of an image.

``dense@Q,…``
    The whole image, rescaled so that its smallest side is Q. The net gives a score map (K,h,w); its
    spatial mean goes through the soft-max. The posteriors of the image and of its mirror image are
    averaged, then those of the scales Q. ``dense@Q,…:softmax-first`` is the named alternative: the
    soft-max of each cell of the map, then the spatial mean.
``crops@Q,…``
    At each Q a regular 5x5 grid of crops whose outer ones touch the image's edges, of the image and
    of its mirror image: 50 crops per scale. The soft-max of each crop's scores, averaged over all.
``both@Q,…``
    Sect. 4.3's combination: the mean of the ``dense`` and the ``crops`` posterior.
``ten@Q,…``
    The ten crops of Krizhevsky et al. (2012): four corners and the centre of the image's central QxQ
    square, and their mirror images.
``centre@Q,…``
    The central crop, without its mirror image.

``:no-mirror`` omits the mirror image, and ``centre@Q:mirror`` adds it. A protocol at several scales is the mean of the
same protocol at each, and ``both`` that of its two parts, so a protocol's posterior is the mean of its
`Protocol.parts`, which can be computed and stored separately.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from ..core.config import LARGEST_SIDE
from ..core.errors import VerydeepError
from ..models.architectures import Layer, multiply_adds

Method = Literal["dense", "crops", "both", "ten", "centre"]
METHODS: tuple[Method, ...] = get_args(Method)
GRID = 5
SOFTMAX_FIRST = ":softmax-first"
MIRROR, NO_MIRROR = ":mirror", ":no-mirror"
GRAMMAR = (
    "METHOD@Q or METHOD@Q,Q,… with METHOD dense, crops, both, ten or centre, e.g. dense@256,384,512 or centre@256; "
    f"optionally followed by {NO_MIRROR} or {MIRROR}, and {SOFTMAX_FIRST}"
)


@dataclass(frozen=True)
class Protocol:
    """A method of evaluation at one or several scales Q, the image's smallest side in pixels.

    ``mirror`` averages with the mirror image; ``softmax_first`` takes the soft-max before the spatial mean.
    """

    method: Method
    scales: tuple[int, ...]
    mirror: bool
    softmax_first: bool = False

    def __str__(self) -> str:
        name = f"{self.method}@{','.join(str(scale) for scale in self.scales)}"
        if self.mirror != (self.method != "centre"):
            name += MIRROR if self.mirror else NO_MIRROR
        return name + (SOFTMAX_FIRST if self.softmax_first else "")

    def parts(self) -> tuple[Protocol, ...]:
        """The protocols of one method and one scale whose mean is this protocol; sorted."""
        methods: tuple[Method, ...] = ("crops", "dense") if self.method == "both" else (self.method,)
        return tuple(
            replace(self, method=method, scales=(scale,), softmax_first=self.softmax_first and method == "dense")
            for method in methods
            for scale in sorted(self.scales)
        )

    def corners(self, height: int, width: int, crop: int) -> list[tuple[int, int]]:
        """Top and left of each crop of an image of ``height`` x ``width`` pixels; none for ``dense``."""
        down, across = height - crop, width - crop
        if self.method == "centre":
            return [(down // 2, across // 2)]
        if self.method == "ten":
            room = min(down, across)
            top, left = (down - room) // 2, (across - room) // 2
            corners = [(top + y, left + x) for y in (0, room) for x in (0, room)]
            return [*corners, (top + room // 2, left + room // 2)]
        if self.method == "dense":
            return []
        return [(top, left) for top in _grid(down) for left in _grid(across)]

    def shown_pixels(self, crop: int, height: int, width: int) -> int:
        """Pixels that go through the net for an image of ``height`` x ``width``, its mirror image included."""
        whole = height * width if self.method in ("dense", "both") else 0
        return (whole + len(self.corners(height, width, crop)) * crop * crop) * (2 if self.mirror else 1)

    def multiply_adds(self, layers: tuple[Layer, ...], crop: int, height: int, width: int, pooling: str) -> int:
        """Forward multiply-adds of an image at one scale, ``height`` x ``width`` pixels after rescaling."""
        cost = len(self.corners(height, width, crop)) * multiply_adds(layers, crop, crop, pooling)
        if self.method in ("dense", "both"):
            cost += multiply_adds(layers, height, width, pooling, everywhere=self.softmax_first)
        return cost * (2 if self.mirror else 1)


def _grid(room: int) -> list[int]:
    """`GRID` offsets from 0 to ``room``, evenly spaced, halves rounded up."""
    steps = GRID - 1
    return [(2 * number * room + steps) // (2 * steps) for number in range(GRID)]


def _parse(
    text: str, methods: tuple[str, ...], options: tuple[str, ...]
) -> tuple[str, tuple[int, ...], set[str]] | None:
    """The method, scales and options of ``METHOD@Q,…:option…``; None where the text is of another form."""
    pattern = rf"({'|'.join(methods)})@(\d{{1,9}}(?:,\d{{1,9}})*)((?:{'|'.join(options)})*)"
    match = re.fullmatch(pattern, text.strip())
    chosen = re.findall(r":[^:]+", match[3]) if match else []
    if not match or len(set(chosen)) < len(chosen):
        return None
    return match[1], tuple(int(scale) for scale in match[2].split(",")), set(chosen)


def parse_protocol(text: str) -> Protocol:
    """A protocol from its name, such as ``dense@256,384,512``.

    Raises:
        VerydeepError: it does not follow the grammar, which the message shows.
    """
    parsed = _parse(text, METHODS, (MIRROR, NO_MIRROR, SOFTMAX_FIRST))
    if parsed is None or {MIRROR, NO_MIRROR} <= parsed[2]:
        raise VerydeepError(f"{text!r} is not a protocol: write {GRAMMAR}.")
    method, scales, options = cast(Method, parsed[0]), *parsed[1:]
    if len(set(scales)) < len(scales):
        raise VerydeepError(f"{text!r} has a scale twice: use each Q once.")
    if max(scales) > LARGEST_SIDE:
        raise VerydeepError(f"Q = {max(scales)} in {text!r} is above the limit of {LARGEST_SIDE} pixels.")
    if SOFTMAX_FIRST in options and method not in ("dense", "both"):
        raise VerydeepError(f"{text!r}: {SOFTMAX_FIRST} applies to dense and both only, as a crop's map has one cell.")
    mirror = MIRROR in options or (method != "centre" and NO_MIRROR not in options)
    return Protocol(method, scales, mirror, softmax_first=SOFTMAX_FIRST in options)


def check_protocol(protocol: Protocol, crop: int) -> None:
    """Raises VerydeepError where a scale Q is below the net's crop."""
    if min(protocol.scales) < crop:
        raise VerydeepError(
            f"Q = {min(protocol.scales)} in {protocol} is below the net's crop of {crop} pixels: use Q from {crop} up."
        )


BOX_METHODS = ("centre", "dense", "crops")
OFFSETS = ":offsets"
BOX_GRAMMAR = (
    "centre@Q, dense@Q,Q,… or crops@Q,Q,…, e.g. centre@384 or dense@352,384; optionally followed by "
    f"{MIRROR} (the mirror image's boxes too) and, for dense, {OFFSETS} (OverFeat's offset pooling, a finer grid)"
)


@dataclass(frozen=True)
class BoxProtocol:
    """App. A: where a localisation model is applied to an image.

    ``centre@Q``: to the central crop, as in the paper's first procedure. ``dense@Q,…``: to the whole image at each Q,
    one box per cell of the map, as in its second; the boxes of all scales are pooled before merging.
    ``crops@Q,…`` is ours: the crops of Sect. 3.2's 5x5 grid instead of the cells of the map. Like training crops, and
    unlike cells, they have no surroundings, which matters to nets that were trained on crops (NOTES.md).
    The paper mentions neither the mirror image nor the use of OverFeat's offset pooling: both are off by default.
    """

    method: str
    scales: tuple[int, ...]
    mirror: bool = False
    offsets: bool = False

    def __str__(self) -> str:
        name = f"{self.method}@{','.join(str(scale) for scale in self.scales)}"
        return name + (MIRROR if self.mirror else "") + (OFFSETS if self.offsets else "")

    def corners(self, height: int, width: int, crop: int) -> list[tuple[int, int]]:
        """Top and left of each crop of an image of ``height`` x ``width`` pixels; none for ``dense``."""
        if self.method == "dense":
            return []
        method: Method = "centre" if self.method == "centre" else "crops"
        return Protocol(method, self.scales, mirror=False).corners(height, width, crop)

    def parts(self) -> tuple[BoxProtocol, ...]:
        """The protocol at each single scale, sorted; these are computed and stored separately."""
        return tuple(replace(self, scales=(scale,)) for scale in sorted(self.scales))


def parse_box_protocol(text: str, crop: int) -> BoxProtocol:
    """Parses a localisation protocol for a net of ``crop``.

    Raises:
        VerydeepError: it does not follow the grammar, which the message shows, or a Q is below the crop.
    """
    parsed = _parse(text, BOX_METHODS, (MIRROR, OFFSETS))
    if parsed is None or (OFFSETS in parsed[2] and parsed[0] != "dense"):
        raise VerydeepError(f"{text!r} is not a localisation protocol: write {BOX_GRAMMAR}.")
    method, scales, options = parsed
    if len(set(scales)) < len(scales) or not crop <= min(scales) <= max(scales) <= LARGEST_SIDE:
        raise VerydeepError(f"{text!r}: use each Q once, from the net's crop of {crop} up to {LARGEST_SIDE} pixels.")
    return BoxProtocol(method, scales, MIRROR in options, OFFSETS in options)
