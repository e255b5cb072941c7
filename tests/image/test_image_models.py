"""One contract for every network: shapes, gradients, weights, activations, feature mixing."""

import copy
import socket

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.activations import Sigmoid
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from comp.core.checkpoint import load_state, load_weights, save_state
from comp.core.config import OptimConfig, parse_config
from comp.core.errors import InputError
from comp.core.mixing import draw_dirichlet, draw_mixup, mix
from comp.core.optim import build_optimizer
from comp.image.activations import check_swapped, count_activations, swap_activations
from comp.image.decoder import MLDecoder
from comp.image.heads import Head
from comp.image.models import ModelConfig, build_model
from comp.image.pooling import AttentionPooling, AveragePooling, GeMPooling, replace_pooling

SHIPPED = {  # backbone: activations in a forward pass
    "efficientnet_b0": {"silu": 49},
    "efficientnet_b4": {"silu": 96},
    "seresnext50_32x4d": {"relu": 65},
    "convnext_tiny": {"gelu": 18},
    "hgnetv2_b2": {"relu": 42},
}
TAGS = Head("tags", tuple("abcdefg"), "multilabel")
HEADS = (TAGS, Head("root", ("x", "y", "z"), "multiclass"))
LABELS = 10
# timm's tiny ones of each kind: a plain pooling, layers behind it, tokens, channels last.
SMALL, SIDES = "test_resnet", {"test_vit": 160}
DECODER = {"head": "ml_decoder", "decoder_width": 32, "decoder_groups": 4}
KINDS = {
    "average": {"backbone": SMALL},
    "gem": {"backbone": SMALL, "pooling": "gem", "dropout": 0.3, "activation": "mish"},
    "attention": {"backbone": SMALL, "pooling": "attention"},
    "decoder": {"backbone": SMALL, **DECODER},
    "norm behind": {"backbone": "test_convnext", "pooling": "attention"},
    "decoder behind norm": {"backbone": "test_convnext", **DECODER},
    "convolution behind": {"backbone": "mobilenetv3_small_050", "pooling": "gem"},
    "decoder behind convolution": {"backbone": "mobilenetv3_small_050", **DECODER},
    "tokens": {"backbone": "test_vit", "pooling": "attention"},
    "decoder of tokens": {"backbone": "test_vit", **DECODER},
    "channels last": {"backbone": "test_mambaout", "pooling": "gem"},
    "decoder of channels last": {"backbone": "test_mambaout", **DECODER},
}


@pytest.fixture(params=KINDS)
def config(request):
    return ModelConfig(**KINDS[request.param])


def build(config, **how):
    torch.manual_seed(0)
    return build_model(config, HEADS, **how)


def images(config, n=2, channels=3):
    side = SIDES.get(config.backbone, 64)
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def size(module):
    return sum(p.numel() for p in module.parameters())


def test_logits_of_every_kind(config):
    model, x = build(config).eval(), images(config, 3)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (3, LABELS) and logits.dtype == torch.float32
        assert logits.isfinite().all() and logits.std(0).min() > 0
        torch.testing.assert_close(model(x[:1]), logits[:1], rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.float32
    assert (half - logits).abs().mean() < 0.05 * max(1.0, float(logits.abs().mean()))


def test_gradients_are_finite_and_reach_every_weight(config):
    model = build(config)
    model(images(config)).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_saved_and_loaded_is_the_same(config, tmp_path):
    model, x = build(config).eval(), images(config, 1)
    with torch.no_grad():
        expected = model(x)
        save_state(tmp_path / "w.safetensors", {"model": model.state_dict()})
        torch.manual_seed(7)
        other = build_model(config, HEADS, fetch=False).eval()
        assert not torch.equal(other(x), expected)
        load_weights(other, load_state(tmp_path / "w.safetensors")["model"], "w")
        assert torch.equal(other(x), expected)


@pytest.mark.parametrize("backbone", SHIPPED)
def test_shipped_backbones_are_timms_own(backbone):
    """With average pooling: the same parameters, and the same features before the classifier."""
    config = ModelConfig(backbone=backbone)
    model = build(config).eval()
    own = timm.create_model(backbone, num_classes=LABELS).eval()
    assert size(model) == size(own)
    assert count_activations(model.backbone, (3, 64, 64)) == SHIPPED[backbone]
    own.load_state_dict(model.backbone.state_dict(), strict=False)
    x = images(config)
    with torch.no_grad():
        expected = own.forward_head(own.forward_features(x), pre_logits=True)
        torch.testing.assert_close(model.backbone(x), expected)
        assert model(x).shape == (2, LABELS)


@pytest.mark.parametrize("backbone", SHIPPED)
def test_no_activation_is_left_behind(backbone):
    model = build(ModelConfig(backbone=backbone, activation="mish"))
    (count,) = SHIPPED[backbone].values()
    # What runs, whoever calls it, and what stands there, whether it runs or not.
    assert count_activations(model.backbone, (3, 64, 64)) == {"mish": count}
    kinds = {type(m) for m in model.backbone.modules() if "activation" in type(m).__module__}
    assert nn.Mish in kinds and kinds <= {nn.Mish, nn.Sigmoid, Sigmoid}  # sigmoids are gates


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "silu", "gelu", "hardswish"])
def test_every_activation_can_be_put_in(name):
    model = build(ModelConfig(backbone="mobilenetv3_small_050", activation=name))
    assert set(count_activations(model.backbone, (3, 64, 64))) == {name}


