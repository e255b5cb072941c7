"""Best divisions into blocks: compared with least squares and with all divisions there are."""

from itertools import combinations

import numpy as np
import pytest

from comp.fwi.blocks import Blocks, ends_of
from comp.fwi.flat_fit import Slope, State, to_u

ROWS = 9


@pytest.fixture(params=range(5))
def problem(request):
    """(slope, Jacobian, residual, u) of a linear problem: three blocks, and noise."""
    random = np.random.default_rng(request.param)
    jacobian = random.normal(size=(40, ROWS)).cumsum(1) / 1000
    profile = random.uniform(1800, 3000, ROWS)
    truth = np.repeat(random.permutation([1700.0, 2100.0, 2900.0]), [4, 2, 3])
    u = to_u(profile)
    residual = jacobian @ (to_u(truth) - u) + 0.05 * random.normal(size=40)
    state = State(profile, float(np.linalg.norm(residual)))
    return Slope(state, jacobian.T @ jacobian, jacobian.T @ residual), jacobian, residual, u


def least_squares(jacobian, residual, u, ends):
    """(u of the blocks, squared misfit) of one division."""
    blocks = np.eye(len(ends) + 1)[np.searchsorted(ends, np.arange(ROWS), side="right")]
    observed = residual + jacobian @ u
    found, *_ = np.linalg.lstsq(jacobian @ blocks, observed)
    return blocks @ found, float(((jacobian @ blocks @ found - observed) ** 2).sum())


def test_misfit_and_velocities_are_those_of_least_squares(problem):
    slope, *linear = problem
    blocks = Blocks(slope)
    for ends in [(), (4,), (4, 6), (1, 2, 8)]:
        u, squared = least_squares(*linear, ends)
        assert blocks.misfit(np.array([ends], int))[0] == pytest.approx(squared, rel=1e-6)
        if (u < 0).all():
            np.testing.assert_allclose(to_u(blocks.profile(ends)), u, rtol=1e-6)
        assert set(ends_of(blocks.profile(ends))) <= set(ends)


def test_best_is_the_best_of_all(problem):
    slope, *linear = problem
    every = {
        ends: least_squares(*linear, ends)[1] * 1.2 ** (2 * len(ends))
        for count in range(4)
        for ends in combinations(range(1, ROWS), count)
    }
    found = Blocks(slope).best(4, 1.2, 5)
    assert found[0] == min(every, key=every.get) == (4, 6)
    assert len(set(found)) == 5
    scores = [every[ends] for ends in found]
    assert scores == sorted(scores)


def test_best_looks_around_a_given_division(problem):
    """No more than one block is asked for, so that nothing else leads there."""
    slope, *_ = problem
    blocks = Blocks(slope)
    assert blocks.best(1, 1.2, 5) == [()]
    assert blocks.best(1, 1.2, 5, near=(3, 7))[0] == (4, 6)


def test_best_has_no_more_blocks_than_rows(problem):
    slope, *_ = problem
    assert max(map(len, Blocks(slope).best(50, 1.0, 10**6))) == ROWS - 1
