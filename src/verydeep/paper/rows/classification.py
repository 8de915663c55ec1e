"""Sect. 4: Tables 3 to 7 and the results that are in the text only.

Q follows the paper's rules: S for a fixed S and the mean of the range for a jittered one (Table 3);
S - 32, S, S + 32, or the range's ends and mean (Table 4). Errors are typed from the paper and checked
by a second typing in ``tests/paper/test_paper_figures.py``.
"""

from __future__ import annotations

from .row import Claim, Experiment, Paper, Row, Table, Test

JITTERED = "256-512"
SINGLE = {"256": "256", "384": "384", JITTERED: "384"}
MULTIPLE = {"256": "224,256,288", "384": "352,384,416", JITTERED: "256,384,512"}
ALL_SCALES = MULTIPLE[JITTERED]
METHODS = {"dense": "dense", "crops": "multi-crop", "both": "multi-crop & dense"}


def _scale_rows(table: str, tests: dict[str, str], errors: str) -> tuple[Row, ...]:
    """Rows of Tables 3 and 4 from lines of ``net S top-1 top-5``."""
    rows = []
    for line in errors.strip().splitlines():
        net, scale, top1, top5 = line.split()
        q = tests[scale]
        shown = "[256;512]" if scale == JITTERED else scale
        test = Test(f"{net}/{scale}", f"dense@{q}")
        rows.append(Row(f"{table}/{net}/{scale}", (net, shown, q), Paper(float(top1), float(top5)), (test,)))
    return tuple(rows)


TABLE_3 = Table(
    "3",
    "ConvNet performance at a single test scale",
    ("config.", "train (S)", "test (Q)"),
    _scale_rows(
        "table3",
        SINGLE,
        """
        A      256      29.6  10.4
        A-LRN  256      29.7  10.5
        B      256      28.7   9.9
        C      256      28.1   9.4
        C      384      28.1   9.3
        C      256-512  27.3   8.8
        D      256      27.0   8.8
        D      384      26.8   8.7
        D      256-512  25.6   8.1
        E      256      27.3   9.0
        E      384      26.9   8.7
        E      256-512  25.5   8.0
        """,
    ),
)
TABLE_4 = Table(
    "4",
    "ConvNet performance at multiple test scales",
    ("config.", "train (S)", "test (Q)"),
    _scale_rows(
        "table4",
        MULTIPLE,
        """
        B      256      28.2   9.6
        C      256      27.7   9.2
        C      384      27.8   9.2
        C      256-512  26.3   8.2
        D      256      26.6   8.6
        D      384      26.5   8.6
        D      256-512  24.8   7.5
        E      256      26.9   8.7
        E      384      26.7   8.6
        E      256-512  24.8   7.5
        """,
    ),
)


def _method_row(net: str, method: str, top1: float, top5: float) -> Row:
    test = Test(f"{net}/{JITTERED}", f"{method}@{ALL_SCALES}")
    return Row(f"table5/{net}/{method}", (net, METHODS[method]), Paper(top1, top5), (test,))


TABLE_5 = Table(
    "5",
    "ConvNet evaluation techniques comparison, S in [256;512], Q = 256, 384, 512",
    ("config.", "evaluation method"),
    (
        _method_row("D", "dense", 24.8, 7.5),
        _method_row("D", "crops", 24.6, 7.5),
        _method_row("D", "both", 24.4, 7.2),
        _method_row("E", "dense", 24.8, 7.5),
        _method_row("E", "crops", 24.6, 7.4),
        _method_row("E", "both", 24.4, 7.1),
    ),
)


def _multiple(run: str) -> Test:
    return Test(run, f"dense@{MULTIPLE[run.partition('/')[2].removesuffix('-fc')]}")


# By the time of the submission only the FC layers of the multi-scale D had been fine-tuned (Sect. 4.4).
SUBMISSION = tuple(_multiple(run) for run in ("D/256", "D/384", "D/256-512-fc", "C/256", "C/384", "E/256", "E/384"))


def _two_nets(method: str) -> tuple[Test, ...]:
    return tuple(Test(f"{net}/{JITTERED}", f"{method}@{ALL_SCALES}") for net in ("D", "E"))


