"""One contract for every network: shapes, units, gradients, save and load, half precision."""

import pytest
import segmentation_models_pytorch as smp
import torch

from comp.core.checkpoint import load_state, load_weights, save_state
from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.fwi.config import FwiConfig, ModelConfig
from comp.fwi.models import build_model
from comp.fwi.survey import OFFICIAL
from comp.fwi.task import FwiTask

MODELS = {
    "unet": {"encoder": "tu-mobilenetv3_small_100", "decoder": (32, 16, 16, 8, 8)},
    "unet with gain": {"encoder": "resnet18", "decoder": (16, 16, 8, 8, 8), "gain": 10.0},
    "shallow unet": {"encoder": "tu-resnet10t", "depth": 3, "decoder": (16, 8, 8)}
    | {"input_size": (72, 72)},
    "unet without first skip": {"encoder": "tu-resnet10t", "decoder": (32, 16, 16, 8, 8)}
    | {"first_skip": False},
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return build_model(ModelConfig(**MODELS[request.param]), OFFICIAL)


def records(n=2):
    return torch.randn(n, *OFFICIAL.record_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n", [1, 3])
def test_output_is_a_map_in_metres_a_second(model, n):
    output = model.eval()(records(n))
    assert output.shape == (n, 1, 70, 70) and output.dtype == torch.float32
    assert output.isfinite().all() and 1000 < output.mean() < 5000


def test_gradients_are_finite_and_reach_every_weight(model):
    model(records()).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_saved_and_loaded_is_the_same(model, tmp_path):
    x = records()
    expected = model.eval()(x)
    save_state(tmp_path / "w.safetensors", {"model": model.state_dict()})
    for weight in model.parameters():
        weight.data.zero_()
    load_weights(model, load_state(tmp_path / "w.safetensors")["model"], "w")
    assert torch.equal(model.eval()(x), expected)


def test_bfloat16_is_close_and_leaves_in_float32(model):
    x = records()
    expected = model.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.float32
    assert (output - expected).abs().mean() < 30  # of a 3000 m/s range
    assert len(output.unique()) > 1000  # not rounded to half precision's steps


def test_a_sample_does_not_depend_on_its_batch(model):
    x = records(3)
    one, three = model.eval()(x[:1]), model(x)[:1]
    torch.testing.assert_close(one, three, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("first_skip", [True, False])
def test_the_finest_features_reach_the_map_only_over_the_first_skip(first_skip):
    config = ModelConfig(encoder="resnet18", decoder=(16, 16, 8, 8, 8), first_skip=first_skip)
    model = build_model(config, OFFICIAL).eval()
    plain = model(records())

    def disturb(module, inputs, features):
        return [f + 100 if stage == 1 else f for stage, f in enumerate(features)]

    model.net.encoder.register_forward_hook(disturb)
    assert torch.equal(model(records()), plain) is not first_skip


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"input_size": (70, 70)}, "'model.input_size'.*multiples of 32"),
        ({"depth": 4}, "'model.decoder': got 5 channels; takes 4"),
        ({"encoder": "resnet1"}, "'model.encoder': got 'resnet1'"),
        ({"encoder": "tu-resnet1"}, "'model.encoder': got 'tu-resnet1'"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, part):
    with pytest.raises(InputError, match=part) as caught:
        build_model(ModelConfig(**values), OFFICIAL)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_prediction_asks_for_no_pretrained_weights(monkeypatch):
    """A kernel without internet predicts with a network that began from ImageNet."""
    values = {
        "name": "x",
        "data": {"folder": "none", "folds": "none"},
        "model": {"pretrained": True},
    }
    task = FwiTask(parse_config(FwiConfig, values, "test"))
    asked = []
    real = smp.Unet

    def unet(*args, encoder_weights, **how):
        asked.append(encoder_weights)
        return real(*args, encoder_weights=None, **how)

    monkeypatch.setattr("comp.fwi.models.unet.smp.Unet", unet)
    task.build_model()
    task.build_model(fetch=False)
    assert asked == ["imagenet", None]
