"""The family of a map from the map alone, on generated families."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from comp.core.errors import InputError
from comp.fwi.families import FEATURES, fit_router, map_features, read_router
from comp.fwi.velocity import FAMILIES, generate


def blurred(seed, count):
    """Maps as a network predicts them, and their families."""
    rng = np.random.default_rng(seed)
    maps = [one for name in FAMILIES for one in generate(name, count, seed)]
    noisy = [gaussian_filter(m, 1) + rng.normal(0, 5, m.shape) for m in maps]
    return np.array(noisy, np.float32), np.repeat(FAMILIES, count)


@pytest.fixture(scope="module")
def router():
    maps, families = blurred(0, 60)
    return fit_router(map_features(maps), families)


def test_most_of_ten_families_are_told_apart(router):
    maps, families = blurred(1, 20)
    found = router.route(map_features(maps)).astype(str)
    assert (found == families).mean() > 0.85
    layers = [not name.startswith("Style") for name in families]
    assert ([not name.startswith("Style") for name in found] == np.array(layers)).mean() > 0.97


def test_a_router_survives_json(router):
    again = read_router(json.loads(json.dumps(router.to_dict())))
    features = map_features(blurred(2, 3)[0])
    assert again == router
    np.testing.assert_array_equal(again.route(features), router.route(features))


def test_a_map_is_routed_alike_whatever_its_batch(router):
    maps, _ = blurred(3, 2)
    one_by_one = np.concatenate([map_features(m[None]) for m in maps])
    np.testing.assert_allclose(one_by_one, map_features(maps), rtol=1e-5, atol=1e-6)


def test_constant_maps_and_two_families_are_fine():
    maps = np.full((2, 70, 70), 2000, np.float32)
    features = map_features(maps)
    assert features.shape == (2, FEATURES) and np.isfinite(features).all()
    maps = np.concatenate([generate(name, 9, 0) for name in ("FlatVel_A", "Style_B")])
    names = np.repeat(["FlatVel_A", "Style_B"], 9)
    features = map_features(maps)
    assert (fit_router(features, names).route(features) == names).all()
    assert (fit_router(features[:9], names[:9]).route(features) == "FlatVel_A").all()


def test_numbers_that_do_not_fit_are_refused(router):
    with pytest.raises(InputError, match="not a router"):
        read_router({**router.to_dict(), "centre": [0.0]})
