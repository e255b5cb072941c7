"""Losses against closed forms and torch's own, with soft targets, half precision and extremes."""

import math

import pytest
import torch
from sklearn.metrics import fbeta_score
from torch.nn import functional as F

from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.image.heads import Head, columns
from comp.image.losses import (
    HeadLosses,
    LossConfig,
    asymmetric,
    bce,
    cross_entropy,
    fbeta_loss,
    focal,
)

TAGS = Head("tags", ("a", "b", "c", "d"), "multilabel")
ROOT = Head("root", ("x", "y", "z"), "multiclass")
LOSSES = {
    "bce": bce,
    "focal": focal,
    "balanced focal": lambda x, y: focal(x, y, 1.5, 0.25),
    "asymmetric": asymmetric,
    "asymmetric, no margin": lambda x, y: asymmetric(x, y, 0.5, 2.5, 0.0),
    "asymmetric, low powers": lambda x, y: asymmetric(x, y, 0.3, 0.3, 0.05),
    "fbeta": fbeta_loss,
    "micro fbeta": lambda x, y: fbeta_loss(x, y, 1.0, "micro"),
    "macro fbeta": lambda x, y: fbeta_loss(x, y, 1.0, "macro"),
    "cross-entropy": lambda x, y: cross_entropy(x, y / y.sum(1, keepdim=True), 0.1),
}


def sample(n=6, labels=4, dtype=torch.float64, soft=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, labels, generator=generator, dtype=dtype)
    targets = torch.rand(n, labels, generator=generator, dtype=dtype)
    return logits, targets if soft else targets.round()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(name):
    logits, targets = sample()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, targets), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_values_and_gradients_are_finite_for_extreme_logits(name, size):
    logits = torch.tensor([[size, size, -size, -size], [0.0, size, -size, 0.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 1.0]])
    logits.requires_grad_()
    loss = LOSSES[name](logits, targets)
    loss.backward()
    assert loss.isfinite() and loss >= 0 and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric", "asymmetric, no margin"])
def test_a_confident_mistake_keeps_its_cost_and_its_slope(name):
    """At |logit| = 100 the probability is 0 or 1 in float32; the loss must not saturate there."""
    logits = torch.tensor([[-100.0]], requires_grad=True)
    loss = LOSSES[name](logits, torch.ones(1, 1))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(100.0))
    torch.testing.assert_close(logits.grad, -torch.ones(1, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_give_the_float32_loss(name, dtype):
    logits, targets = sample(dtype=torch.float32)
    logits = logits.to(dtype)
    expected = LOSSES[name](logits.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](logits, targets)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_integer_and_soft_targets_are_taken_alike(name):
    logits, targets = sample(soft=False, seed=3)
    targets[:, 0] = 1
    torch.testing.assert_close(LOSSES[name](logits, targets.long()), LOSSES[name](logits, targets))


def test_asymmetric_is_the_formula():
    logits, y = sample()
    p = logits.sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    positive, negative = (1 - p) * p.log(), shifted**4 * (1 - shifted).log()
    torch.testing.assert_close(asymmetric(logits, y), -(y * positive + (1 - y) * negative).mean())


def test_asymmetric_ignores_easy_negatives():
    logits = torch.tensor([[math.log(0.049 / 0.951), math.log(0.06 / 0.94)]], requires_grad=True)
    asymmetric(logits, torch.zeros(1, 2), 1.0, 0.0, 0.05).backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] > 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: asymmetric(x, y, 0.0, 0.0, 0.0),
        lambda x, y: focal(x, y, 0.0),
        lambda x, y: 2 * focal(x, y, 0.0, 0.5),
    ],
)
def test_without_focusing_binary_cross_entropy_is_left(loss):
    logits, targets = sample()
    torch.testing.assert_close(
        loss(logits, targets), F.binary_cross_entropy_with_logits(logits, targets)
    )


def test_focal_is_asymmetric_with_equal_powers_and_the_formula():
    logits, y = sample()
    p = logits.sigmoid()
    torch.testing.assert_close(focal(logits, y, 2.0), asymmetric(logits, y, 2.0, 2.0, 0.0))
    expected = 0.25 * y * (1 - p) ** 1.5 * p.log() + 0.75 * (1 - y) * p**1.5 * (1 - p).log()
    torch.testing.assert_close(focal(logits, y, 1.5, 0.25), -expected.mean())


def test_cross_entropy_of_classes_is_torchs():
    logits, _ = sample()
    classes = torch.tensor([0, 1, 2, 3, 0, 2])
    one_hot = F.one_hot(classes, 4)
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            cross_entropy(logits, one_hot, smoothing),
            F.cross_entropy(logits, classes, label_smoothing=smoothing),
        )


