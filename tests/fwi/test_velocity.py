import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from comp.core.errors import InputError
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.velocity_faults import block_faulted, thick_depths
from comp.fwi.velocity_layers import CURVE_KNOTS, sorted_velocities, spline_weights

COUNT = 200


@pytest.fixture(scope="module")
def maps():
    return {family: generate(family, COUNT, seed=7) for family in FAMILIES}


def first_interface(velocity):
    """(n, nx) rows above the first change of velocity in each column."""
    return (np.cumsum(np.diff(velocity, axis=1) != 0, axis=1) == 0).sum(axis=1) + 1


def slow_rows(velocity):
    """(n, nx) rows slower than 3000 m/s in each column."""
    return (velocity < 3000).sum(axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_type_and_range(maps, family):
    velocity = maps[family]
    assert velocity.shape == (COUNT, 70, 70)
    assert velocity.dtype == np.float32
    assert velocity.min() >= 1500
    assert velocity.max() <= 4500
    assert np.ptp(velocity, axis=(1, 2)).min() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_repeats_and_another_differs(maps, family):
    np.testing.assert_array_equal(generate(family, COUNT, seed=7), maps[family])
    other, shard = generate(family, 5, seed=8), generate(family, 5, seed=(7, 1))
    for i in range(5):
        for j in range(5):
            assert not np.array_equal(other[i], maps[family][j])
            assert not np.array_equal(shard[i], maps[family][j])


def test_families_of_one_seed_share_no_draws(maps):
    a, b = np.unique(maps["FlatVel_A"][0]), np.unique(maps["FlatVel_B"][0])
    assert not np.isin(a, b).all()


def test_numpy_integer_seed_is_the_same_as_int(maps):
    np.testing.assert_array_equal(generate("FlatVel_A", COUNT, np.int64(7)), maps["FlatVel_A"])


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if "Vel" in f or f in ("FlatFault_B", "CurveFault_B")]
)
def test_sharp_families_hold_whole_velocities(maps, family):
    np.testing.assert_array_equal(maps[family], np.round(maps[family]))


@pytest.mark.parametrize("family", ["FlatVel_A", "FlatVel_B"])
def test_flat_layers_are_level_and_evenly_thick(maps, family):
    velocity = maps[family]
    assert (velocity == velocity[:, :, :1]).all()
    for column in velocity[:, :, 0]:
        interfaces = np.flatnonzero(np.diff(column)) + 1
        assert 1 <= len(interfaces) <= 7
        if len(interfaces) > 2:
            assert np.ptp(np.diff(interfaces)) <= 3  # one spacing ± 1 each, whole rows


@pytest.mark.parametrize("family", ["FlatVel_A", "CurveVel_A"])
def test_velocity_grows_with_depth_in_a(maps, family):
    assert (np.diff(maps[family], axis=1) >= 0).all()


@pytest.mark.parametrize("family", ["FlatVel_B", "CurveVel_B"])
def test_velocity_order_is_random_in_b(maps, family):
    change = np.diff(maps[family], axis=1)
    slower = (change < 0).sum() / (change != 0).sum()
    assert 0.4 < slower < 0.6


@pytest.mark.parametrize("family", ["CurveVel_A", "CurveVel_B"])
def test_curved_interfaces_bend_in_every_map(maps, family):
    assert np.ptp(first_interface(maps[family]), axis=1).min() >= 2
    assert np.ptp(first_interface(maps["FlatVel_A"]), axis=1).max() == 0


def test_curved_interfaces_are_as_parallel_as_published_ones(maps):
    """There the range of a layer's thickness over a map has the median 4, in rows."""
    ranges = []
    for velocity in maps["CurveVel_A"]:
        layers = np.unique(velocity)
        first, second = ((velocity < v).sum(axis=0) for v in layers[1:3])
        if first.min() > 0 and second.max() < 70:
            ranges.append(np.ptp(second - first))
    assert len(ranges) > COUNT / 4
    assert 3 <= np.median(ranges) <= 5


def test_spline_goes_through_its_knots_and_keeps_parabolas():
    weights, knots, columns = spline_weights(CURVE_KNOTS, 70), np.array(CURVE_KNOTS), np.arange(70)
    np.testing.assert_allclose(weights[:, knots[:-1]], np.eye(8)[:, :-1], atol=1e-12)
    np.testing.assert_allclose(
        (3 + knots - 0.1 * knots**2) @ weights, 3 + columns - 0.1 * columns**2
    )


def test_beside_some_faults_an_interface_has_moved_half_of_the_way():
    drawn = [
        block_faulted(np.random.default_rng(5), 60, curved=False, layers=(2,), halfway=chance)
        for chance in (0.0, 1.0)
    ]
    middle = sum(maps.min((1, 2)) + maps.max((1, 2)) for maps in drawn)[:, None, None] / 4
    plain, halfway = ((np.abs(maps - middle) < 1).sum((1, 2)) for maps in drawn)
    assert np.mean(plain > 10) < 0.1
    assert 20 < np.median(halfway[halfway > 10]) < 130
    assert np.mean(halfway > 10) > 0.7
    # Nothing above the interface changes.
    np.testing.assert_array_equal(drawn[0][:, :4], drawn[1][:, :4])


