"""App. B's linear SVMs: the exact minimum, in either form."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from verydeep.core.errors import VerydeepError
from verydeep.transfer.solver import Form, GramForm, Loss, PrimalForm, Problem, _check_gap, _Steps, solve_path
from verydeep.transfer.svm import LinearSvm, SvmTrainer, gram

C_VALUES = (0.01, 1.0, 100.0)
# photos, dimensions, share of the class, photos that are copies of others; and why
PROBLEMS = {
    "fewer photos than dimensions": (40, 120, 0.5, 0),
    "more photos than dimensions": (300, 20, 0.5, 0),
    "unbalanced": (200, 50, 0.05, 0),
    "duplicate points": (120, 60, 0.3, 60),
    "not separable, many duplicates": (400, 5, 0.5, 200),
}


def problem(name: str) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Descriptors (n,D) and marks (n,1); copies keep a mark of their own, so that some contradict each other."""
    photos, dimensions, share, copies = PROBLEMS[name]
    rng = np.random.default_rng(sorted(PROBLEMS).index(name))
    rows = rng.normal(size=(photos, dimensions))
    marks = np.where(rng.random(photos) < share, 1, -1)
    rows[marks > 0] += 0.3
    if copies:
        rows[:copies] = rows[photos - copies :]
    return rows.astype(np.float32), marks.astype(np.int8)[:, None]


def least(rows: NDArray[Any], marks: NDArray[Any], C: float, loss: Loss) -> tuple[float, bool]:
    """The objective by scikit-learn's LinearSVC (the same loss, C and penalised bias), and whether it settled."""
    from sklearn.svm import LinearSVC

    kind = {"squared-hinge": "squared_hinge", "hinge": "hinge"}[loss]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = LinearSVC(C=C, loss=kind, dual=loss == "hinge", tol=1e-9, max_iter=1_000_000, random_state=0).fit(
            rows, marks[:, 0]
        )
    w = np.append(found.coef_[0], found.intercept_)
    short = np.maximum(0, 1 - marks[:, 0] * (rows.astype(np.float64) @ w[:-1] + w[-1]))
    return float(w @ w / 2 + C * (short**2 if loss == "squared-hinge" else short).sum()), not told


def fit_svms(
    rows: NDArray[np.float32], marks: NDArray[np.int8], values: tuple[float, ...], loss: Loss = "squared-hinge"
) -> Iterator[LinearSvm]:
    """The SVMs of each C on all rows."""
    return SvmTrainer(rows, marks, loss).fit(values)


def form(kind: str, rows: NDArray[Any]) -> Form:
    whole = torch.from_numpy(np.c_[rows.astype(np.float64), np.ones(len(rows))])
    return PrimalForm(whole) if kind == "primal" else GramForm(whole @ whole.T)


def quadratic(rows: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, curvature: float) -> torch.Tensor:
    """|w|² / 2 + sum of curvature / 2 (target - f)²."""
    return w.square().sum() / 2 + curvature / 2 * (targets - rows @ w).square().sum()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("dimensions", [4, 40])
def test_both_forms_solve_the_parabolas_of_active_images(share: float, dimensions: int) -> None:
    """At their solution the gradient of |w|²/2 + sum over active of curvature/2 (target - f)² - sum of slope f is 0."""
    rng = torch.Generator().manual_seed(dimensions)
    rows = torch.randn(25, dimensions, dtype=torch.float64, generator=rng)
    active = torch.arange(25) < 25 * share
    targets = torch.randn(25, dtype=torch.float64, generator=rng)
    slopes = torch.randn(25, dtype=torch.float64, generator=rng) * (~active & (torch.arange(25) % 2 > 0))
    for curvature in (0.3, 20.0):
        forms = PrimalForm(rows), GramForm(rows @ rows.T)
        first, second = (form.solve(active, targets, slopes, curvature) for form in forms)
        w = first.clone().requires_grad_()
        loss = quadratic(rows[active], w, targets[active], curvature) - (slopes * (rows @ w)).sum()
        (gradient,) = torch.autograd.grad(loss, w)
        assert float(gradient.abs().max()) < 1e-9
        torch.testing.assert_close(rows.T @ second, first, rtol=1e-9, atol=1e-9)


