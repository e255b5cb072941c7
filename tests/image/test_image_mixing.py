"""Mixed batches: images and targets by one draw, features inside the network."""

import pytest
import torch

from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.core.mixing import Blend, mix
from comp.image.config import ImageConfig
from comp.image.heads import Head
from comp.image.mixing import MixConfig, mix_batch, network_inputs
from comp.image.models import ModelConfig, build_model

HEADS = (Head("tags", ("a", "b", "c", "d"), "multilabel"),)


def batch(size=8):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, 3, 16, 16, generator=generator)
    target = torch.eye(size)
    return {"image": image, "target": target, "row": torch.arange(size)}


def mixed(seed=0, **how):
    return mix_batch(batch(), MixConfig(**how), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "how", [{"kind": "mixup"}, {"kind": "dirichlet", "images": 3}, {"kind": "dirichlet"}]
)
def test_images_and_targets_are_mixed_alike(how):
    plain, found = batch(), mixed(**how)
    # The targets are one-hot, so they hold the weights.
    weights = found["target"]
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    assert int((weights > 0).sum(1).max()) == how.get("images", 2)
    expected = torch.einsum("ij,jchw->ichw", weights, plain["image"])
    torch.testing.assert_close(found["image"], expected)
    assert network_inputs(found) == (found["image"],)


def test_cutmix_targets_hold_the_share_of_pixels():
    plain, found = batch(), mixed(kind="cutmix", alpha=1.0)
    own = (found["image"] == plain["image"]).all(1).float().mean((1, 2))
    torch.testing.assert_close(found["target"].diagonal(), own)
    assert own.min() < 0.9


def test_feature_mixing_leaves_the_images_and_hands_the_draw_on():
    plain, found = batch(), mixed(kind="feature", images=3)
    assert torch.equal(found["image"], plain["image"])
    images, draw = network_inputs(found)
    assert isinstance(draw, Blend) and draw.weights.shape == (3, 8)
    torch.testing.assert_close(mix(plain["target"], draw), found["target"])
    config = ModelConfig(backbone="test_resnet", mix_stage=1)
    network = build_model(config, HEADS, fetch=False).eval()
    with torch.no_grad():
        one, other = network(images), network(images, draw)
    assert (one - other).abs().max() > 1e-4


def test_a_share_of_batches_stays_plain():
    batches = [mixed(seed, kind="mixup", probability=0.3) for seed in range(200)]
    plain = sum(torch.equal(found["target"], torch.eye(8)) for found in batches)
    assert 0.6 < plain / 200 < 0.8
    assert all(torch.equal(mixed(kind="none")["target"], torch.eye(8)) for _ in range(3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mix": {"kind": "feature"}}, "'mix'.*takes kind feature where model.mix_stage says"),
        ({"model": {"mix_stage": 1}}, "'mix'.*takes kind feature where model.mix_stage is given"),
        ({"mix": {"kind": "mixup", "images": 3}}, "'mix.images': got 3; takes 2"),
        ({"mix": {"kind": "blur"}}, "'mix.kind': got 'blur'"),
        ({"mix": {"alpha": 0}}, "'mix.alpha': got 0"),
        ({"data": {"folder": "x", "folds": "y", "size": [4, 64]}}, "'data.size'.*at least 8"),
    ],
)
def test_a_config_that_cannot_be_is_refused(values, message):
    good = {"task": "image", "name": "x", "data": {"folder": "x", "folds": "y"}}
    with pytest.raises(InputError, match=message):
        parse_config(ImageConfig, {**good, **values}, "c.yaml")