def test_cross_entropy_of_mixed_targets_is_the_mean_of_both():
    logits, _ = sample()
    first, second = F.one_hot(torch.arange(6) % 4), F.one_hot(torch.arange(6) % 3, 4)
    mixed = cross_entropy(logits, 0.7 * first + 0.3 * second, 0.1)
    apart = 0.7 * cross_entropy(logits, first, 0.1) + 0.3 * cross_entropy(logits, second, 0.1)
    torch.testing.assert_close(mixed, apart)


@pytest.mark.parametrize("average", ["samples", "micro", "macro"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_fbeta_of_sure_probabilities_is_the_metric(average, beta):
    _, truth = sample(40, soft=False)
    decided = sample(40, soft=False, seed=1)[1]
    logits = 200 * (decided - 0.5)
    expected = fbeta_score(truth, decided, beta=beta, average=average, zero_division=1.0)
    found = 1 - fbeta_loss(logits, truth, beta, average, smooth=1e-12)
    assert abs(float(found) - expected) < 1e-9


def test_fbeta_draws_an_empty_set_towards_no_labels():
    logits = torch.zeros(1, 4, requires_grad=True)
    fbeta_loss(logits, torch.zeros(1, 4)).backward()
    assert (logits.grad > 0).all()
    assert fbeta_loss(torch.full((1, 4), -50.0), torch.zeros(1, 4)) < 1e-6


def test_heads_are_weighted_and_reported():
    logits, targets = sample(labels=7)
    targets[:, 4:] /= targets[:, 4:].sum(1, keepdim=True)
    config = LossConfig(label_smoothing=0.1, heads={"tags": 3.0})
    terms = HeadLosses(config, (TAGS, ROOT))(logits, targets)
    tags = bce(logits[:, :4], targets[:, :4])
    root = cross_entropy(logits[:, 4:], targets[:, 4:], 0.1)
    assert list(terms) == ["loss", "train_loss/tags", "train_loss/root"]
    torch.testing.assert_close(terms["loss"], (3 * tags + root) / 4)
    torch.testing.assert_close(terms["train_loss/tags"], tags)
    torch.testing.assert_close(terms["train_loss/root"], root)


def test_losses_of_one_head_add_up():
    logits, targets = sample()
    weights = {"bce": 1.0, "focal": 0.5, "asymmetric": 0.25, "fbeta": 2.0}
    values = {"focal_gamma": 1.0, "focal_alpha": 0.3, "gamma_negative": 3.0, "margin": 0.1}
    config = LossConfig(**weights, **values, beta=0.5, average="micro")
    terms = HeadLosses(config, (TAGS,))(logits, targets)
    expected = (
        bce(logits, targets)
        + 0.5 * focal(logits, targets, 1.0, 0.3)
        + 0.25 * asymmetric(logits, targets, 1.0, 3.0, 0.1)
        + 2.0 * fbeta_loss(logits, targets, 0.5, "micro")
    )
    assert list(terms) == ["loss"]
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize(
    ("heads", "part"),
    [
        ({"tag": 1.0}, "'loss.heads': got 'tag'; the heads are tags, root"),
        ({"tags": 0.0, "root": 0.0}, "'loss.heads': every weight is 0"),
    ],
)
def test_head_weights_that_do_not_fit_are_named(heads, part):
    with pytest.raises(InputError, match=part):
        HeadLosses(LossConfig(heads=heads), (TAGS, ROOT))


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"bce": 0.0}, "'fbeta': got 0.0; takes more than 0"),
        ({"heads": {"tags": -1.0}}, "'heads'.*at least 0"),
        ({"margin": 1.0}, "'margin'"),
        ({"average": "weighted"}, "'average'"),
    ],
)
def test_settings_without_sense_are_named(values, part):
    with pytest.raises(InputError, match=part):
        parse_config(LossConfig, values, "test")


def test_columns_stand_one_head_after_another():
    assert columns((TAGS, ROOT)) == [slice(0, 4), slice(4, 7)]
    assert columns(()) == []


@pytest.mark.parametrize(
    ("labels", "kind", "part"),
    [
        (("a", "b", "a"), "multilabel", "'h': label 'a' stands there twice"),
        (("a",), "multiclass", "'h': 1 labels, a multiclass head takes at least 2"),
        ((), "multilabel", "'h': 0 labels"),
    ],
)
def test_vocabularies_without_sense_are_named(labels, kind, part):
    with pytest.raises(InputError, match=part):
        Head("h", labels, kind)
