"""Maps made from maps: what each transform does, and that all randomness is in the draw."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from comp.core.errors import InputError
from comp.fwi import derived
from comp.fwi.derived import BLEND_WEIGHTS, KINDS, Draw, Parents, derive, draw
from comp.fwi.velocity import generate

SHAPE = (70, 70)
FOLDS = np.repeat([0, 1, 2, -1], 10)
LAYERED, SMOOTH = generate("CurveVel_A", 40, 0), generate("Style_A", 40, 0)
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def drawn(count, kinds=KINDS, seed=0, folds=FOLDS):
    return draw(count, kinds, Parents(folds), SHAPE, np.random.default_rng(seed))


def apply(one, maps):
    return derive(one, maps[one.parents[:, 0]], maps[one.parents[:, 1]])


def single(sampling, kind="warp"):
    """A draw of one map with one parent."""
    return Draw(
        np.array([kind]),
        np.zeros((1, 2), int),
        sampling[None, None] * np.ones((2, 1, 1)),
        np.ones(1),
    )


def test_draw_is_a_function_of_the_generator():
    first, again, other = drawn(50), drawn(50), drawn(50, seed=1)
    for name in ("kind", "parents", "sampling", "weight"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.parents, other.parents)
    np.testing.assert_array_equal(apply(first, SMOOTH), apply(again, SMOOTH))
    assert set(first.kind) == set(KINDS)


def test_blends_have_two_parents_of_one_fold():
    one = drawn(3000, ["blend"])
    first, second = one.parents.T
    assert (first != second).all() and (FOLDS[first] == FOLDS[second]).all()
    pairs = {tuple(pair) for pair in one.parents}
    assert len(pairs) > 0.99 * 4 * 10 * 9 - 10  # nearly every ordered pair of every fold
    low, high = BLEND_WEIGHTS
    assert (low, high) == (0.3, 0.7)
    assert low <= one.weight.min() < low + 0.01 and high - 0.01 < one.weight.max() <= high


def test_maps_alone_in_their_fold_are_not_blended():
    one = drawn(200, ["blend"], folds=np.array([0, 1, 2, 1, 3]))
    assert set(one.parents.ravel()) == {1, 3}
    with pytest.raises(InputError, match="no fold holds two maps to blend"):
        drawn(5, folds=np.arange(4))
    assert (drawn(9, ["crop"], folds=np.arange(4)).weight == 1).all()


def test_a_blend_is_the_weighted_mean_of_its_parents():
    one = drawn(20, ["blend"])
    for maps, tolerance in ((SMOOTH, 1e-3), (LAYERED, 0.501)):  # rounded to whole m/s
        found = apply(one, maps)
        for row, (a, b), weight, sampling in zip(found, one.parents, one.weight, one.sampling):
            a, b = (maps[i][:, :: int(s[1, 1])] for i, s in zip((a, b), sampling))
            np.testing.assert_allclose(row, weight * a + (1 - weight) * b, atol=tolerance)
    mirrored = one.sampling[:, :, 1, 1] < 0
    assert 5 < mirrored[:, 0].sum() < 15 and (mirrored[:, 0] != mirrored[:, 1]).any()


@pytest.mark.parametrize("maps", [LAYERED, SMOOTH], ids=["layered", "smooth"])
def test_derived_maps_keep_to_the_range_and_kind_of_their_parents(maps):
    one = drawn(120)
    found = apply(one, maps)
    parents = maps[one.parents]
    assert found.dtype == np.float32
    assert (found.min((1, 2)) >= parents.min((1, 2, 3))).all()
    assert (found.max((1, 2)) <= parents.max((1, 2, 3))).all()
    if maps is LAYERED:
        assert (found == np.rint(found)).all()
        for row, source in zip(found[one.weight == 1], parents[one.weight == 1]):
            assert set(np.unique(row)) <= set(np.unique(source))  # no velocity in between
    else:
        steps = np.abs(np.diff(found, axis=1)).max((1, 2))
        assert (steps <= 1.5 * np.abs(np.diff(parents, axis=2)).max((1, 2, 3)) + 60).all()


def test_a_mirror_image_is_exact():
    one = drawn(4, ["mirror"])
    np.testing.assert_array_equal(apply(one, SMOOTH), SMOOTH[one.parents[:, 0], :, ::-1])


def test_a_crop_is_an_enlarged_window():
    one = drawn(400, ["crop"])
    cells = np.array([[-0.5, -0.5, 1], [69.5, 69.5, 1]])  # the corners of the map
    ends = np.sort(cells @ one.sampling[:, 0].swapaxes(1, 2), axis=1) + 0.5
    np.testing.assert_allclose(ends, np.rint(ends), atol=1e-9)
    sides = np.rint(ends[:, 1] - ends[:, 0])
    assert ends.min() >= -1e-9 and ends.max() <= 70 + 1e-9
    assert set(sides.ravel()) == set(range(40, 70)) and (sides[:, 0] == sides[:, 1]).all()
    # A window of 35 cells at row 10, column 20 shows every cell twice.
    half = np.array([[0.5, 0, 10 - 0.25], [0, 0.5, 20 - 0.25]])
    expected = LAYERED[0, 10:45, 20:55].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(derive(single(half), LAYERED[:1], LAYERED[:1])[0], expected)


def test_a_warp_shifts_turns_and_repeats_the_edge():
    shift = IDENTITY + [[0, 0, 3], [0, 0, -2]]
    found = derive(single(shift), SMOOTH[:1], SMOOTH[:1])[0]
    np.testing.assert_allclose(found[:-3, 2:], SMOOTH[0, 3:, :-2], rtol=1e-6)
    np.testing.assert_allclose(found[-3:, 5], SMOOTH[0, -1, 3], rtol=1e-6)
    turned = derive(single(np.array([[0, 1.0, 0], [1, 0, 0]])), LAYERED[:1], LAYERED[:1])[0]
    np.testing.assert_array_equal(turned, LAYERED[0].T)


@pytest.mark.parametrize("maps", [LAYERED, SMOOTH], ids=["layered", "smooth"])
def test_plain_and_mirrored_maps_are_what_resampling_gives(maps, monkeypatch):
    one = drawn(20, ["blend", "mirror"])
    found, resampled = apply(one, maps), []

    def transform(*args, **how):
        resampled.append(1)
        return affine_transform(*args, **how)

    monkeypatch.setattr(derived, "affine_transform", transform)
    assert (apply(one, maps) == found).all() and not resampled  # none is needed
    monkeypatch.setattr(derived, "_PLAIN", np.full((2, 3), np.nan))
    monkeypatch.setattr(derived, "_mirror", lambda shape: np.full((2, 3), np.nan))
    np.testing.assert_array_equal(apply(one, maps), found)
    assert len(resampled) >= 20


def test_warps_are_small_and_about_the_middle():
    sampling = drawn(500, ["warp"]).sampling[:, 0]
    linear = sampling[:, :, :2]
    scale = np.abs(np.linalg.det(linear))
    assert 1 / 1.2**2 <= scale.min() < 0.75 and 1.35 < scale.max() <= 1.2**2
    assert np.abs(linear[:, 0, 1]).max() < 0.5 and np.abs(linear[:, 1, 0]).max() < 0.25
    middle = sampling @ np.array([34.5, 34.5, 1]) - 34.5
    assert 6 < np.abs(middle).max() <= 7


def test_whole_numbers_only_where_the_parents_have_them():
    quarter = LAYERED + np.float32(0.25)
    one = drawn(30, ["crop", "warp"])
    assert (apply(one, quarter) % 1 == 0.25).all()
