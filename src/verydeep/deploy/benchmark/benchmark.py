"""`benchmark`, the verb: how fast this machine trains, answers, tests densely, reads photos and learns SVMs."""

from __future__ import annotations

from typing import Any, Literal, get_args

from ...core.errors import VerydeepError
from ...core.progress import Reporter, Silent
from ...core.settings import MachineSettings
from ...core.team import SingleProcess, Team
from ...models.architectures import check_net_name

What = Literal["infer", "train", "dense", "data", "svm"]
DENSE_SCALES = (256, 384, 512)
PHOTOS, DESCRIPTORS, DIMENSIONS = 64, 1000, 4096  # where nobody tells
LEAST_DESCRIPTORS = 40


def benchmark(
    what: What = "infer",
    sources: tuple[str, ...] | list[str] = (),
    batch: int = 8,
    size: int | None = None,
    repeats: int = 7,
    against: str | None = None,
    photos: int | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """How fast something is, measured in turns; on random data, or on ``sources``.

    Args:
        what: ``infer`` (nets of any kind), ``train`` (steps of nets by name), ``dense`` (a net at `DENSE_SCALES`, or at
            ``size`` alone), ``data`` (a data set, or JPEGs made up), ``svm``.
        batch: photos at once, in a step of all processes together.
        size: side of the photos, or crop.
        repeats: how often each is measured, after warming up.
        against: ``torchvision`` for infer and train, ``scikit-learn`` for svm.
        photos: of ``data`` and ``svm``, how many; 64 and 1000 where not told.
        team: the processes that train together.

    Returns:
        Rows of images a second: the median, the least and the most, as a ratio to the first (the peer where there is
        one), and as a share of this machine's peak, measured in the same run.

    Raises:
        VerydeepError: no such net or data, a size below a net's crop, a peer that is not there.
    """
    _check(what, batch, size, photos)
    wish, told, named = machine or MachineSettings(), reporter or Silent(), list(sources)
    if what == "data":
        from .data_loading import read_photos

        return read_photos(named[0] if named else None, photos or PHOTOS, repeats, told)
    if what == "svm":
        from .svm import learn_svms

        return learn_svms(photos or DESCRIPTORS, size or DIMENSIONS, repeats, against, wish, told)
    return _nets(what, named or ["D"], (batch, size, repeats, against), wish, told, team or SingleProcess())


def _check(what: str, batch: int, size: int | None, photos: int | None) -> None:
    """Raises VerydeepError for numbers that nothing can be measured with."""
    if what not in get_args(What):
        raise VerydeepError(f"what is one of {', '.join(get_args(What))}, not {what!r}.")
    if batch < 1 or (photos is not None and photos < 1):
        raise VerydeepError(f"batch and photos must be 1 or more, not {batch} and {photos}.")
    if size is not None and size < 1:
        raise VerydeepError(f"size must be 1 or more, not {size}.")
    if what == "svm" and photos is not None and photos < LEAST_DESCRIPTORS:
        raise VerydeepError(f"of svm photos must be {LEAST_DESCRIPTORS} or more, two a class, not {photos}.")


def _nets(
    what: What,
    nets: list[str],
    asked: tuple[int, int | None, int, str | None],
    wish: MachineSettings,
    reporter: Reporter,
    team: Team,
) -> dict[str, Any]:
    """What nets do; ``asked`` is batch, size, repeats and peer."""
    from .inference import dense, infer
    from .train_step import train_steps

    if what == "dense":
        return dense(nets[0], (asked[1],) if asked[1] else DENSE_SCALES, asked[2], wish, reporter)
    if what == "train":
        for net in nets:
            check_net_name(net)
        return train_steps(nets, *asked, wish, reporter, team)
    return infer(nets, *asked, wish, reporter)
