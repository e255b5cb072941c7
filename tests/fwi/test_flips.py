"""Binary least squares by descent."""

from itertools import product

import numpy as np

from comp.fwi.flips import descend


def problem(changes, made, seed=0):
    """Effects of `changes` random changes, and a residual that making `made` of them ends."""
    effects = np.random.default_rng(seed).normal(size=(changes, 40))
    return effects, -effects[made].sum(0)


def run(effects, residual, runs=(), exclude=None, most=100):
    exclude = np.full(len(effects), -1) if exclude is None else exclude
    args = effects @ effects.T, effects @ residual, residual @ residual, runs, exclude, most
    return list(descend(*args))


def left(effects, residual, chosen):
    return np.square(residual + effects[chosen].sum(0)).sum()


def test_every_step_lowers_the_squares():
    effects, residual = problem(30, [3, 4, 5, 20])
    residual = residual + 0.3 * np.random.default_rng(1).normal(size=40)
    squares = [left(effects, residual, chosen) for chosen in run(effects, residual)]
    assert len(squares) > 1
    assert (np.diff([residual @ residual, *squares]) < 0).all()


def test_finds_what_was_made():
    effects, residual = problem(30, [3, 4, 5, 20])
    assert np.flatnonzero(run(effects, residual)[-1]).tolist() == [3, 4, 5, 20]


def test_no_single_change_or_pair_is_left_that_would_help():
    effects = np.random.default_rng(2).normal(size=(8, 5))
    residual = np.random.default_rng(3).normal(size=5) * 4
    chosen = run(effects, residual)[-1]
    least = left(effects, residual, chosen)
    for one in range(8):
        other = chosen.copy()
        other[one] = ~other[one]
        assert left(effects, residual, other) > least * (1 - 1e-3)
    best = min(left(effects, residual, np.array(c, bool)) for c in product([0, 1], repeat=8))
    assert least < 3 * best


def test_a_run_goes_where_none_of_it_would_go_alone():
    """Each change does harm by itself, and so do two; all six together are the answer."""
    common, own = np.zeros(40), np.eye(6, 40)
    common[30] = 1.0
    effects = 10 * (own - np.roll(own, 1, 0)) + 1.2 * common
    residual = -effects.sum(0)
    assert not run(effects, residual)
    assert run(effects, residual, [np.arange(6)])[-1].all()


def test_opposites_are_not_made_together():
    effects = np.stack([np.ones(4), np.array([1.0, 1, 1, -0.2])])
    residual = np.full(4, -2.0)
    assert run(effects, residual)[-1].all()
    assert run(effects, residual, exclude=np.array([1, 0]))[-1].sum() == 1


def test_ends_after_so_many_steps():
    effects, residual = problem(30, list(range(12)))
    assert len(run(effects, residual, most=3)) == 3


def test_a_run_goes_on_behind_a_change_that_is_barred():
    common, own = np.zeros(40), np.eye(7, 40)
    common[30] = 1.0
    effects = 10 * (own[:6] - np.roll(own[:6], 1, 0)) + 1.2 * common
    first = np.eye(1, 40, 39)
    effects = np.vstack([50 * first, first, effects])  # 0 is made at once and bars 1
    residual = -effects[2:].sum(0) - effects[0]
    found = run(effects, residual, [np.arange(1, 8)], np.array([-1, 0, *[-1] * 6]))[-1]
    assert np.flatnonzero(found).tolist() == [0, 2, 3, 4, 5, 6, 7]
