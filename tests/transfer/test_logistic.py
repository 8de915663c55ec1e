"""Multinomial logistic regression against scikit-learn's, and where it must not fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from verydeep.transfer.logistic import fit_logistic


def problem(photos: int, dimensions: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.arange(photos) % classes
    rows = np.abs(rng.normal(size=(classes, dimensions)))[labels] + rng.normal(size=(photos, dimensions))
    return torch.from_numpy(rows * 30), torch.from_numpy(labels)


@pytest.mark.parametrize(("photos", "dimensions", "classes"), [(60, 5, 3), (40, 80, 4), (90, 20, 10)])
def test_equals_scikit_learn(photos: int, dimensions: int, classes: int) -> None:
    """Its C multiplies the sum of losses where our decay is beside their mean: C = 1 / (decay N)."""
    rows, labels = problem(photos, dimensions, classes, 1)
    weights, biases = fit_logistic(rows, labels, classes, decay=0.01)
    scale = rows.square().sum(1).mean().sqrt()
    theirs = LogisticRegression(C=1 / (0.01 * photos), tol=1e-10, max_iter=10_000).fit(rows / scale, labels.numpy())
    ours = F.softmax(F.linear(rows, weights, biases), 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(rows / scale), atol=2e-4)


def test_one_factor_on_all_descriptors_changes_nothing() -> None:
    rows, labels = problem(40, 10, 4, 2)
    one, other = (F.linear(found, *fit_logistic(found, labels, 4)) for found in (rows, rows * 1000))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_where_it_starts_changes_nothing() -> None:
    rows, labels = problem(60, 8, 3, 4)
    start = fit_logistic(rows, labels, 3, decay=0.1)
    one = F.linear(rows, *fit_logistic(rows, labels, 3, decay=0.001, start=start))
    torch.testing.assert_close(one, F.linear(rows, *fit_logistic(rows, labels, 3, decay=0.001)), rtol=1e-3, atol=1e-3)


def test_photos_it_can_separate_are_right_and_classes_without_photos_improbable() -> None:
    rows, labels = problem(40, 80, 4, 3)
    weights, biases = fit_logistic(rows.float(), labels, 6)
    posterior = F.softmax(F.linear(rows.float(), weights, biases), 1)
    assert torch.equal(posterior.argmax(1), labels)
    assert posterior[:, 4:].max() < 0.01


def test_descriptors_of_zeros_give_a_finite_answer() -> None:
    weights, biases = fit_logistic(torch.zeros(6, 3), torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    assert not weights.any()
    assert F.softmax(biases, 0).tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