def test_swap_leaves_weights_and_exact_function_elsewhere():
    torch.manual_seed(0)
    net = timm.create_model(SMALL, num_classes=0).eval()
    before, x = copy.deepcopy(net.state_dict()), torch.randn(2, 3, 32, 32)
    relu = net(x)
    count = swap_activations(net, "mish")
    assert count == count_activations(net, (3, 32, 32))["mish"]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not torch.allclose(net(x), relu)
    assert swap_activations(net, "relu") == count
    assert torch.equal(net(x), relu)


def test_activations_that_stay_are_found():
    class Hidden(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), Hidden())
    swap_activations(net, "mish")
    with pytest.raises(InputError, match="'model.activation': got 'mish'.*has relu built in"):
        check_swapped(net, "mish", (3, 8, 8))
    with pytest.raises(InputError, match="no activation that it knows"):
        check_swapped(nn.Conv2d(3, 4, 1), "mish", (3, 8, 8))
    with pytest.raises(InputError, match="the backbone has EvoNorm2dS0 built in"):
        build(ModelConfig(backbone="test_efficientnet_evos", activation="mish"))


def test_count_leaves_the_network_as_it_was():
    net = timm.create_model(SMALL, num_classes=0)
    before = copy.deepcopy(net.state_dict())
    count_activations(net, (3, 32, 32))
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_average_pooling_is_the_mean():
    x = torch.rand(2, 6, 4)
    torch.testing.assert_close(AveragePooling()(x), x.mean(1))


def test_gem_runs_from_the_mean_to_the_maximum():
    x = torch.rand(2, 6, 4) + 0.1
    torch.testing.assert_close(GeMPooling(1.0)(x), x.mean(1))
    torch.testing.assert_close(GeMPooling(3.0)(x), (x**3).mean(1) ** (1 / 3))
    torch.testing.assert_close(GeMPooling(60.0)(x), x.amax(1), rtol=0.05, atol=0)
    half = (100 * x).half()  # whose cubes leave half precision's range
    torch.testing.assert_close(
        GeMPooling()(half).float(), GeMPooling()(half.float()), rtol=1e-3, atol=0
    )


def test_attention_starts_as_the_mean_and_can_choose_a_place():
    x = torch.randn(2, 6, 12)
    pooling = AttentionPooling(12)
    assert pooling.groups == 4
    torch.testing.assert_close(pooling(x), x.mean(1))
    # A channel that marks one place: its weight draws all groups there.
    x[..., 0] = 0
    x[:, 3, 0] = 1
    pooling.score.weight.data[:, 0] = 1000
    torch.testing.assert_close(pooling(x), x[:, 3])


def test_pooling_of_channels_last_features_is_over_places():
    net = SwinTransformer(img_size=16, patch_size=4, embed_dim=8, depths=(1,), num_heads=(1,))
    net.reset_classifier(0)
    assert replace_pooling(net, "gem")
    features = net.forward_features(torch.randn(2, 3, 16, 16))
    assert features.shape == (2, 4, 4, 8)
    expected = (features.clamp(min=1e-6) ** 3).mean((1, 2)) ** (1 / 3)
    torch.testing.assert_close(net.forward_head(features), expected)


