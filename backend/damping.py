"""The Levenberg-Marquardt loop of all solvers: trial steps, damping and stop rule.

Source: Marquardt, An algorithm for least-squares estimation of nonlinear parameters, 1963.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

State = TypeVar("State")
Normal = TypeVar("Normal")
Step = TypeVar("Step")

# Factors of the damping after a rejected and after an accepted step.
_RAISE, _LOWER = 10.0, 0.1


@dataclass(frozen=True)
class Damping:
    """The damping, relative to the diagonal of the normal matrix.

    Attributes:
        first: damping of the first step.
        least: smallest damping after accepted steps.
        most: damping above which the minimization ends.
        raised_from: smallest damping from which a rejected step raises it. It shortens the way
            from a `first` or `least` so small that the steps are those of Gauss-Newton.
    """

    first: float
    least: float = 0.0
    most: float = 1e8
    raised_from: float = 0.0


class LeastSquares(Protocol[State, Normal, Step]):
    """What `minimize` asks of a problem; a state is one value of all its variables."""

    def cost(self, state: State) -> float:
        """Return the cost of a state."""

    def linearize(self, state: State) -> Normal:
        """Return the normal equations at a state, without damping."""

    def solve(self, normal: Normal, damping: float) -> Step | None:
        """Return the step that solves the damped normal equations, or None if none is finite."""

    def is_negligible(self, step: Step) -> bool:
        """Return whether a step is too small to try, so that the minimization ends."""

    def move(self, state: State, step: Step) -> State:
        """Return the state after a step; the given state stays as it is."""

    def is_converged(self, step: Step, before: float, after: float) -> bool:
        """Return whether an accepted step is the last, given the costs before and after it."""


def minimize(
    problem: LeastSquares[State, Normal, Step], state: State, iterations: int, damping: Damping
) -> tuple[State, Normal]:
    """Minimize the cost of a problem, starting with `state`; the cost never rises.

    Args:
        problem: the problem.
        state: first state.
        iterations: maximum number of trial steps, accepted and rejected together.
        damping: first damping and its limits.

    Returns:
        The last accepted state, and the normal equations of the last trial step.
    """
    amount = damping.first
    cost = problem.cost(state)
    normal = problem.linearize(state)
    for remaining in reversed(range(iterations)):
        step = problem.solve(normal, amount)
        if step is not None:
            if problem.is_negligible(step):
                break
            moved = problem.move(state, step)
            moved_cost = problem.cost(moved)
        # The comparison also rejects a cost that is NaN.
        if step is None or not moved_cost <= cost:
            amount = _RAISE * max(amount, damping.raised_from)
            if amount > damping.most:
                break
            continue
        converged = problem.is_converged(step, cost, moved_cost)
        state, cost = moved, moved_cost
        if converged or not remaining:
            break
        # Those of a whole map are large: do not hold two of them at a time.
        del normal
        normal = problem.linearize(state)
        amount = max(_LOWER * amount, damping.least)
    return state, normal
