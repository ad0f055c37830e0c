"""The policy `linucb`: a discounted linear bandit that plays the arm whose reward may be highest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

from pydantic import Field

from tightwire.policies.arms import DIMENSIONS, PRIOR, Learner, Lesson, Option, Vector, lesson, reasoned
from tightwire.policies.base import Closed, Cohort, Decision, Numbers, Observation, Plan

Matrix = tuple[Vector, ...]
"""A lower triangle: row i has i + 1 entries."""

_PLACES = [(row, column) for row in range(DIMENSIONS) for column in range(row + 1)]


def dot(left: Vector, right: Vector) -> float:
    """The inner product, summed from first to last."""
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total += a * b
    return total


def cholesky(matrix: Matrix) -> Matrix:
    """The lower triangular L with L L^T = `matrix`, of which only the lower triangle is read.

    In plain floats, because LAPACK's last bits differ between machines.

    Raises:
        ValueError: The matrix is not positive definite.
    """
    rows: list[list[float]] = []
    for i, given in enumerate(matrix):
        row: list[float] = []
        for j in range(i):
            row.append((given[j] - dot(tuple(row), tuple(rows[j][:j]))) / rows[j][j])
        pivot = given[i] - dot(tuple(row), tuple(row))
        if not pivot > 0:
            raise ValueError(f"the matrix is not positive definite: pivot {i} is {pivot}")
        rows.append([*row, math.sqrt(pivot)])
    return tuple(tuple(row) for row in rows)


def forward(lower: Matrix, right: Vector) -> Vector:
    """The x with L x = `right`."""
    solved: list[float] = []
    for row, value in zip(lower, right, strict=True):
        solved.append((value - dot(row[:-1], tuple(solved))) / row[-1])
    return tuple(solved)


def backward(lower: Matrix, right: Vector) -> Vector:
    """The x with L^T x = `right`."""
    size = len(lower)
    solved = [0.0] * size
    for i in reversed(range(size)):
        rest = dot(tuple(lower[j][i] for j in range(i + 1, size)), tuple(solved[i + 1 :]))
        solved[i] = (right[i] - rest) / lower[i][i]
    return tuple(solved)


@dataclass(frozen=True, slots=True)
class Beliefs:
    """The statistics of discounted linear regression with a prior.

    V = sum g^age x x^T + ridge I, U the same with g^2, b = sum g^age x reward + ridge PRIOR; ages in rounds.
    """

    v: Matrix
    u: Matrix
    b: Vector

    @classmethod
    def of(cls, shared: Numbers, ridge: float) -> "Beliefs":
        """As `numbers` wrote them; the prior where there is nothing yet."""

        def read(name: str) -> Matrix:
            return tuple(
                tuple(shared.get(f"{name}_{i}_{j}", ridge if i == j else 0.0) for j in range(i + 1))
                for i in range(DIMENSIONS)
            )

        return cls(read("v"), read("u"), tuple(shared.get(f"b_{i}", ridge * p) for i, p in enumerate(PRIOR)))

    def numbers(self) -> dict[str, float]:
        """As plain numbers by name, such as ``v_3_1``."""
        matrices = (("v", self.v), ("u", self.u))
        flat = {f"{name}_{i}_{j}": matrix[i][j] for name, matrix in matrices for i, j in _PLACES}
        return flat | {f"b_{i}": value for i, value in enumerate(self.b)}

    def after(self, lessons: Iterable[Lesson], discount: float, ridge: float) -> "Beliefs":
        """A round later.

        Args:
            lessons: Of the round.
            discount: g, the weight of a round against that of the next.
            ridge: Weight of the prior, which does not fade.
        """
        v, u, b = [list(row) for row in self.v], [list(row) for row in self.u], list(self.b)
        square = discount * discount
        for i, j in _PLACES:
            v[i][j] = discount * v[i][j] + ((1 - discount) * ridge if i == j else 0.0)
            u[i][j] = square * u[i][j] + ((1 - square) * ridge if i == j else 0.0)
        for i, p in enumerate(PRIOR):
            b[i] = discount * b[i] + (1 - discount) * ridge * p
        for learnt in lessons:
            x = learnt.context
            for i, j in _PLACES:
                v[i][j] += x[i] * x[j]
                u[i][j] += x[i] * x[j]
            for i, value in enumerate(x):
                b[i] += value * learnt.reward
        return Beliefs(tuple(map(tuple, v)), tuple(map(tuple, u)), tuple(b))


def noted(shared: Numbers, deadline: float | None) -> dict[str, float]:
    """The memory, with the round's deadline, which `review` is not told."""
    kept = {name: value for name, value in shared.items() if name != "deadline"}
    return kept if deadline is None else {**kept, "deadline": deadline}