TWO = "D/[256;512] and E/[256;512] at 256,384,512"
TABLE_6 = Table(
    "6",
    "Multiple ConvNet fusion results",
    ("combined ConvNet models",),
    (
        Row(
            "table6/submission",
            ("ILSVRC submission: 7 nets, dense eval.",),
            Paper(24.7, 7.5, 7.3, "only the FC layers of the submission's jittered D were fine-tuned"),
            SUBMISSION,
        ),
        Row("table6/dense", (f"{TWO}, dense eval.",), Paper(24.0, 7.1, 7.0), _two_nets("dense")),
        Row("table6/crops", (f"{TWO}, multi-crop",), Paper(23.9, 7.2, None), _two_nets("crops")),
        Row("table6/both", (f"{TWO}, multi-crop & dense eval.",), Paper(23.7, 6.8, 6.8), _two_nets("both")),
    ),
    ("top1_val", "top5_val", "top5_test"),
)
SPANS = "printed once across the val and the test column"
TABLE_7 = Table(
    "7",
    "Comparison with the state of the art in ILSVRC classification",
    ("method",),
    (
        Row("table7/VGG-2-nets", ("VGG (2 nets, multi-crop & dense eval.)",), Paper(23.7, 6.8, 6.8), _two_nets("both")),
        Row(
            "table7/VGG-1-net",
            ("VGG (1 net, multi-crop & dense eval.)",),
            Paper(24.4, 7.1, 7.0, "Sect. 4.4 gives 7.1 as the best single net's test error"),
            (Test(f"E/{JITTERED}", f"both@{ALL_SCALES}"),),
        ),
        Row(
            "table7/VGG-submission",
            ("VGG (ILSVRC submission, 7 nets, dense eval.)",),
            Paper(24.7, 7.5, 7.3),
            SUBMISSION,
        ),
        Row("table7/GoogLeNet-1-net", ("GoogLeNet (1 net)",), Paper(None, 7.9, None, SPANS)),
        Row("table7/GoogLeNet-7-nets", ("GoogLeNet (7 nets)",), Paper(None, 6.7, None, SPANS)),
        Row("table7/MSRA-11-nets", ("MSRA (11 nets)",), Paper(None, None, 8.1)),
        Row("table7/MSRA-1-net", ("MSRA (1 net)",), Paper(27.9, 9.1, 9.1)),
        Row("table7/Clarifai-multiple-nets", ("Clarifai (multiple nets)",), Paper(None, None, 11.7)),
        Row("table7/Clarifai-1-net", ("Clarifai (1 net)",), Paper(None, None, 12.5)),
        Row("table7/Zeiler-Fergus-6-nets", ("Zeiler & Fergus (6 nets)",), Paper(36.0, 14.7, 14.8)),
        Row("table7/Zeiler-Fergus-1-net", ("Zeiler & Fergus (1 net)",), Paper(37.5, 16.0, 16.1)),
        Row("table7/OverFeat-7-nets", ("OverFeat (7 nets)",), Paper(34.0, 13.2, 13.6)),
        Row("table7/OverFeat-1-net", ("OverFeat (1 net)",), Paper(35.7, 14.2, None)),
        Row("table7/Krizhevsky-5-nets", ("Krizhevsky et al. (5 nets)",), Paper(38.1, 16.4, 16.4)),
        Row("table7/Krizhevsky-1-net", ("Krizhevsky et al. (1 net)",), Paper(40.7, 18.2, None)),
    ),
    ("top1_val", "top5_val", "top5_test"),
)
TEXT = Table(
    "text",
    "Results that are in the text only",
    ("section", "result"),
    (
        Row("text/B-centre", ("4.1", "B, S = 256, one centre crop"), Paper(), (Test("B/256", "centre@256"),)),
        Row(
            "text/shallow-B-centre",
            ("4.1", "shallow-B, S = 256, one centre crop"),
            Paper(note="top-1 error 7 % higher than that of B"),
            (Test("shallow-B/256", "centre@256"),),
        ),
        Row(
            "text/E-multi-scale",
            ("4.2", "E, S in [256;512], Q = 256, 384, 512, dense"),
            Paper(24.8, 7.5, 7.3),
            (Test(f"E/{JITTERED}", f"dense@{ALL_SCALES}"),),
        ),
        Row(
            "text/best-single-net",
            ("4.4", "the best single net: E, multi-crop & dense"),
            Paper(24.4, 7.1, 7.1, "Sect. 4.5 and Table 7 give 7.0 on the test set"),
            (Test(f"E/{JITTERED}", f"both@{ALL_SCALES}"),),
        ),
    ),
    ("top1_val", "top5_val", "top5_test"),
)


def _at_256(*pairs: str) -> tuple[tuple[str, str], ...]:
    """Rows of Table 3 at S = 256 for pairs of nets, such as ``AB``."""
    return tuple((f"table3/{pair[0]}/256", f"table3/{pair[1]}/256") for pair in pairs)


CLAIMS = (
    Claim("depth", "the error decreases with depth", "4.1", _at_256("AB", "BD", "AD", "AE")),
    Claim("LRN", "local response normalisation does not help", "4.1", (("table3/A/256", "table3/A-LRN/256"),), True),
    Claim("C", "C is better than B and worse than D", "4.1", _at_256("BC", "CD")),
    Claim(
        "shallow",
        "a deep net with small filters beats a shallow one with larger filters",
        "4.1",
        (("text/shallow-B-centre", "text/B-centre"),),
    ),
    Claim(
        "jitter",
        "scale jittering at training time helps",
        "4.1",
        tuple((f"table3/{net}/{scale}", f"table3/{net}/{JITTERED}") for net in "CDE" for scale in ("256", "384")),
    ),
    Claim(
        "scales",
        "several test scales are better than one",
        "4.2",
        tuple((row.name.replace("table4", "table3"), row.name) for row in TABLE_4.rows),
    ),
    Claim(
        "complementary",
        "dense and multi-crop evaluation complement each other",
        "4.3",
        tuple((f"table5/{net}/{method}", f"table5/{net}/both") for net in ("D", "E") for method in ("dense", "crops")),
    ),
    Claim(
        "fusion",
        "fusing two nets is better than either",
        "4.4",
        tuple((f"table5/{net}/both", "table6/both") for net in ("D", "E")),
    ),
)
EXPERIMENT = Experiment("classification", (TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TEXT), CLAIMS)
