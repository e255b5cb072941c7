"""Changes under total variation: optimal, and the same as another method finds."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from comp.fwi.sparse import Pull, SparseChange, differences, variation

SHAPE = (4, 5)


@pytest.fixture
def problem():
    """(hessian, gradient, velocity, weights) of a misfit that does not tell all cells."""
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    hessian = jacobian.T @ jacobian / 2000 + 3e-4 * torch.eye(20, dtype=torch.float64)
    gradient = 0.2 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    velocity = 2000 + 300 * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    weights = [
        0.2 + 0.3 * torch.rand(d.shape, generator=generator, dtype=torch.float64)
        for d in differences(velocity)
    ]
    return hessian, gradient, velocity, weights


def value(change, problem):
    hessian, gradient, velocity, weights = problem
    flat = change.flatten()
    quadratic = gradient.flatten() @ flat + 0.5 * flat @ hessian @ flat
    return float(quadratic + variation(velocity + change, weights))


def test_as_low_as_a_general_optimiser_gets(problem):
    hessian, gradient, velocity, weights = problem
    found = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, weights)

    def smoothed(flat, rounding=1e-3):
        change = torch.tensor(flat, requires_grad=True)
        total = gradient.flatten() @ change + 0.5 * change @ hessian @ change
        for w, d in zip(weights, differences(velocity + change.view(SHAPE))):
            total = total + (w * (d**2 + rounding**2).sqrt()).sum()
        return total.item(), torch.autograd.grad(total, change)[0].numpy()

    how = {"maxiter": 20000, "maxfun": 50000, "ftol": 1e-15, "gtol": 1e-9}
    other = minimize(smoothed, np.zeros(20), jac=True, method="L-BFGS-B", options=how)
    start, lowest = (
        value(torch.zeros(SHAPE, dtype=torch.float64), problem),
        value(torch.tensor(other.x).view(SHAPE), problem),
    )
    assert lowest < start
    assert value(found, problem) < lowest + 1e-3 * (start - lowest)


def plainly(hessian, gradient, velocity, weights):
    """The sweeps as textbooks have them, on a matrix of differences."""
    size = velocity.numel()
    cells = torch.eye(size, dtype=torch.float64).view(size, *velocity.shape)
    matrix = torch.cat([d.flatten(1) for d in differences(cells)], 1).T
    weight = torch.cat([w.flatten() for w in weights])
    rho = weight.mean() / 50
    inverse = torch.linalg.inv(hessian + rho * matrix.T @ matrix)
    before = matrix @ velocity.flatten()
    split, dual = before, torch.zeros_like(before)
    for _ in range(200):
        change = inverse @ (rho * matrix.T @ (split - dual - before) - gradient.flatten())
        moved = 1.6 * (before + matrix @ change) - 0.6 * split + dual
        split = moved - moved.clamp(-weight / rho, weight / rho)
        dual = moved - split
    return change.view(velocity.shape)


def test_same_as_plain_sweeps_call_after_call(problem):
    hessian, gradient, velocity, weights = problem
    change = SparseChange(SHAPE, "cpu")
    for factor in (1, 3, 0.1):
        case = hessian, factor * gradient, velocity, [factor * w for w in weights]
        torch.testing.assert_close(change(*case), plainly(*case), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same_with_and_without_a_graph(problem):
    hessian, gradient, velocity, weights = (
        [w.cuda() for w in part] if isinstance(part, list) else part.cuda() for part in problem
    )
    recorded, plain = (SparseChange(SHAPE, "cuda", graph) for graph in (True, False))
    for factor in (1, 3, 0.1):
        case = hessian, factor * gradient, velocity, [factor * w for w in weights]
        assert torch.equal(recorded(*case), plain(*case))
        expected = plainly(
            *([w.cpu() for w in c] if isinstance(c, list) else c.cpu() for c in case)
        )
        torch.testing.assert_close(plain(*case).cpu(), expected, rtol=1e-9, atol=1e-9)


def test_neighbours_become_equal(problem):
    hessian, gradient, velocity, weights = problem
    found = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, weights)
    jumps = torch.cat([d.abs().flatten() for d in differences(velocity + found)])
    before = torch.cat([d.abs().flatten() for d in differences(velocity)])
    assert (before < 0.5).sum() == 0
    assert (jumps < 0.5).sum() >= 5 and (jumps > 5).sum() >= 5


def test_no_weight_is_newtons_step(problem):
    hessian, gradient, velocity, weights = problem
    tiny = [1e-9 * w for w in weights]
    found = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, tiny)
    expected = torch.linalg.solve(hessian, -gradient.flatten()).view(SHAPE)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_refuses_a_hessian_that_is_not_positive(problem):
    hessian, *others = problem
    with pytest.raises(torch.linalg.LinAlgError):
        SparseChange(SHAPE, "cpu")(hessian - torch.eye(20), *others)


GROUP = torch.tensor([[0, 0, 0, 0, -1], [0, 0, -1, 2, 2], [2, 2, 2, 2, 2], [2, -1, 0, 0, 0]])


def pulled(problem):
    hessian, gradient, velocity, weights = problem
    generator = torch.Generator().manual_seed(1)
    pull = Pull(GROUP, 0.5 + 0.1 * torch.rand(SHAPE, generator=generator, dtype=torch.float64))
    return hessian, gradient, velocity, [0.1 * w for w in weights], pull


def test_centres_are_medians_of_groups():
    velocity = torch.arange(20, dtype=torch.float64).view(SHAPE) ** 2
    found = Pull(GROUP, torch.ones(SHAPE)).centres(velocity)
    for number in (0, 2):
        middle = np.median(velocity[number == GROUP])
        assert (found[number == GROUP] == middle).all()
    assert torch.equal(found[GROUP < 0], velocity[GROUP < 0])


def test_cells_are_drawn_to_their_groups_as_a_general_optimiser_does(problem):
    hessian, gradient, velocity, weights, pull = pulled(problem)
    found = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, weights, pull)

    def value(change):
        flat = change.flatten()
        quadratic = gradient.flatten() @ flat + 0.5 * flat @ hessian @ flat
        return float(quadratic + variation(velocity + change, weights, pull))

    def smoothed(flat, rounding=1e-3):
        both = torch.tensor(flat, requires_grad=True)
        change, centres = both[:20], both[20:]
        total = gradient.flatten() @ change + 0.5 * change @ hessian @ change
        moved = velocity + change.view(SHAPE)
        for w, d in zip(weights, differences(moved)):
            total = total + (w * (d**2 + rounding**2).sqrt()).sum()
        for number, centre in zip((0, 2), centres):
            off = moved[number == GROUP] - 2000 - centre
            weight = pull.weights[number == GROUP]
            total = total + (weight * (off**2 + rounding**2).sqrt()).sum()
        return total.item(), torch.autograd.grad(total, both)[0].numpy()

    how = {"maxiter": 20000, "maxfun": 50000, "ftol": 1e-15, "gtol": 1e-9}
    other = minimize(smoothed, np.zeros(22), jac=True, method="L-BFGS-B", options=how)
    start, lowest = value(torch.zeros_like(velocity)), value(torch.tensor(other.x[:20]).view(SHAPE))
    assert lowest < start
    assert value(found) < lowest + 1e-3 * (start - lowest)
    alone = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, weights)
    assert value(alone) > lowest + 0.1 * (start - lowest)


def test_a_pull_leaves_nothing_behind(problem):
    *others, pull = pulled(problem)
    sweeps = SparseChange(SHAPE, "cpu")
    alone, both = sweeps(*others), sweeps(*others, pull)
    assert torch.equal(sweeps(*others), alone)
    elsewhere = Pull(torch.where(GROUP == 2, -1, GROUP + 1).flipud(), pull.weights)
    assert not torch.equal(sweeps(*others, elsewhere), both)
    assert torch.equal(sweeps(*others, pull), both)
    assert torch.equal(sweeps(*others), alone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_to_groups_alike(problem):
    hessian, gradient, velocity, weights, pull = pulled(problem)
    expected = SparseChange(SHAPE, "cpu")(hessian, gradient, velocity, weights, pull)
    on_gpu = [one.cuda() for one in (hessian, gradient, velocity)]
    on_gpu.append([w.cuda() for w in weights])
    drawn = Pull(*(one.cuda() for one in pull))
    for graph in (False, True):
        sweeps = SparseChange(SHAPE, "cuda", graph)
        alone = sweeps(*on_gpu)
        for _ in range(2):
            found = sweeps(*on_gpu, drawn)
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(sweeps(*on_gpu), alone, rtol=0, atol=0)