def test_both_forms_solve_ridge_regression() -> None:
    """At several curvatures in turn: the inverse of one does not serve another."""
    rng = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(12, size, dtype=torch.float64, generator=rng) for size in (5, 3))
    gram_form, primal = GramForm(rows @ rows.T), PrimalForm(rows)
    for curvature in (2.0, 0.1, 2.0):
        state, scores = primal.ridge(targets, curvature)
        w = state.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(quadratic(rows, w, targets, curvature), w)
        assert float(gradient.abs().max()) < 1e-9
        torch.testing.assert_close(scores, rows @ state)
        beta, same = gram_form.ridge(targets, curvature)
        torch.testing.assert_close(same, scores)
        torch.testing.assert_close(rows.T @ beta, state)


def small_problem(loss: Loss) -> tuple[Problem, torch.Tensor]:
    """Three classes, some images of none, images of several weights; and any coefficients."""
    rng = torch.Generator().manual_seed(1)
    rows, state = (torch.randn(*size, dtype=torch.float64, generator=rng) for size in ((30, 6), (6, 3)))
    marks = torch.randint(-1, 2, (30, 3), generator=rng).double()
    margins = 0.5 + torch.rand(30, 1, dtype=torch.float64, generator=rng)
    return Problem(PrimalForm(rows * margins), marks, loss, margins), state


@pytest.mark.parametrize(("loss", "power"), [("squared-hinge", 2), ("hinge", 1)])
def test_the_objective_as_it_is_written(loss: Loss, power: int) -> None:
    problem, state = small_problem(loss)
    scores = problem.form.scores(state)
    for k in range(3):
        total = float(state[:, k].square().sum()) / 2
        for mark, score, margin in zip(problem.marks[:, k], scores[:, k], problem.margins[:, 0], strict=True):
            total += 0.7 * max(0.0, float(margin - mark * score)) ** power if mark else 0.0
        assert float(problem.objective(0.7, state, scores)[k]) == pytest.approx(total)


@pytest.mark.parametrize("corner", [0.0, 0.01, 0.5])
def test_steps_have_the_losses_derivative(corner: float) -> None:
    """By autograd; of the squared hinge (corner 0) the losses are those of the objective."""
    problem, state = small_problem("hinge" if corner else "squared-hinge")
    steps = _Steps(problem, 0.7, corner, state)
    scores = steps.scores.clone().requires_grad_()
    losses = steps.losses(scores, torch.arange(3))
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    torch.testing.assert_close(steps.beta(steps.scores), -slope)
    exact = problem.objective(0.7, state, steps.scores) - state.square().sum(0) / 2
    if corner:  # the parabola's highest point above the hinge, an image, is C corner / 4 at its margin
        assert ((losses - exact).abs() <= 0.7 * corner / 4 * 30).all()
        assert (losses >= exact - 1e-12).all()
    else:
        torch.testing.assert_close(losses, exact)


@pytest.mark.parametrize("loss", ["squared-hinge", "hinge"])
def test_the_dual_is_a_lower_bound_that_the_solution_meets(loss: Loss) -> None:
    """At any dual point, of which the hinge's has alpha of 0 to C; images of weight v have v times the loss."""
    problem, state = small_problem(loss)
    solution = next(solve_path(problem.form, problem.marks, (0.7,), loss, problem.margins))
    assert (solution.gap.abs() < 1e-4).all()
    assert (problem.objective(0.7, state, problem.form.scores(state)) > solution.objective).all()
    rng = torch.Generator().manual_seed(2)
    for largest in (0.01, 0.1, 0.7):
        alpha = largest * torch.rand(30, 3, dtype=torch.float64, generator=rng)
        assert (problem.dual(0.7, alpha * problem.marks) <= solution.objective).all()


