"""App. A: Tables 8 to 10, and the claims of their text.

A localisation run is named by the classification run it starts from, its regression, and ``-fc`` where only the FC
layers are trained: ``D/384-PCR``, ``D/384-SCR-fc``. ``centre@Q`` is the first test procedure, ``dense@Q,…`` the
second, which needs the labels of the best classification system (Table 6's last row). Table 8's experiments are at
S = 384; "the results with S = 256 exhibit the same behaviour and are not shown": they are rows of the text here.
"""

from __future__ import annotations

from .row import Claim, Experiment, Paper, Row, Table, Test

LABELS_ROW = "table6/both"  # the best classification system, which the second procedure takes its labels from
LABELLED = (LABELS_ROW,)
RATING_RUN = (
    "D/256-512"  # the classification net that rates boxes: the best one of net D, which the localisation nets are
)
HEADS = {"gt_class_val": "GT class localisation error (%)"}
TOP5 = {"top5_val": "top-5 localisation val. error (%)", "top5_test": "top-5 localisation test error (%)"}


def _table_8(prefix: str, scale: str, errors: tuple[float | None, float | None, float | None]) -> tuple[Row, ...]:
    kinds = (("1st and 2nd FC", "SCR", "-fc"), ("1st and 2nd FC", "PCR", "-fc"), ("all", "PCR", ""))
    return tuple(
        Row(
            f"{prefix}/{regression}{end}",
            (layers, regression),
            Paper(gt_class_val=error),
            (Test(f"D/{scale}-{regression}{end}", f"centre@{scale}"),),
            (f"table3/D/{scale}",),  # of the run it starts from
        )
        for (layers, regression, end), error in zip(kinds, errors, strict=True)
    )


TABLE_8 = Table(
    "8",
    "Localisation error for different modifications: one central crop, the true class (S = 384)",
    ("fine-tuned layers", "regression"),
    _table_8("table8", "384", (36.4, 34.3, 33.1)),
    ("gt_class_val",),
    HEADS,
)
SINGLE = Test("D/256-PCR", "dense@256")
SEVERAL = Test("D/384-PCR", "dense@352,384")
FUSED = (SINGLE, SEVERAL)
TABLE_9 = Table(
    "9",
    "Localisation error, the fully-fledged procedure",
    ("train (S)", "test (Q)"),
    (
        Row("table9/256", ("256", "256"), Paper(top5_val=29.5), (SINGLE,), LABELLED),
        Row(
            "table9/384",
            ("384", "384"),
            Paper(top5_val=28.2, top5_test=26.7),
            (Test("D/384-PCR", "dense@384"),),
            LABELLED,
        ),
        Row("table9/384-several", ("384", "352,384"), Paper(top5_val=27.5), (SEVERAL,), LABELLED),
        Row(
            "table9/fusion",
            ("fusion", "256/256 and 384/352,384"),
            Paper(top5_val=26.9, top5_test=25.3),
            FUSED,
            LABELLED,
        ),
    ),
    ("top5_val", "top5_test"),
    TOP5,
)
TABLE_10 = Table(
    "10",
    "Comparison with the state of the art in ILSVRC localisation",
    ("method",),
    (
        Row("table10/VGG", ("VGG",), Paper(top5_val=26.9, top5_test=25.3), FUSED, LABELLED),
        Row("table10/GoogLeNet", ("GoogLeNet (Szegedy et al., 2014)",), Paper(top5_test=26.7)),
        Row("table10/OverFeat", ("OverFeat (Sermanet et al., 2014)",), Paper(top5_val=30.0, top5_test=29.9)),
        Row("table10/Krizhevsky", ("Krizhevsky et al. (2012)",), Paper(top5_test=34.2)),
    ),
    ("top5_val", "top5_test"),
    TOP5,
)
TEXT = Table(
    "localisation-text",
    "Localisation at S = 256, which the text says behaves the same",
    ("fine-tuned layers", "regression"),
    _table_8("localisation-text", "256", (None, None, None)),
    ("gt_class_val",),
    HEADS,
)
CLAIMS = (
    Claim(
        "PCR",
        "per-class regression is better than a single box for all classes",
        "A.2",
        (("table8/SCR-fc", "table8/PCR-fc"),),
    ),
    Claim(
        "all-layers",
        "fine-tuning all layers is better than the FC layers only",
        "A.2",
        (("table8/PCR-fc", "table8/PCR"),),
    ),
    Claim(
        "whole-image",
        "the whole image is better than a central crop, with predicted labels",
        "A.2",
        (("table8/PCR", "table9/384"),),
    ),
    Claim("box-scales", "several test scales are better than one", "A.2", (("table9/384", "table9/384-several"),)),
    Claim(
        "box-fusion",
        "two localisation nets are better than either",
        "A.2",
        (("table9/256", "table9/fusion"), ("table9/384-several", "table9/fusion")),
    ),
)
EXPERIMENT = Experiment("localisation", (TABLE_8, TABLE_9, TABLE_10, TEXT), CLAIMS, task="localisation")
