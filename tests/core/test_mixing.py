"""Mixing: what each transform does to a batch, and that its draw alone decides."""

import numpy as np
import pytest
import torch

from comp.core.mixing import (
    Blend,
    CutMix,
    Mix,
    cutmix,
    draw_cutmix,
    draw_dirichlet,
    draw_mixup,
    mix,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


DRAWS = {
    "mixup": lambda seed: draw_mixup(64, 0.4, generator(seed)),
    "dirichlet": lambda seed: draw_dirichlet(64, 4, 1.0, generator(seed)),
    "cutmix": lambda seed: draw_cutmix(64, 1.0, (24, 40), generator(seed)).mix,
}


def partners_and_weights(name, seed=0):
    """(k − 1, b) and (k, b) of a draw, whichever its kind."""
    draw = DRAWS[name](seed)
    if isinstance(draw, Blend):
        return draw.partners, draw.weights
    return draw.partner[None], torch.stack([draw.weight, 1 - draw.weight])


@pytest.mark.parametrize("name", DRAWS)
def test_mix_is_the_weighted_mean_of_its_images(name):
    draw, (partners, weights) = DRAWS[name](0), partners_and_weights(name)
    x = torch.randn(64, 3, 2, generator=generator(1))
    mixed = mix(x, draw)
    i = 5
    images = [x[i], *x[partners[:, i]]]
    expected = sum(weight * image for weight, image in zip(weights[:, i], images))
    torch.testing.assert_close(mixed[i], expected)
    torch.testing.assert_close(mix(2 * x + 1, draw), 2 * mixed + 1)  # linear maps commute with it


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_a_function_of_the_generator(name):
    first, again, other = (partners_and_weights(name, seed) for seed in (0, 0, 1))
    for part in range(2):
        assert torch.equal(first[part], again[part])
        assert not torch.equal(first[part], other[part])


def test_mixup_weights_are_a_folded_beta():
    weight = draw_mixup(20000, 0.4, generator()).weight
    # E λ² = ((α + 1) / (2α + 1)) / 2, and λ² + (1 − λ)² is the same folded or not.
    expected = 1.4 / 1.8
    assert weight.min() >= 0.5
    assert abs(float((weight**2 + (1 - weight) ** 2).mean()) - expected) < 0.005


def test_dirichlet_weights_descend_from_the_sample_itself():
    draw = draw_dirichlet(20000, 3, 0.5, generator())
    assert draw.partners.shape == (2, 20000) and draw.weights.shape == (3, 20000)
    assert draw.weights.dtype == torch.float32 and draw.weights.min() >= 0
    torch.testing.assert_close(draw.weights.sum(0), torch.ones(20000))
    assert (draw.weights.diff(dim=0) <= 0).all()
    # E Σ w² = (α + 1) / (kα + 1), whatever the order.
    assert abs(float((draw.weights**2).sum(0).mean()) - 1.5 / 2.5) < 0.005


def test_dirichlet_of_two_images_is_mixup():
    two, beta = draw_dirichlet(20000, 2, 0.4, generator()), draw_mixup(20000, 0.4, generator())
    quantiles = np.linspace(0.05, 0.95, 10)
    found, expected = (np.quantile(w, quantiles) for w in (two.weights[0], beta.weight))
    assert np.abs(found - expected).max() < 0.02


def test_multi_hot_and_one_hot_targets_become_weighted_means():
    draw = Mix(torch.tensor([1, 0]), torch.tensor([0.75, 0.6]))
    sets = torch.tensor([[1, 1, 0], [0, 1, 0]])  # integers, as a dataset may bring them
    expected = torch.tensor([[0.75, 1.0, 0.0], [0.4, 1.0, 0.0]])
    torch.testing.assert_close(mix(sets, draw), expected)
    classes = torch.eye(3)[[2, 0]]
    mixed = mix(classes, draw)
    torch.testing.assert_close(mixed, torch.tensor([[0.25, 0, 0.75], [0.6, 0, 0.4]]))
    torch.testing.assert_close(mixed.sum(1), torch.ones(2))


@pytest.mark.parametrize("shape", [(24, 40), (7, 5)])
def test_cutmix_weights_are_the_exact_share_of_pixels(shape):
    size = 200
    draw = draw_cutmix(size, 1.0, shape, generator())
    # Each image is its own number everywhere, so what came from elsewhere can be counted.
    x = torch.arange(size).view(-1, 1, 1, 1).expand(-1, 3, *shape)
    foreign = cutmix(x, draw) != x
    partner = draw.mix.partner
    assert torch.equal(foreign.any(1), foreign.all(1))  # all channels alike
    moved = partner != torch.arange(size)
    share = foreign[:, 0].float().mean((1, 2))
    assert torch.equal(1 - share[moved], draw.mix.weight[moved])
    assert share.min() == 0 and share.max() > 0.7 and share.std() > 0.1


def test_cutmix_takes_the_partners_pixels_inside_the_box_only():
    x = torch.randint(0, 256, (2, 3, 6, 8), generator=generator(), dtype=torch.uint8)
    box = torch.tensor([[1, 4, 2, 7], [0, 0, 0, 0]])
    share = Mix(torch.tensor([1, 0]), torch.tensor([1 - 15 / 48, 1.0]))
    mixed = cutmix(x, CutMix(box, (6, 8), share))
    expected = x.clone()
    expected[0, :, 1:4, 2:7] = x[1, :, 1:4, 2:7]
    assert mixed.dtype == torch.uint8 and torch.equal(mixed, expected)


def test_cutmix_boxes_reach_every_pixel_alike_in_both_directions():
    boxes = draw_cutmix(4000, 1.0, (16, 16), generator()).boxes
    first, last = boxes[:, 0::2], boxes[:, 1::2]
    middle = (first + last).float().mean(0) / 2
    assert (middle - 8).abs().max() < 0.3
    assert (first == 0).any(0).all() and (last == 16).any(0).all()
    assert (first >= 0).all() and (last <= 16).all() and (first <= last).all()


def test_cutmix_refuses_images_of_another_size():
    draw = draw_cutmix(2, 1.0, (8, 8), generator())
    with pytest.raises(ValueError, match=r"\(4, 8\) pixels, drawn for \(8, 8\)"):
        cutmix(torch.zeros(2, 3, 4, 8), draw)
