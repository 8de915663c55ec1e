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


def _row(nets: str, protocol: str, top1: float, top5: float, name: str = "") -> Row:
    """A row of a net, or of nets with ``+`` between; its name ends with the method where none is given."""
    row_name = f"released/{nets}/{name or protocol.partition('@')[0]}"
    tests = tuple(Test(f"{net}/released", protocol) for net in nets.split("+"))
    return Row(row_name, (f"{nets.replace('+', ' and ')}, {protocol}",), Paper(top1, top5), tests)


TABLE = Table(
    "released",
    "The released models on ILSVRC-2012's validation set",
    ("net and test",),
    (
        _row("D", "dense@384", 25.6, 8.1, "single-scale"),
        _row("D", "centre@256", 28.5, 9.9),
        _row("D", f"dense@{SCALES}", 24.8, 7.5),
        _row("D", f"crops@{SCALES}", 24.6, 7.5),
        _row("D", f"both@{SCALES}", 24.4, 7.2),
        _row("E", "dense@384", 25.5, 8.0, "single-scale"),
        _row("E", "centre@256", 28.7, 9.9),
        _row("E", f"dense@{SCALES}", 24.8, 7.5),
        _row("E", f"crops@{SCALES}", 24.6, 7.4),
        _row("E", f"both@{SCALES}", 24.4, 7.1),
        _row("D+E", f"dense@{SCALES}", 24.0, 7.1),
        _row("D+E", f"crops@{SCALES}", 23.9, 7.2),
        _row("D+E", f"both@{SCALES}", 23.7, 6.8),
    ),
)
EXPERIMENT = Experiment("released", (TABLE,), released=True)
