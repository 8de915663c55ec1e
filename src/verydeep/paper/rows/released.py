"""Sect. 1: the two released models: published results of Oxford's own weights on ILSVRC's val set.

The runs ``D/released`` and ``E/released`` are weight files, given on the command line; nothing is trained.
They are the paper's D and E of S in [256;512], so its figures hold for them (Tables 3 to 6); those of one
centre crop are of MatConvNet's pages. A correct build reproduces them to 0.1 or 0.2 points: another decoder
or rescaling filter changes the last digit.
"""

from __future__ import annotations

from .row import Experiment, Paper, Row, Table, Test

D, E = "D/released", "E/released"
SCALES = "256,384,512"


def is_released(run: str) -> bool:
    """Whether a run is a weight file that nothing trains."""
    return run.endswith("/released")


def _rows(net: str, run: str, centre: float, errors: dict[str, tuple[float, float]]) -> tuple[Row, ...]:
    """A net's rows from its top-1 error on a centre crop and both errors by protocol."""
    published = {"centre@256": (centre, 9.9), **errors}
    return tuple(
        Row(
            f"released/{net}/{protocol.partition('@')[0]}",
            (f"{net}, {protocol}",),
            Paper(*figures),
            (Test(run, protocol),),
        )
        for protocol, figures in published.items()
    )


def _fused(method: str, top1: float, top5: float) -> Row:
    protocol = f"{method}@{SCALES}"
    tests = (Test(D, protocol), Test(E, protocol))
    return Row(f"released/D+E/{method}", (f"D and E, {protocol}",), Paper(top1, top5), tests)


def _dense_384(net: str, run: str, top1: float, top5: float) -> Row:
    return Row(f"released/{net}/single-scale", (f"{net}, dense@384",), Paper(top1, top5), (Test(run, "dense@384"),))


TABLE = Table(
    "released",
    "The released models on ILSVRC-2012's validation set",
    ("net and test",),
    (
        _dense_384("D", D, 25.6, 8.1),
        *_rows(
            "D",
            D,
            28.5,
            {f"dense@{SCALES}": (24.8, 7.5), f"crops@{SCALES}": (24.6, 7.5), f"both@{SCALES}": (24.4, 7.2)},
        ),
        _dense_384("E", E, 25.5, 8.0),
        *_rows(
            "E",
            E,
            28.7,
            {f"dense@{SCALES}": (24.8, 7.5), f"crops@{SCALES}": (24.6, 7.4), f"both@{SCALES}": (24.4, 7.1)},
        ),
        _fused("dense", 24.0, 7.1),
        _fused("crops", 23.9, 7.2),
        _fused("both", 23.7, 6.8),
    ),
)
EXPERIMENT = Experiment("released", (TABLE,), released=True)
