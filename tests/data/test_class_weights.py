"""Weights of classes: their mean over the images is 1; tables are read by name, and refused with the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from verydeep.core.errors import VerydeepError
from verydeep.data.class_weights import class_weights

CLASSES = ("ant", "bee", "cat")
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60))
def test_balanced_is_scikit_learns(more: list[int]) -> None:
    labels = np.array([0, 1, 2, 3, 4, *more])
    weights = class_weights("balanced", labels, "abcde")
    assert weights is not None
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(5), y=labels), rtol=1e-12)
    assert weights[labels].mean() == pytest.approx(1)


def test_none_is_none() -> None:
    assert class_weights("none", LABELS, CLASSES) is None


@pytest.mark.parametrize(
    "text", ["class,weight\ncat,4\nant,1\nbee,2\n", "weight;label\n1;ant\n2;bee\n4;cat\n", "ant,1\nbee,2\ncat,4\n"]
)
def test_a_table_in_any_order_of_rows_and_columns(tmp_path: Path, text: str) -> None:
    """4 images of weight 1, 2 of 2 and 2 of 4 have a mean of 2: halved."""
    table = tmp_path / "weights.csv"
    table.write_text(text)
    weights = class_weights(str(table), LABELS, CLASSES)
    assert weights is not None
    assert weights.tolist() == [0.5, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,weight\nant,1\nbee,2\n", "weights.csv has no weight for 1 of 3 classes: 'cat'."),
        ("class,weight\nant,1\n", "weights.csv has no weight for 2 of 3 classes: 'bee', 'cat'."),
        ("class,weight\nant,1\nbeee,2\ncat,1\n", "line 3: unknown class 'beee'; did you mean 'bee'?"),
        ("class,weight\nant,1\nant,2\n", "line 3: class 'ant' is listed twice."),
        ("class,weight\nant,-1\nbee,2\n", "line 2: the weight of 'ant' must be above 0, not -1."),
        ("class,weight\nant,0\nbee,2\n", "line 2: the weight of 'ant' must be above 0, not 0."),
        ("class,weight\nant,many\nbee,2\n", "line 2"),
        ("class,size\nant,1\n", "weight"),
    ],
)
def test_a_table_with_a_fault(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "weights.csv"
    table.write_text(text)
    with pytest.raises(VerydeepError, match=message.replace("?", r"\?")):
        class_weights(str(table), LABELS, CLASSES)


def test_no_such_file() -> None:
    with pytest.raises(
        VerydeepError, match="must be none, balanced or a file of class,weight; balance is no such file"
    ):
        class_weights("balance", LABELS, CLASSES)