def test_prefix_tokens_are_not_pooled():
    model = build(ModelConfig(backbone="test_vit")).eval()
    tokens = model.backbone.forward_features(images(ModelConfig(backbone="test_vit")))
    assert tokens.shape[1] == 1 + 10 * 10
    torch.testing.assert_close(model.pooling(tokens), tokens[:, 1:].mean(1))


def test_parameters_of_the_decoder_are_counted():
    decoder = MLDecoder(48, (7, 3), 32, groups=4)
    assert decoder.queries == [4, 3]
    hidden = 8 * 32 // 3
    dense = (48 + 1) * 32 + 4 * (32 + 1) * 32 + (32 + 1) * hidden + (hidden + 1) * 32 + 3 * 2 * 32
    assert size(decoder) == dense + 32 * (4 * 2 + 3 * 1) + 10
    assert "query" in decoder.state_dict()  # random but fixed, so they must be kept


def test_decoder_labels_answer_to_their_own_query():
    torch.manual_seed(0)
    decoder = MLDecoder(16, (7, 3), 32, groups=4).eval()
    x = torch.randn(2, 9, 16)
    before = decoder(x)
    decoder.spread[0].data[1] += 1.0  # second query of the first head: labels 2 and 3
    changed = (decoder(x) != before).any(0)
    assert changed.tolist() == [i in (2, 3) for i in range(10)]
    shuffled = decoder(x[:, torch.randperm(9)])  # places are a set
    torch.testing.assert_close(shuffled, decoder(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_three(channels):
    config = ModelConfig(backbone=SMALL, activation="mish")
    model = build(config, in_chans=channels)
    assert model(images(config, channels=channels)).shape == (2, LABELS)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def local_weights(tmp_path):
    torch.manual_seed(3)
    own = timm.create_model(SMALL)
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    return own, str(tmp_path / "w.safetensors")


@pytest.mark.usefixtures("no_network")
def test_local_weights_are_loaded_without_network(local_weights):
    own, path = local_weights
    model = build(ModelConfig(backbone=SMALL, weights=path, activation="mish", pooling="gem"))
    loaded = model.backbone.state_dict()
    for name, weight in own.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(loaded[name], weight), name
    four = build(ModelConfig(backbone=SMALL, weights=path), in_chans=4).backbone.state_dict()
    name = "layer1.0.conv1.weight"
    assert torch.equal(four[name], own.state_dict()[name])
    first = own.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(four["conv1.0.weight"][:, :3], first * 3 / 4)


@pytest.mark.usefixtures("no_network")
def test_trained_weights_make_initial_ones_needless():
    for source in ({"pretrained": True}, {"weights": "gone.safetensors"}):
        build(ModelConfig(backbone=SMALL, **source), fetch=False)


def test_weights_that_do_not_fit_are_refused(local_weights, tmp_path):
    own, path = local_weights
    other = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match=r"other.safetensors: no such file.*test_resnet"):
        build(ModelConfig(backbone=SMALL, weights=str(other)))
    state = own.state_dict()
    del state["layer2.0.conv1.weight"]
    save_file(state, other)
    with pytest.raises(
        InputError, match=r"not usable as test_resnet.*layer2.0.conv1.weight"
    ) as caught:
        build(ModelConfig(backbone=SMALL, weights=str(other)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    other.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"other.safetensors: not usable"):
        build(ModelConfig(backbone=SMALL, weights=str(other)))
    with pytest.raises(InputError, match=r"not usable as test_convnext"):
        build(ModelConfig(backbone="test_convnext", weights=path))


@pytest.mark.parametrize("stage", [0, 2, 4])
def test_features_are_mixed_at_the_stage_and_nowhere_else(stage):
    config = ModelConfig(backbone=SMALL, mix_stage=stage)
    model, x = build(config).eval(), images(config, 5)
    draw = draw_dirichlet(5, 3, 1.0, torch.Generator().manual_seed(2))
    seen = {}
    name = model.backbone.feature_info[stage]["module"]
    module = model.backbone.get_submodule(name)
    module.register_forward_pre_hook(lambda m, i: seen.update(input=i[0]))
    module.register_forward_hook(lambda m, i, output: seen.update(output=output))
    with torch.no_grad():
        plain = model(x)
        before, source = seen["output"].clone(), seen["input"].clone()
        mixed = model(x, draw)
        torch.testing.assert_close(seen["output"], mix(before, draw))
        torch.testing.assert_close(seen["input"], source)
        assert not torch.allclose(mixed, plain)
        assert torch.equal(model(x), plain)  # nothing of the draw stays


def test_features_mixed_last_mix_the_logits():
    """Behind the last stage all is linear: pooling and head commute with mixing."""
    config = ModelConfig(backbone=SMALL, mix_stage=4)
    model, x = build(config).eval(), images(config, 4)
    draw = draw_mixup(4, 0.4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x, draw), mix(model(x), draw), rtol=1e-4, atol=1e-5)


def test_a_copy_mixes_by_its_own_draw():
    config = ModelConfig(backbone=SMALL, mix_stage=1)
    model = build(config).eval()
    twin, x = copy.deepcopy(model), images(config)
    draw = draw_mixup(2, 0.4, torch.Generator().manual_seed(1))
    with torch.no_grad():
        mixed = model(x, draw)
        assert not torch.allclose(mixed, model(x))
        assert torch.equal(twin(x, draw), mixed)


def test_feature_mixing_keeps_half_precision():
    config = ModelConfig(backbone=SMALL, mix_stage=1)
    model, types = build(config), []
    model.backbone.layer2.register_forward_pre_hook(lambda m, i: types.append(i[0].dtype))
    draw = draw_mixup(2, 0.4, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        model(images(config))
        model(images(config), draw)
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"backbone": "resnet1"}, "'model.backbone': got 'resnet1'; nearest known: .*resnet"),
        ({"backbone": "resnet18.no_such_tag"}, "'model.backbone': 'resnet18.no_such_tag': not us"),
        ({"backbone": SMALL, "mix_stage": 5}, "'model.mix_stage': got 5;.*stages 0 to 4"),
    ],
)
def test_models_that_cannot_be_had_are_named(values, part):
    with pytest.raises(InputError, match=part) as caught:
        build(ModelConfig(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"head": "ml_decoder", "pooling": "gem"}, "'pooling'.*does not pool"),
        ({"pretrained": True, "weights": "w"}, "'weights'.*one source"),
        ({"activation": "swish"}, "'activation': got 'swish'"),
        ({"decoder_width": 36}, "'decoder_width'.*multiple of 8"),
    ],
)
def test_settings_without_sense_are_named(values, part):
    with pytest.raises(InputError, match=part):
        parse_config(ModelConfig, values, "test")


