"""The router on what a network would predict, blurred maps, and their records."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from comp.fwi.router import SMOOTH_EVENNESS, evenness, route, sideways_change
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import simulate


def records(maps):
    return simulate(torch.tensor(np.asarray(maps), dtype=torch.float32)).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_most_blurred_maps_are_known(family):
    truth = generate(family, 4, 1)
    blurred = gaussian_filter(truth, 2.5, axes=(1, 2), mode="nearest")
    kinds = [route(record, one, OFFICIAL) for record, one in zip(records(truth), blurred)]
    expected = {"FlatVel": "flat", "Style": "smooth"}.get(family[:-2], "layered")
    assert kinds.count(expected) >= 3


def test_many_strongly_blurred_layered_maps_are_known_by_their_records():
    """By evenness alone all of these would count as smooth."""
    truth = generate("CurveVel_A", 30, 0)
    blurred = gaussian_filter(truth, (0, 7, 7), mode="nearest")
    even = [i for i, one in enumerate(blurred) if evenness(one) > SMOOTH_EVENNESS][:6]
    kinds = [route(record, blurred[i], OFFICIAL) for i, record in zip(even, records(truth[even]))]
    assert kinds.count("layered") >= 3


def test_change_is_none_over_level_layers():
    level = np.where(np.arange(70) < 20, 2000.0, 3000.0)[:, None].repeat(70, 1)
    tilted = np.where(np.arange(70) < 35, level, np.roll(level, 3, axis=0))
    level_change, tilted_change = (sideways_change(r, OFFICIAL) for r in records([level, tilted]))
    assert level_change < 0.002 < 0.02 < tilted_change


@pytest.mark.parametrize(
    "survey",
    [
        replace(OFFICIAL, source_columns=(3,)),
        replace(OFFICIAL, receiver_columns=tuple(range(1, 70))),
    ],
)
def test_change_is_unknown_without_a_common_offset(survey):
    assert sideways_change(np.ones(survey.record_shape), survey) == np.inf


def test_evenness_is_1_for_a_slope_and_small_for_a_step():
    slope = np.linspace(1500, 4500, 70)[:, None].repeat(70, 1)
    step = np.where(np.arange(70) < 35, 2000.0, 3000.0)[:, None].repeat(70, 1)
    assert evenness(slope) == pytest.approx(1)
    assert evenness(step) == pytest.approx(np.sqrt(1 / 69))
    assert evenness(np.full((70, 70), 2000.0)) == 1