@pytest.mark.parametrize("loss", ["squared-hinge", "hinge"])
@pytest.mark.parametrize("dimensions", [3, 60])  # the primal form, and the Gram form
def test_an_image_of_weight_three_is_three_images(loss: Loss, dimensions: int) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(50, dimensions)).astype(np.float32)
    marks = np.where(rng.random((50, 1)) < 0.4, 1, -1).astype(np.int8)
    weights = rng.integers(1, 4, 50)
    chosen = np.arange(0, 50, 1 if dimensions == 3 else 2)
    copies = np.repeat(chosen, weights[chosen])
    weighted = SvmTrainer(rows, marks, loss, weights=weights.astype(np.float64)).fit((0.3,), chosen)
    for one, other in zip(weighted, fit_svms(rows[copies], marks[copies], (0.3,), loss), strict=True):
        scale = np.abs(other.weights).max()
        np.testing.assert_allclose(one.weights, other.weights, atol=2e-3 * scale)
        np.testing.assert_allclose(one.bias, other.bias, atol=2e-3 * scale)


def test_an_ignored_image_has_no_effect() -> None:
    rows, marks = problem("not separable, many duplicates")
    left = np.arange(len(rows)) % 3 > 0
    ignored = np.where(left[:, None], marks, 0).astype(np.int8)
    for kind in ("gram", "primal"):
        with_zeros = solve_path(form(kind, rows), torch.from_numpy(ignored), C_VALUES)
        without = solve_path(form(kind, rows[left]), torch.from_numpy(marks[left]), C_VALUES)
        for one, other in zip(with_zeros, without, strict=True):
            assert float(one.objective) == pytest.approx(float(other.objective), rel=1e-9)


@pytest.mark.parametrize("photos", [60, 400])  # the Gram form, and the primal one
def test_weights_and_bias_give_the_scores_that_were_found(photos: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(photos, 20)).astype(np.float32)
    marks = np.where(rng.random((photos, 3)) < 0.4, 1, -1).astype(np.int8)
    for found, kept in zip(
        fit_svms(rows, marks, C_VALUES), solve_path(form("gram", rows), torch.from_numpy(marks), C_VALUES), strict=True
    ):
        np.testing.assert_allclose(found.scores(rows), kept.scores.numpy(), atol=1e-4)


def test_two_points_by_hand() -> None:
    # x = 1 with y = 1 and x = -1 with y = -1: b = 0, and w least of w²/2 + 2C(1 - w)², which is 4C / (1 + 4C).
    rows = np.array([[1.0], [-1.0]], dtype=np.float32)
    marks = np.array([[1], [-1]], dtype=np.int8)
    (found,) = fit_svms(rows, marks, (0.5,))
    assert found.weights[0, 0] == pytest.approx(2 / 3)
    assert found.bias[0] == pytest.approx(0, abs=1e-7)
    # Of the hinge, w²/2 + 2C(1 - w): w = 2C below 1.
    (hinge,) = fit_svms(rows, marks, (0.25,), "hinge")
    assert hinge.weights[0, 0] == pytest.approx(0.5, rel=1e-4)


def test_a_path_of_c_equals_single_values() -> None:
    rows, marks = problem("unbalanced")
    alone = [next(solve_path(form("gram", rows), torch.from_numpy(marks), (C,))) for C in C_VALUES]
    path = solve_path(form("gram", rows), torch.from_numpy(marks), tuple(reversed(C_VALUES)))
    for one, other in zip(path, alone, strict=True):
        assert one.C == other.C
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-7, atol=1e-7)


def test_a_class_that_cannot_be_separated_is_refused() -> None:
    rows = np.eye(4, dtype=np.float32)
    for marks in (np.ones((4, 1)), -np.ones((4, 1)), np.array([[1], [0], [1], [0]])):
        with pytest.raises(VerydeepError, match="class 0 has no training images, or all of them: it cannot be sep"):
            list(fit_svms(rows, marks.astype(np.int8), (1.0,)))
    three = np.array([[1, 1, -1], [-1, 1, 1], [1, 1, 1], [0, 1, 1]], dtype=np.int8)
    with pytest.raises(VerydeepError, match="class 1 has no training images"):
        list(fit_svms(rows, three, (1.0,)))


def test_a_value_that_float64_cannot_solve_is_refused() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(100, 100)), 2, axis=0).astype(np.float32)
    marks = np.where(rng.random((200, 1)) < 0.5, 1, -1).astype(np.int8)
    with pytest.raises(VerydeepError, match=r"cannot be solved in float64 .* use a smaller C"):
        list(fit_svms(rows, marks, (1e12,)))


