"""Sect. 1: the two released models, tested: what others measured with Oxford's own weights on ILSVRC's val set.

The runs ``D/released`` and ``E/released`` are weight files, given on the command line; nothing is trained.
The numbers are published ones of the weights as they are (top-5 only, where nothing else is said),
so a right build meets them to a tenth of a point or two; a different decoder or rescale moves the last digit.
"""

from __future__ import annotations

from . import Experiment, Paper, Row, Table, Test

D, E = "D/released", "E/released"
SCALES = "256,384,512"


def is_released(run: str) -> bool:
    """Whether a run is a weight file that nothing trains."""
    return run.endswith("/released")


def _row(name: str, told: str, tests: tuple[Test, ...], top1: float | None, top5: float) -> Row:
    return Row(f"released/{name}", (told,), Paper(top1, top5), tests)


TABLE = Table(
    "released",
    "The released models on ILSVRC-2012's validation set",
    ("net and test",),
    (
        _row("D/centre", "D, one centre crop, Q = 256", (Test(D, "centre@256"),), 28.5, 9.9),
        _row("E/centre", "E, one centre crop, Q = 256", (Test(E, "centre@256"),), 28.7, 9.9),
        _row("D/dense", "D, dense, Q = 384", (Test(D, "dense@384"),), None, 8.1),
        _row("E/dense", "E, dense, Q = 384", (Test(E, "dense@384"),), None, 8.0),
        _row("D/multi-scale", f"D, dense, Q = {SCALES}", (Test(D, f"dense@{SCALES}"),), None, 7.5),
        _row("E/multi-scale", f"E, dense, Q = {SCALES}", (Test(E, f"dense@{SCALES}"),), None, 7.5),
        _row("DE", f"D and E, dense, Q = {SCALES}", tuple(Test(run, f"dense@{SCALES}") for run in (D, E)), None, 7.1),
    ),
)
EXPERIMENT = Experiment("released", (TABLE,))
