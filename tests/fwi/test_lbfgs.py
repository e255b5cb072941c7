"""The batched optimiser on functions whose minima are known."""

import pytest
import torch

from comp.fwi.lbfgs import BatchedLBFGS, Search

SIZE = 12


def rosenbrock(x):
    """Value and gradient of (k, SIZE) points; the minimum is 0 at (1, …, 1)."""
    x = x.clone().requires_grad_()
    value = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def quadratic(diagonal, centre):
    def function(x):
        return 0.5 * (diagonal * (x - centre) ** 2).sum(1), diagonal * (x - centre)

    return function


def starts(count, seed=0):
    return torch.randn(count, SIZE, dtype=torch.float64, generator=torch.manual_seed(seed))


def run(optimizer, function, slots, evaluations):
    """The points visited, (evaluations, k, SIZE)."""
    visited = []
    for _ in range(evaluations):
        visited.append(optimizer.points(slots))
        optimizer.tell(slots, *function(visited[-1]))
    return torch.stack(visited)


def solver(slots=1, lower=-10.0, upper=10.0, precondition=None, **search):
    search = Search(**{"first_step": 0.5, **search})
    return BatchedLBFGS(slots, SIZE, lower, upper, search, precondition)


def test_finds_the_minimum_of_every_problem():
    optimizer, slots = solver(4), torch.arange(4)
    optimizer.start(slots, starts(4))
    run(optimizer, rosenbrock, slots, 150)
    assert (optimizer.value < 1e-12).all()
    assert (optimizer.x - 1).abs().max() < 1e-5
    assert optimizer.failed.all()  # nothing is lower than the minimum, and it says so


def test_an_iteration_costs_little_more_than_an_evaluation():
    optimizer, slots = solver(4), torch.arange(4)
    optimizer.start(slots, starts(4))
    run(optimizer, rosenbrock, slots, 60)
    assert optimizer.iterations.min() > 40


def test_no_problem_sees_another():
    """The points of one problem are the same alone, among others, and in another slot."""
    x = starts(5)
    alone = solver()
    alone.start(torch.tensor([0]), x[3:4])
    expected = run(alone, rosenbrock, torch.tensor([0]), 60)[:, 0]

    among = solver(8)
    slots = torch.tensor([7, 1, 4, 6, 0])
    among.start(slots, x)
    assert torch.equal(run(among, rosenbrock, slots, 60)[:, 3], expected)

    later = solver(3)
    later.start(torch.tensor([0, 1, 2]), x[:3])
    run(later, rosenbrock, torch.tensor([0, 1, 2]), 25)
    later.start(torch.tensor([1]), x[3:4])  # takes the place of one that is done
    assert torch.equal(run(later, rosenbrock, torch.tensor([0, 1, 2]), 60)[:, 1], expected)


def test_bounds_are_kept_and_reached():
    centre = torch.linspace(-3, 3, SIZE, dtype=torch.float64)
    diagonal = torch.logspace(0, 3, SIZE, dtype=torch.float64)
    optimizer, slots = solver(2, -1.0, 2.0), torch.arange(2)
    optimizer.start(slots, starts(2))
    visited = run(optimizer, quadratic(diagonal, centre), slots, 60)
    assert visited.min() >= -1 and visited.max() <= 2
    assert torch.allclose(optimizer.x, centre.clamp(-1, 2).expand(2, -1), atol=1e-6)


def test_a_start_outside_is_brought_within_the_bounds():
    optimizer = solver(1, -1.0, 1.0)
    optimizer.start(torch.tensor([0]), torch.full((1, SIZE), 5.0))
    assert (optimizer.points(torch.tensor([0])) == 1).all()


def test_the_metric_is_the_first_inverse_hessian():
    """With the exact inverse Hessian the first direction leads to the minimum."""
    diagonal = torch.logspace(0, 4, SIZE, dtype=torch.float64)
    function = quadratic(diagonal, torch.zeros(SIZE, dtype=torch.float64))
    found = []
    for metric in (None, lambda vectors, slots: vectors / diagonal):
        optimizer, slot = solver(precondition=metric), torch.tensor([0])
        optimizer.start(slot, starts(1))
        run(optimizer, function, slot, 8)
        found.append(optimizer.value.item())
    assert found[1] < 1e-12 < 1e-3 < found[0]


@pytest.mark.parametrize("first_step", [1e-4, 1e3])
def test_the_line_search_mends_a_wrong_first_step(first_step):
    optimizer, slot = solver(first_step=first_step, evaluations=20), torch.tensor([0])
    optimizer.start(slot, starts(1))
    run(optimizer, quadratic(1.0, 0.5), slot, 30)
    assert optimizer.value.item() < 1e-10


def test_the_value_never_rises():
    optimizer, slots = solver(4), torch.arange(4)
    optimizer.start(slots, starts(4))
    optimizer.tell(slots, *rosenbrock(optimizer.points(slots)))
    for _ in range(80):
        before, x = optimizer.value.clone(), optimizer.points(slots)
        value, gradient = rosenbrock(x)
        taken = optimizer.tell(slots, value, gradient)
        assert (optimizer.value <= before).all()
        assert torch.equal(optimizer.value[taken], value[taken])
        assert torch.equal(optimizer.x[taken], x[taken])


def test_a_function_that_only_rises_is_given_up():
    """What is called its gradient points the wrong way, as rounding makes it near a minimum."""
    optimizer, slot = solver(evaluations=4), torch.tensor([0])
    x = starts(1)
    optimizer.start(slot, x)
    for _ in range(12):
        value, gradient = rosenbrock(optimizer.points(slot))
        optimizer.tell(slot, value, -gradient)
    assert optimizer.failed.item()
    assert torch.equal(optimizer.x, x)


def test_a_proposal_is_taken_if_it_is_better():
    optimizer, slots = solver(3), torch.arange(3)
    optimizer.start(slots, starts(3))
    run(optimizer, rosenbrock, slots, 10)
    before = optimizer.x.clone()
    good, bad = torch.full((1, SIZE), 1.001), torch.full((1, SIZE), 9.0)
    optimizer.propose(slots[:2], torch.cat([good, bad]))
    taken = optimizer.tell(slots, *rosenbrock(optimizer.points(slots)))
    assert taken[:2].tolist() == [True, False]
    torch.testing.assert_close(optimizer.x[0], good[0].double())
    assert torch.equal(optimizer.x[1], before[1])
    run(optimizer, rosenbrock, slots, 150)
    assert (optimizer.value < 1e-12).all()
