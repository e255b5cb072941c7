"""Augmentations: the draw is seeded, the transform is what it says."""

from dataclasses import replace

import pytest
import torch

from comp.fwi.augment import Draw, augment, draw_augment, mirror_shots, official_shots
from comp.fwi.config import AugmentConfig
from comp.fwi.survey import OFFICIAL, OFFICIAL_COLUMNS, SIX_COLUMNS
from comp.fwi.velocity import generate
from comp.fwi.wave import simulate

SIX = OFFICIAL.with_six_shots()


def batch(shots=5):
    generator = torch.Generator().manual_seed(0)
    records = torch.randn(4, shots, 20, 70, generator=generator)
    return records, 1500 + 3000 * torch.rand(4, 1, 70, 70, generator=generator)


def draw(mirror=(False,) * 4, gain=(1.0,) * 4, noise=(0.0,) * 4):
    n = len(mirror)
    return Draw(torch.tensor(mirror), torch.tensor(gain[:n]), torch.tensor(noise[:n]), 7, None)


def test_nothing_drawn_changes_nothing():
    records, velocity = batch()
    found, map_ = augment(records, velocity, draw(), OFFICIAL)
    assert torch.equal(found, records) and torch.equal(map_, velocity)


def test_mirror_turns_record_and_map_together():
    records, velocity = batch()
    found, map_ = augment(records, velocity, draw(mirror=(True, False, True, False)), OFFICIAL)
    assert torch.equal(map_[0], velocity[0].flip(-1)) and torch.equal(map_[1], velocity[1])
    assert torch.equal(found[0, 0, :, 3], records[0, 4, :, 66])
    assert torch.equal(found[1], records[1])
    assert torch.equal(mirror_shots(mirror_shots(records)), records)


def test_six_shots_become_the_official_five_also_mirrored():
    records, velocity = batch(6)
    found, _ = augment(records, velocity, draw(mirror=(True, False, False, False)), SIX)
    assert found.shape[1] == 5
    for position, column in enumerate(OFFICIAL_COLUMNS):
        assert torch.equal(found[1, position], records[1, SIX_COLUMNS.index(column)])
        fired_at = SIX_COLUMNS.index(69 - column)  # the shot whose mirror image stands there
        assert torch.equal(found[0, position], records[0, fired_at].flip(-1))
    assert torch.equal(official_shots(records, SIX)[:, 2], records[:, 2])


def test_a_mirrored_sample_is_the_record_of_the_mirrored_map():
    survey = replace(OFFICIAL, nt=150, pad=30)
    six = survey.with_six_shots()
    velocity = torch.from_numpy(generate("CurveFault_B", 1, 0))
    record, map_ = augment(simulate(velocity, six), velocity[None], draw(mirror=(True,)), six)
    assert torch.equal(map_[0], velocity.flip(-1))
    assert torch.equal(record, simulate(velocity.flip(-1), survey))


def test_gain_and_noise_are_relative():
    records, velocity = batch()
    found, _ = augment(records, velocity, draw(gain=(2.0, 1.0, 1.0, 1.0)), OFFICIAL)
    torch.testing.assert_close(found[0], 2 * records[0])
    found, map_ = augment(records, velocity, draw(noise=(0.1, 0.0, 0.0, 0.0)), OFFICIAL)
    change = (found - records)[0].std() / records[0].square().mean().sqrt()
    assert change == pytest.approx(0.1, rel=0.1)
    assert torch.equal(found[1], records[1]) and torch.equal(map_, velocity)


def test_draw_is_a_function_of_the_generator():
    config = AugmentConfig(mirror=0.5, noise=0.1, amplitude=0.2, mixup=0.4)
    draws = [draw_augment(200, config, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0].mirror, draws[1].mirror) and draws[0].seed == draws[1].seed
    assert not torch.equal(draws[0].mirror, draws[2].mirror)
    assert 0.35 < draws[0].mirror.float().mean() < 0.65
    assert draws[0].gain.min() >= 0.8 and draws[0].gain.max() <= 1.2 and draws[0].gain.std() > 0.05
    assert draws[0].noise.min() >= 0 and draws[0].noise.max() <= 0.1


def test_mixup_mixes_records_and_maps_with_the_same_weight():
    records, velocity = batch()
    drawn = draw_augment(4, AugmentConfig(mirror=0, mixup=1.0), torch.Generator().manual_seed(3))
    found, map_ = augment(records, velocity, drawn, OFFICIAL)
    weight, partner = drawn.mixup.weight[0], drawn.mixup.partner[0]
    torch.testing.assert_close(map_[0], weight * velocity[0] + (1 - weight) * velocity[partner])
    torch.testing.assert_close(found[0], weight * records[0] + (1 - weight) * records[partner])
