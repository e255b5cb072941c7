"""Penalties against finite differences, metrics against matrices."""

import numpy as np
import pytest
import torch

from comp.fwi.priors import PRIORS, LayeredPrior, NoPrior, SmoothPrior, laplacian, solve

SHAPE = (9, 7)


@pytest.fixture
def maps():
    """Three maps with layers and some noise, (3, 9, 7) float64, m/s."""
    rng = np.random.default_rng(0)
    layers = rng.uniform(1500, 4500, (3, 3, 1)).repeat(3, axis=1)
    return torch.from_numpy(layers + rng.normal(0, 5, (3, *SHAPE)))


def random(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("prior", [LayeredPrior(), SmoothPrior(), NoPrior()])
def test_penalty_gradient_is_the_finite_difference(prior, maps):
    change, step = random(3, *SHAPE, seed=2), 1e-4
    _, gradient = prior.penalty(maps)
    above, _ = prior.penalty(maps + step * change)
    below, _ = prior.penalty(maps - step * change)
    expected = (above - below) / (2 * step)
    torch.testing.assert_close((gradient * change).sum((1, 2)), expected, rtol=1e-5, atol=1e-9)


def test_total_variation_of_a_step_is_its_height():
    """10 rows and 4 columns, one interface of 500 m/s: 4 · 500 m/s, but for the rounding."""
    step = torch.full((1, 10, 4), 2000.0, dtype=torch.float64)
    step[:, 6:] = 2500
    value, _ = LayeredPrior(rounding=0.1).penalty(step)
    assert value.item() == pytest.approx(4 * 500, rel=1e-3)


@pytest.mark.parametrize("name", PRIORS)
def test_a_constant_map_costs_nothing(name):
    value, gradient = PRIORS[name].penalty(torch.full((2, *SHAPE), 2000.0, dtype=torch.float64))
    assert (value == 0).all() and (gradient == 0).all()


@pytest.mark.parametrize("name", PRIORS)
def test_metrics_are_symmetric_and_positive(name, maps):
    metric = PRIORS[name].metric
    unit = torch.eye(63, dtype=torch.float64).view(63, *SHAPE)
    matrix = metric(unit, maps[:1].expand(63, -1, -1)).view(63, 63)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-6, atol=1e-8)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_solve_inverts(maps):
    links = [torch.rand_like(maps.diff(dim=axis)) * 100 for axis in (1, 2)]
    field = random(3, *SHAPE)
    torch.testing.assert_close(solve(field + laplacian(field, links), links), field)


def test_solve_is_the_same_alone_and_in_a_batch(maps):
    links = [torch.rand_like(maps.diff(dim=axis)) * 100 for axis in (1, 2)]
    field = random(3, *SHAPE)
    alone = solve(field[1:2], [link[1:2] for link in links])
    assert torch.equal(alone[0], solve(field, links)[1])


def test_a_layered_change_keeps_to_its_layer():
    """A gradient at one cell moves all of its layer alike and hardly the next one."""
    layers = torch.full((1, 12, 12), 2000.0, dtype=torch.float64)
    layers[:, 6:] = 3000
    gradient = torch.zeros_like(layers)
    gradient[0, 8, 3] = 1
    change = LayeredPrior(depth_power=0.0).metric(gradient, layers)[0]
    assert change[6:].min() > 0.5 * change[6:].max()
    assert change[:6].max() < 0.1 * change[6:].min()


def test_deep_cells_move_more():
    even = torch.full((1, *SHAPE), 2000.0, dtype=torch.float64)
    change = NoPrior(depth_power=2.0, shallowest=5.0).metric(torch.ones_like(even), even)[0]
    assert (change[8] / change[0]).unique().item() == pytest.approx((13 / 5) ** 2)