@pytest.mark.parametrize(("loss", "largest"), [("squared-hinge", 1e-4), ("hinge", 1e-2)])
def test_one_class_far_from_its_minimum_refuses_all(loss: Loss, largest: float) -> None:
    _check_gap(1.0, loss, torch.tensor([0.0, largest], dtype=torch.float64))
    for gap in (1.1 * largest, 0.5, float("nan")):
        with pytest.raises(VerydeepError, match="the SVM of C = 1 cannot be solved"):
            _check_gap(1.0, loss, torch.tensor([0.0, gap], dtype=torch.float64))


@pytest.mark.parametrize("dimensions", [3, 300])  # the primal form, and the Gram form
def test_training_on_a_part_ignores_the_other_images(dimensions: int) -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(90, dimensions)).astype(np.float32)
    marks = np.where(rng.random((90, 3)) < 0.4, 1, -1).astype(np.int8)
    chosen = np.arange(0, 90, 2)
    learner = SvmTrainer(rows, marks)
    for one, other in zip(learner.fit(C_VALUES, chosen), fit_svms(rows[chosen], marks[chosen], C_VALUES), strict=True):
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5 * np.abs(other.weights).max())
    next(learner.fit((1.0,)))  # the products of all are as before
    for one, other in zip(learner.fit(C_VALUES), fit_svms(rows, marks, C_VALUES), strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)


def test_products_are_those_of_float64_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.from_numpy(np.random.default_rng(3).normal(size=(23, 11)).astype(np.float32))
    expected = rows.double() @ rows.double().T
    for wide, tall in ((2048, 1024), (4, 5), (11, 23), (1, 1)):
        monkeypatch.setattr("verydeep.transfer.svm.WIDE", wide)
        monkeypatch.setattr("verydeep.transfer.svm.TALL", tall)
        found = gram(rows)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(found, found.T)


def test_long_descriptors_converge() -> None:
    """Of length 100 and C = 100 the margin is a hard one, and Newton takes many steps."""
    rng = np.random.default_rng(4)
    rows = (100 * rng.normal(size=(120, 200))).astype(np.float32)
    marks = np.where(np.arange(120)[:, None] % 6 == np.arange(6), 1, -1).astype(np.int8)
    for found in fit_svms(rows, marks, C_VALUES):
        assert found.gap < 1e-8
        assert (found.scores(rows) * marks > 0.9).all()


@pytest.mark.parametrize("loss", ["squared-hinge", "hinge"])
def test_all_classes_at_once_are_each_class_alone(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 30)).astype(np.float32)
    marks = np.where(rng.random((90, 4)) < 0.3, 1, -1).astype(np.int8)
    together = list(fit_svms(rows, marks, C_VALUES, loss))
    for k in range(4):
        for whole, alone in zip(together, fit_svms(rows, marks[:, [k]], C_VALUES, loss), strict=True):
            np.testing.assert_allclose(
                whole.weights[:, k], alone.weights[:, 0], atol=2e-3 * np.abs(alone.weights).max()
            )


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("loss", ["squared-hinge", "hinge"])
def test_the_objective_is_that_of_scikit_learn(name: str, loss: Loss) -> None:
    rows, marks = problem(name)
    for kind in ("gram", "primal"):
        for found in solve_path(form(kind, rows), torch.from_numpy(marks), C_VALUES, loss):
            expected, settled = least(rows, marks, found.C, loss)
            assert float(found.objective) <= expected * (1 + 1e-4), (kind, found.C)
            assert settled or found.C == 100  # with contradicting copies a million of its steps may be too few
            if settled:
                assert float(found.objective) == pytest.approx(expected, rel=1e-4), (kind, found.C)
            assert -1e-6 < float(found.gap) < 1e-4, (kind, found.C)


def test_the_first_class_that_cannot_be_separated_is_named() -> None:
    """Class 1 has no image, class 2 every one."""
    marks = np.array([[1, -1, 1], [-1, -1, 1]], dtype=np.int8)
    with pytest.raises(VerydeepError, match="class 1 has no training images, or all of them"):
        list(SvmTrainer(np.eye(2, 3, dtype=np.float32), marks).fit((1.0,)))