def test_a_draw_needs_a_stage():
    model = build(ModelConfig(backbone=SMALL))
    draw = draw_mixup(2, 0.4, torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="no model.mix_stage"):
        model(images(ModelConfig(backbone=SMALL)), draw)


def test_layers_learn_at_rates_of_their_own():
    network = build_model(ModelConfig(backbone="test_resnet"), HEADS)
    optimizer = build_optimizer(network, OptimConfig(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    stem = rates[id(next(network.backbone.parameters()))]
    assert rates[id(network.head.weight)] == 1.0
    assert stem < 0.25 and len(set(rates.values())) >= 4


def test_what_the_backbone_says_is_not_decayed():
    network = build_model(ModelConfig(backbone="test_vit"), HEADS, size=(160, 160))
    optimizer = build_optimizer(network, OptimConfig(weight_decay=0.1))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays[id(network.backbone.pos_embed)] == 0
    assert decays[id(network.head.weight)] == 0.1


def test_a_backbone_of_one_size_is_made_for_the_images():
    network = build_model(ModelConfig(backbone="test_vit"), HEADS, size=(96, 64)).eval()
    assert network(torch.zeros(1, 3, 96, 64)).shape[0] == 1


def test_a_size_that_cannot_be_had():
    with pytest.raises(InputError, match=r"key 'data.size': got \[90, 64\]; test_vit does not"):
        build_model(ModelConfig(backbone="test_vit"), HEADS, size=(90, 64))
