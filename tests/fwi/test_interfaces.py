"""Layers between bent interfaces, read from maps."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from comp.fwi.interfaces import Layers, Move, follow, moved, moves, readings
from comp.fwi.velocity import generate


def bent(layers=5, rows=70, columns=70):
    x = np.arange(columns)
    first = np.rint(10 + 5 * np.sin(x / 9.0))
    depth = first + np.rint(rows / (layers - 1)) * np.arange(layers - 1)[:, None]
    return Layers(np.linspace(1800, 4200, layers), depth)


def test_a_cell_has_the_velocity_of_its_layer_or_a_mean():
    layers = Layers(np.array([1.0, 2.0, 5.0]), np.array([[1.0, 1.25], [3.0, 9.0]]))
    expected = [[1, 1], [2, 1.75], [2, 2], [5, 2]]
    np.testing.assert_allclose(layers.map(4), expected)


def test_tells_bent_interfaces_from_level_ones():
    level = Layers(np.array([1.0, 2.0]), np.repeat([[5.0, 9.0]], 35, 1))
    assert level.level(70) == pytest.approx(68 / 69)
    assert bent().level(70) < 0.8
    out = Layers(np.array([1.0, 2.0]), np.array([[-1.0, -1, 3, 3, 4, 9, 9]]))
    assert out.level(9) == pytest.approx(1 / 2)
    assert out.level(1) == 1


def test_interfaces_do_not_cross():
    layers = Layers(np.array([1.0, 2.0, 3.0]), np.array([[4.0, 1.0], [2.0, 3.0]])).ordered()
    np.testing.assert_array_equal(layers.depth, [[4, 1], [4, 3]])


@pytest.mark.parametrize("number", [4, 6, 8])
def test_reads_number_velocities_and_depths(number):
    truth = bent(number)
    found = readings(gaussian_filter(truth.map(70), 0.7), range(3, 10))[0]
    assert len(found.velocity) == number
    np.testing.assert_allclose(found.velocity[:-1], truth.velocity[:-1], atol=30)
    assert np.abs(found.depth - truth.depth).mean() < 1


def test_reads_published_kinds_of_maps():
    maps = generate("CurveVel_A", 6, 1)
    errors = [np.abs(readings(one, range(3, 10))[0].map(70) - one).mean() for one in maps]
    assert np.median(errors) < 40, errors
    assert np.median([np.abs(one - one.mean()).mean() for one in maps]) > 300


def test_follows_a_sharper_map():
    truth = bent()
    shifted = truth.depth + np.rint(2 * np.sin(np.arange(70) / 5))
    found = follow(Layers(truth.velocity + 20, shifted), truth.map(70))
    np.testing.assert_array_equal(found.depth.clip(0, 70), truth.depth.clip(0, 70))
    np.testing.assert_allclose(found.velocity[:4], truth.velocity[:4])


def test_stays_where_the_map_says_nothing():
    """Between layers of the same velocity."""
    before = Layers(np.array([1800.0, 3000, 3000, 4200]), bent(4).depth)
    found = follow(before, before.map(70))
    np.testing.assert_array_equal(found.depth.clip(0, 70), before.depth.clip(0, 70))


def test_moves_keep_interfaces_in_order_and_in_the_map():
    layers = Layers(np.array([1.0, 2.0, 3.0]), np.array([[0.0, 2.0, -3.0], [0.0, 2.0, 7.0]]))
    found = set(moves(layers, 4))
    for interface, column, rows in found:
        depth = layers.depth.clip(0, 4)
        depth[interface, column] += rows
        assert (np.diff(depth, axis=0) >= 0).all() and depth.min() >= 0 and depth.max() <= 4
    assert Move(0, 0, -1) not in found and Move(0, 0, 1) not in found and Move(1, 0, 1) in found
    assert Move(1, 1, -1) not in found and Move(0, 1, -1) in found
    assert Move(1, 2, -1) in found and Move(0, 2, 1) in found


def test_a_move_starts_at_the_maps_edge():
    layers = Layers(np.array([1.0, 2.0]), np.array([[-3.0, 2.0, 9.0]]))
    made = moved(layers, 4, [Move(0, 0, 1), Move(0, 2, -1)])
    np.testing.assert_array_equal(made.depth, [[1, 2, 3]])
    np.testing.assert_array_equal(layers.depth, [[-3, 2, 9]])
