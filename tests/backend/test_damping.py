"""The Levenberg-Marquardt loop, on small problems with known answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from spslam.backend.damping import Damping, minimize
from spslam.typing import FloatArray

DAMPING = Damping(first=1e-3)


@dataclass
class Fit:
    """Rosenbrock's valley as least squares, minimum at (1, 1); it remembers what was evaluated."""

    tolerance: float = 1e-12
    smallest: float = 0.0
    unsolvable: int = 0
    dampings: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    linearized: list[FloatArray] = field(default_factory=list)

    def residuals(self, x: FloatArray) -> FloatArray:
        return np.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])

    def cost(self, x: FloatArray) -> float:
        self.costs.append(float(self.residuals(x) @ self.residuals(x)))
        return self.costs[-1]

    def linearize(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        self.linearized.append(x)
        jacobian = np.array([[-20.0 * x[0], 10.0], [-1.0, 0.0]])
        return jacobian.T @ jacobian, jacobian.T @ self.residuals(x)

    def solve(self, normal: tuple[FloatArray, FloatArray], damping: float) -> FloatArray | None:
        self.dampings.append(damping)
        if len(self.dampings) <= self.unsolvable:
            return None
        matrix, gradient = normal
        return np.asarray(np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), -gradient))

    def is_negligible(self, step: FloatArray) -> bool:
        return float(np.abs(step).max()) < self.smallest

    def move(self, x: FloatArray, step: FloatArray) -> FloatArray:
        return x + step

    def is_converged(self, step: FloatArray, before: float, after: float) -> bool:
        return before - after <= self.tolerance * before


class Cliff(Fit):
    """A problem without a cost beyond its start."""

    def cost(self, x: FloatArray) -> float:
        self.costs.append(1.0 if not self.costs else math.nan)
        return self.costs[-1]


START = np.array([-1.2, 1.0])


def test_the_minimum_is_found_and_the_cost_never_rises() -> None:
    fit = Fit()
    x, _ = minimize(fit, START, 100, DAMPING)
    np.testing.assert_allclose(x, [1.0, 1.0], atol=1e-6)
    accepted = [fit.residuals(state) @ fit.residuals(state) for state in fit.linearized]
    assert accepted == sorted(accepted, reverse=True)
    # The valley bends: steps without more damping rise out of it.
    assert max(fit.dampings) > DAMPING.first


def test_damping_falls_after_accepted_and_rises_after_rejected_steps() -> None:
    fit = Fit()
    minimize(fit, START, 100, Damping(first=1e-3, least=1e-5, raised_from=0.5))
    cost = fit.costs[0]
    for damping, after, following in zip(
        fit.dampings[:-1], fit.costs[1:], fit.dampings[1:], strict=False
    ):
        accepted = after <= cost
        cost = min(after, cost)
        expected = max(0.1 * damping, 1e-5) if accepted else 10.0 * max(damping, 0.5)
        assert following == pytest.approx(expected)
    assert 1e-5 in fit.dampings


def test_an_unsolvable_step_is_tried_with_more_damping_and_not_linearized_again() -> None:
    fit = Fit(unsolvable=3)
    minimize(fit, START, 4, DAMPING)
    np.testing.assert_allclose(fit.dampings, [1e-3, 1e-2, 1e-1, 1.0])
    assert len(fit.linearized) == 1


def test_too_much_damping_ends() -> None:
    fit = Fit(unsolvable=100)
    x, _ = minimize(fit, START, 100, Damping(first=1.0, most=1e3))
    assert fit.dampings == [1.0, 10.0, 100.0, 1000.0]
    np.testing.assert_array_equal(x, START)


def test_a_cost_that_is_nan_is_rejected() -> None:
    x, _ = minimize(Cliff(), START, 5, DAMPING)
    np.testing.assert_array_equal(x, START)


def test_a_negligible_step_ends_without_being_taken() -> None:
    fit = Fit(smallest=1e3)
    x, _ = minimize(fit, START, 5, DAMPING)
    np.testing.assert_array_equal(x, START)
    assert len(fit.costs) == 1


def test_the_normal_equations_are_those_of_the_last_step() -> None:
    fit = Fit()
    x, (matrix, _) = minimize(fit, START, 1, Damping(first=1.0))
    assert not np.array_equal(x, START)
    np.testing.assert_array_equal(matrix, Fit().linearize(START)[0])
