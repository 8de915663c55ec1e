"""`verydeep benchmark`: inference, training, dense evaluation, data loading and SVM training on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...core.team import Team
from ...core.terminal import default_reporter
from ...models.architectures import check_net_name
from .runner import Options

What = Literal["infer", "train", "dense", "data", "svm"]
DENSE_SCALES = (256, 384, 512)
IMAGES, DESCRIPTORS, DIMENSIONS = 64, 1000, 4096  # the defaults
MIN_DESCRIPTORS = 40


def benchmark(
    what: What = "infer",
    sources: tuple[str, ...] | list[str] = (),
    batch: int = 8,
    size: int | None = None,
    repeats: int = 7,
    against: str | Sequence[str] | None = None,
    photos: int | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
    load: int = 0,
) -> dict[str, Any]:
    """Measures speed in turns, on random data or on ``sources``.

    Args:
        what: ``infer`` (nets of any kind), ``train`` (steps of nets by name), ``dense`` (a net at `DENSE_SCALES`, or at
            ``size`` alone), ``data`` (a dataset, or generated JPEGs), ``svm``.
        batch: batch size, of all processes together.
        size: side of the images, or crop.
        repeats: how often each is measured, after warming up.
        against: ``torchvision`` for infer and train, ``scikit-learn`` for svm; for infer also ``onnxruntime``,
            ``openvino``, ``mnn``, ``ncnn``, or several with commas between.
        photos: for ``data`` and ``svm``, the number of images; by default 64 and 1000.
        team: the processes that train together.
        load: number of other processes that keep the machine busy.

    Returns:
        Rows of images a second: median, least, most, ratio to the first (the peer where there is one) and to the
        fastest peer, and share of this machine's peak, measured in the same run.

    Raises:
        VerydeepError: no such net or data, a size below a net's crop, a peer that is missing or fails.
    """
    _check(what, batch, size, photos, load)
    machine, reporter, team = machine or MachineSettings(), reporter or default_reporter(), team or Team()
    options = Options(batch, size, repeats, _peers(against), load if team.is_main else 0, machine, reporter, team)
    if what == "svm":
        from .svm import train_svms

        return train_svms(photos or DESCRIPTORS, size or DIMENSIONS, options)
    return _of_sources(what, list(sources), photos or IMAGES, options)


def _peers(against: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names, each once."""
    names = against.split(",") if isinstance(against, str) else against or ()
    return tuple(dict.fromkeys(name.strip().lower() for name in names))


def _check(what: str, batch: int, size: int | None, photos: int | None, load: int) -> None:
    """Raises VerydeepError for impossible numbers."""
    if what not in get_args(What):
        raise VerydeepError(f"what must be one of {', '.join(get_args(What))}, not {what!r}.")
    if batch < 1 or (photos is not None and photos < 1):
        raise VerydeepError(f"batch and photos must be 1 or more, not {batch} and {photos}.")
    if size is not None and size < 1:
        raise VerydeepError(f"size must be 1 or more, not {size}.")
    if load < 0:
        raise VerydeepError(f"load must be 0 or more, not {load}.")
    if what == "svm" and photos is not None and photos < MIN_DESCRIPTORS:
        raise VerydeepError(f"svm needs {MIN_DESCRIPTORS} photos or more, two for each class, not {photos}.")


def _of_sources(what: What, sources: list[str], photos: int, options: Options) -> dict[str, Any]:
    """Of nets, the first of them D by default, or of a dataset."""
    if what == "data":
        from .data_loading import load_images

        return load_images(sources[0] if sources else None, photos, options)
    from .inference import dense, infer
    from .train_step import train_steps

    nets = sources or ["D"]
    if what == "dense":
        return dense(nets[0], (options.size,) if options.size else DENSE_SCALES, options)
    if what == "train":
        for net in nets:
            check_net_name(net)
        return train_steps(nets, options)
    return infer(nets, options)