def test_a_block_of_fault_a_is_displaced_by_the_throw(maps):
    flat = np.ptp(slow_rows(maps["FlatVel_A"]), axis=1)
    throw = np.ptp(slow_rows(maps["FlatFault_A"]), axis=1)
    assert flat.max() == 0
    assert np.mean(throw >= 4) > 0.75
    assert throw.max() <= 11


def test_fault_a_keeps_half_of_its_layers_below_3000(maps):
    for family in ("FlatFault_A", "CurveFault_A"):
        assert (maps[family].min(axis=(1, 2)) < 3000).all()
        assert (maps[family].max(axis=(1, 2)) >= 3000).all()


def test_curved_fault_a_is_folded_where_flat_is_level(maps):
    # Along the surface of 3000 m/s, level but for one fault in Flat, folded in Curve.
    steps = {f: (np.diff(slow_rows(maps[f]), axis=1) != 0).mean() for f in FAMILIES}
    assert steps["CurveFault_A"] > 3 * steps["FlatFault_A"] > 0


@pytest.mark.parametrize("family", ["FlatFault_B", "CurveFault_B"])
def test_fault_b_has_two_stacks_and_jumps_sideways(maps, family):
    velocities = [len(np.unique(v)) for v in maps[family]]
    assert np.median(velocities) > 8  # more than one stack of 6 to 8 layers
    assert max(velocities) <= 16
    sideways = np.abs(np.diff(maps[family], axis=2)).max(axis=(1, 2))
    assert (sideways > 0).all()
    assert np.mean(sideways > 500) > 0.9


def test_style_grows_with_depth_and_b_is_the_rougher(maps):
    roughness = {}
    for family in ("Style_A", "Style_B"):
        profile = maps[family].mean(axis=(0, 2))
        assert profile[-1] - profile[0] > 1200
        roughness[family] = np.abs(np.diff(maps[family], n=2, axis=2)).mean()
    assert roughness["Style_B"] > 5 * roughness["Style_A"]
    assert np.abs(np.diff(maps["Style_A"], axis=2)).max() < 500


def test_thick_layers_fill_the_map():
    layers = np.array([2, 3, 4, 4, 3, 2] * 50)
    depths = thick_depths(np.random.default_rng(0), layers, 15)[:, :, 0]
    for number, row in zip(layers, depths):
        edges = np.array([0, *row[np.isfinite(row)], 70])
        assert len(edges) == number + 1
        assert np.diff(edges).min() >= 15 - 1e-9


def test_split_velocities_are_slow_above_and_fast_below():
    layers = np.array([2, 3, 4] * 100)
    velocity = sorted_velocities(np.random.default_rng(0), layers, split=3000)
    for number, row in zip(layers, velocity):
        assert (row[: number // 2] < 3000).all()
        assert (row[number // 2 : number] >= 3000).all()
        assert (np.diff(row[:number]) >= 0).all()


def test_unknown_family_names_the_nearest():
    with pytest.raises(InputError, match=r"'FlatVelA'.*'FlatVel_A'"):
        generate("FlatVelA", 1, 0)
    with pytest.raises(InputError, match="nearest"):
        generate("", 1, 0)


def test_count_below_one_is_refused():
    with pytest.raises(InputError, match="count 0"):
        generate("Style_A", 0, 0)


def published(name):
    folder = os.environ.get("COMP_SAMPLE_DATA")
    if folder is None:
        pytest.skip("COMP_SAMPLE_DATA is not set; it names the folder of published maps")
    path = Path(folder) / "openfwi_velocity" / f"{name}.npz"
    return np.load(path)["velocity"].astype(np.float32)


@pytest.mark.parametrize("name", ["FlatVel_A", "CurveVel_A", "FlatFault_A"])
def test_statistics_agree_with_published_maps(name):
    real = published(name)
    if name == "FlatFault_A":  # the sample holds maps of 4 layers only
        drawn = block_faulted(np.random.default_rng(0), 2000, curved=False, layers=(4,))
    else:
        drawn = generate(name, 2000, 0)
    # In metres per second; shuffled or re-scaled velocities differ by over 100.
    assert wasserstein_distance(real[:, ::5, ::5].ravel(), drawn[:, ::5, ::5].ravel()) < 30
    np.testing.assert_allclose(drawn.mean((0, 2)), real.mean((0, 2)), atol=60)
    for axis in (1, 2):
        a, b = (np.abs(np.diff(m, axis=axis)).mean() for m in (real, drawn))
        assert b == pytest.approx(a, rel=0.15)
    a, b = (np.abs(m - m.mean(0)).mean() for m in (real, drawn))
    assert b == pytest.approx(a, rel=0.05)


def test_curved_interfaces_lie_like_the_published_ones():
    real, drawn = published("CurveVel_A"), generate("CurveVel_A", 2000, 0)
    for statistic in (np.mean, np.std):
        a, b = (statistic(first_interface(m), axis=0) for m in (real, drawn))
        np.testing.assert_allclose(b, a, atol=1.0)