class Linear(Learner):
    """A learner whose model of rewards is linear; abstract."""

    discount: float = Field(default=0.97, gt=0, le=1)
    """Weight of a round against that of the next."""
    ridge: float = Field(default=1.0, ge=1e-3, le=1e6)
    """Weight of the prior, in uploads."""

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Learn from the round."""
        learnt = [lesson(report, shared.get("deadline")) for report in closed.reports]
        lessons = [each for each in learnt if each is not None]
        if not lessons:
            return noted(shared, None)
        return Beliefs.of(shared, self.ridge).after(lessons, self.discount, self.ridge).numbers()

    def model(self, told: Numbers) -> Vector:
        """The model's weights as the server told them; the prior's where it told none."""
        return tuple(told.get(f"t_{i}", prior) for i, prior in enumerate(PRIOR))


@final
class LinUCB(Linear):
    """Discounted LinUCB over the arms of `tightwire.policies.arms`; old rounds fade, so that it follows what changes.

    Russac, Vernade, Cappe, "Weighted Linear Bandits for Non-Stationary Environments" (NeurIPS 2019, arXiv 1909.09146),
    algorithm 1, D-LinUCB: plays the arm of largest theta^T x + width sqrt(x^T V^-1 U V^-1 x). After Li et al., "A
    Contextual-Bandit Approach to Personalized News Article Recommendation" (WWW 2010, arXiv 1003.0146), the width is a
    constant, and not the paper's growing bound.

    Deviations: one model is learnt on the server from all clients, over contexts of arms, because a client that takes
    part in one round of ten would hardly learn from its own; statistics fade by rounds, and all of a round's clients
    play by the same; and the prior is that everything comes as predicted, in place of zero.

    Server's memory: the lower triangles `v_i_j` and `u_i_j`, `b_i`, and between plan and review the `deadline`. Told:
    theta as `t_i`, and the lower triangle of V^-1 U V^-1 as `w_i_j`.
    """

    name: Literal["linucb"] = "linucb"
    width: float = Field(default=0.1, ge=0)
    """Standard deviations of doubt that speak for an arm."""

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Tell everybody the model and its doubts."""
        beliefs = Beliefs.of(shared, self.ridge)
        lower = cholesky(beliefs.v)
        theta = backward(lower, forward(lower, beliefs.b))
        columns = []  # of V^-1 R, with R R^T = U
        root = cholesky(beliefs.u)
        for j in range(DIMENSIONS):
            column = tuple(root[i][j] if i >= j else 0.0 for i in range(DIMENSIONS))
            columns.append(backward(lower, forward(lower, column)))
        told = {f"t_{i}": value for i, value in enumerate(theta)}
        for i, j in _PLACES:
            told[f"w_{i}_{j}"] = dot(tuple(c[i] for c in columns), tuple(c[j] for c in columns))
        return {member.client: told for member in cohort.members}, noted(shared, cohort.deadline)

    def choose(self, options: list[Option], observation: Observation) -> Decision:
        """The option of the highest upper bound; of equals, the first."""
        told = observation.told
        theta = self.model(told)
        weights = [
            (i, j, (1 if i == j else 2) * told.get(f"w_{i}_{j}", 1 / self.ridge if i == j else 0.0)) for i, j in _PLACES
        ]
        means = [dot(theta, option.context) for option in options]
        bounds = [
            mean + self.width * math.sqrt(max(_doubt(weights, option.context), 0.0))
            for mean, option in zip(means, options, strict=True)
        ]
        best = bounds.index(max(bounds))
        reason = "best mean reward" if means[best] == max(means) else "reward may be highest"
        return reasoned(options[best], reason)


def _doubt(weights: list[tuple[int, int, float]], x: Vector) -> float:
    total = 0.0
    for i, j, weight in weights:
        total += weight * x[i] * x[j]
    return total
