"""One contract for every network: shapes, units, gradients, save and load, half precision."""

import copy
from dataclasses import replace

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from comp.core.checkpoint import load_state, load_weights, save_state
from comp.core.config import OptimConfig, parse_config
from comp.core.errors import InputError
from comp.core.optim import build_optimizer
from comp.core.start import resampled
from comp.fwi.config import FwiConfig
from comp.fwi.models import build_model
from comp.fwi.survey import OFFICIAL
from comp.fwi.task import FwiTask

NARROW = {"decoder": (32, 16, 16, 16)}
HGNET = {"name": "hgnet", "backbone": "hgnetv2_b0", **NARROW}
CONVNEXT = {"name": "convnext", "backbone": "convnext_atto", **NARROW}
CAFORMER = {"name": "caformer", "backbone": "caformer_s18", **NARROW}
VIT = {"name": "vit", "backbone": "vit_tiny_patch16_224", "size": 140, "patch": 14, "cells": 7}
QUERIES = {"cells": 7, "decoder_depth": 1, "decoder_width": 64}
TRUNK = {"name": "shared_trunk", "backbone": "eva02_tiny_patch14_224", "size": 126, "cells": 8}
MODELS = {
    "unet": {"encoder": "tu-mobilenetv3_small_100", "decoder": (32, 16, 16, 8, 8)},
    "unet with gain": {"encoder": "resnet18", "decoder": (16, 16, 8, 8, 8), "gain": 10.0},
    "shallow unet": {"encoder": "tu-resnet10t", "depth": 3, "decoder": (16, 8, 8)}
    | {"input_size": (72, 72)},
    "padded unet without first skip": {"encoder": "tu-resnet10t", "decoder": (32, 16, 16, 8, 8)}
    | {"input_size": (70, 70), "first_skip": False},
    "hgnet": {**HGNET, "gain": 10.0},
    "convnext": CONVNEXT,
    "caformer": CAFORMER,
    "vit": VIT,
    "vit and decoder": {**VIT, **QUERIES, "gain": 10.0},
    "shared trunk": TRUNK,
}
# One of each class, for what concerns the backbone alone.
BACKBONES = {"hgnet": HGNET, "convnext": CONVNEXT, "caformer": CAFORMER, "vit": VIT, "trunk": TRUNK}


def section(values):
    run = {"task": "fwi", "name": "x", "data": {"folder": "none", "folds": "none"}}
    return parse_config(FwiConfig, {**run, "model": values}, "test").model


def build(values, survey=OFFICIAL, **how):
    torch.manual_seed(0)
    return build_model(section(values), survey, **how)


def build_short(name):
    """One of the networks with fewer of its many like blocks, so that tests are quick."""
    model = build(MODELS[name]).eval()
    backbone = getattr(model, "backbone", None)
    for stage in getattr(backbone, "stages", ()):
        stage.blocks = stage.blocks[:1]
    if hasattr(backbone, "blocks"):
        backbone.blocks = backbone.blocks[:5]
    return model


def records(n=2):
    return torch.randn(n, *OFFICIAL.record_shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=MODELS, scope="module")
def built(request):
    """A network, and what it makes of two records; to be left as it is."""
    model = build_short(request.param)
    with torch.no_grad():
        return model, model(records())


def test_output_is_a_map_in_metres_a_second(built):
    _, output = built
    assert output.shape == (2, 1, 70, 70) and output.dtype == torch.float32
    assert output.isfinite().all() and 1000 < output.mean() < 5000


def test_a_sample_does_not_depend_on_its_batch(built):
    model, output = built
    with torch.no_grad():
        torch.testing.assert_close(model(records()[:1]), output[:1], rtol=1e-4, atol=0.1)


def test_gradients_are_finite_and_reach_every_weight(built):
    model = copy.deepcopy(built[0]).train()
    model(records()).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_saved_and_loaded_is_the_same(built, tmp_path):
    model, output = built
    save_state(tmp_path / "w.safetensors", {"model": model.state_dict()})
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        load_weights(model, load_state(tmp_path / "w.safetensors")["model"], "w")
        assert torch.equal(model(records()), output)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_leaves_in_float32(built, half):
    model, expected = built
    with torch.no_grad(), torch.autocast("cpu", half):
        output = model(records()[:1])
    assert output.dtype == torch.float32
    assert (output - expected[:1]).abs().mean() < 30  # of a 3000 m/s range
    assert len(output.unique()) > 1000  # not rounded to half precision's steps


@pytest.mark.parametrize("name", ["unet with gain", *list(MODELS)[-6:]])  # one of each kind
def test_no_graph_breaks_and_channels_last(name):
    torch._dynamo.reset()
    model, x = build_short(name), records(1)
    with torch.no_grad():
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=0.5)


@pytest.mark.parametrize("first_skip", [True, False])
def test_the_finest_features_reach_the_map_only_over_the_first_skip(first_skip):
    values = {"encoder": "resnet18", "decoder": (16, 16, 8, 8, 8), "first_skip": first_skip}
    model = build(values).eval()
    plain = model(records())

    def disturb(module, inputs, features):
        return [f + 100 if stage == 1 else f for stage, f in enumerate(features)]

    model.net.encoder.register_forward_hook(disturb)
    assert torch.equal(model(records()), plain) is not first_skip


@pytest.fixture(params=BACKBONES)
def values(request):
    return BACKBONES[request.param]


@pytest.fixture
def local(values, tmp_path):
    """timm's own model with weights that were drawn, and the file that holds them."""
    torch.manual_seed(3)
    own = timm.create_model(values["backbone"]).state_dict()
    path = tmp_path / "w.safetensors"
    save_file(own, path)
    return own, str(path)


def test_local_weights_are_taken_and_the_first_layer_fitted(values, local):
    own, path = local
    loaded = build({**values, "weights": path}).backbone.state_dict()
    inner = [name for name in loaded if "blocks" in name]
    assert len(inner) > 50 and all(torch.equal(loaded[name], own[name]) for name in inner)
    first = next(n for n, w in own.items() if w.ndim == 4)
    mine, theirs = loaded[first], own[first]
    if values["name"] in ("vit", "shared_trunk"):  # one channel
        assert mine.shape[1] == 1
        if mine.shape[2:] == theirs.shape[2:]:
            torch.testing.assert_close(mine, theirs.sum(1, keepdim=True))
    else:
        torch.testing.assert_close(mine[:, :3], theirs * 3 / 5)


def test_trained_weights_make_initial_ones_needless(values):
    build({**values, "weights": "gone.safetensors"}, fetch=False)
    with pytest.raises(InputError, match=r"gone.safetensors: no such file"):
        build({**values, "weights": "gone.safetensors"})


def test_weights_of_another_architecture_are_refused(values, tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not usable as ") as caught:
        build({**values, "weights": str(tmp_path / "other.safetensors")})
    assert "\n" not in str(caught.value)
    other = build(VIT if values is not VIT else HGNET)
    with pytest.raises(InputError, match=r"weights of another network: \d+ differ: missing .*"):
        load_weights(other, resampled(other, build(values).state_dict()), "w")


# The first keeps timm's names, the others' lie under a wrapper's or are joined by it.
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("encoder", ["mobilenetv3_small_100", "convnext_atto", "legacy_xception"])
def test_a_unets_encoder_takes_local_weights(encoder, tmp_path):
    own, path = timm.create_model(encoder), tmp_path / "w.safetensors"
    for weight in own.parameters():
        torch.nn.init.normal_(weight)  # also what begins as ones, or zeros, in every model
    save_file(own.state_dict(), path)
    net = build({"encoder": f"tu-{encoder}", "weights": str(path)}).net.encoder
    stem, *rest = net.parameters()
    theirs = next(weight for weight in own.parameters() if weight.ndim == 4)
    torch.testing.assert_close(stem, (theirs * 3 / 5)[:, [0, 1, 2, 0, 1]])
    known = {(weight.shape, weight.sum().item()) for weight in own.parameters()}
    assert len(rest) > 50 and all((w.shape, w.sum().item()) in known for w in rest)


def test_a_unet_refuses_weights_of_another_encoder(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    values = {"encoder": "tu-mobilenetv3_small_100", "weights": str(path)}
    with pytest.raises(InputError, match=r"other.safetensors: not .*conv_stem") as caught:
        build(values)
    assert "\n" not in str(caught.value)
    build({**values, "weights": "gone.safetensors"}, fetch=False)
    with pytest.raises(InputError, match=r"gone.safetensors: no such file"):
        build({**values, "weights": "gone.safetensors"})


def test_layers_learn_at_rates_of_their_own(values):
    model = build(values)
    optimizer = build_optimizer(model, OptimConfig(lr=1.0, layer_decay=0.5, weight_decay=0.1))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    rates = {name: groups[id(p)]["lr_scale"] for name, p in model.named_parameters()}
    stem = next(name for name in rates if name.startswith("backbone."))
    assert rates["head.weight"] == 1.0 and rates[stem] == min(rates.values()) < 0.1
    assert len(set(rates.values())) >= 5
    named = [name for name in model.no_weight_decay() if name in rates]
    assert len(named) >= 2 * (values["name"] in ("vit", "shared_trunk"))
    assert all(groups[id(model.get_parameter(name))]["weight_decay"] == 0 for name in named)


@pytest.mark.parametrize(
    ("values", "matrices", "others"),
    [
        (
            {**VIT, **QUERIES},
            ("backbone.blocks.0.attn.qkv.weight", "decoder.layers.0.linear1.weight"),
            ("head.weight", "backbone.pos_embed", "decoder.queries", "backbone.norm.weight"),
        ),
        (
            CONVNEXT,
            ("backbone.stem.0.weight", "decoder.blocks.1.conv1.0.weight"),
            ("head.weight", "backbone.stages.0.blocks.0.conv_dw.weight"),
        ),
    ],
    ids=["vit", "convnext"],
)
def test_muon_takes_matrices_and_leaves_the_ends_to_adamw(values, matrices, others):
    model = build(values)
    optimizer = build_optimizer(model, OptimConfig(name="muon", layer_decay=0.8))
    for name in (*matrices, *others):
        weight = model.get_parameter(name)
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    by_muon = [n for n, p in model.named_parameters() if optimizer.state[p].get("use_muon")]
    assert by_muon == list(matrices)


@pytest.mark.parametrize("values", [CONVNEXT, VIT, TRUNK], ids=lambda v: v["name"])
def test_checkpointing_changes_no_gradient(values):
    found = []
    for checkpointing in (False, True):
        model = build({**values, "grad_checkpointing": checkpointing})
        model(records(1)).mean().backward()
        found.append(next(model.backbone.parameters()).grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("small", "size"),
    [
        (VIT, {"size": 280}),
        ({**VIT, **QUERIES}, {"size": 280}),
        (TRUNK, {"size": 252}),
        (HGNET, {"input_size": (140, 140)}),
        ({"encoder": "tu-resnet10t"}, {"input_size": (128, 128)}),
    ],
    ids=["vit", "vit and decoder", "trunk", "hgnet", "unet"],
)
def test_weights_carry_over_to_a_larger_input(small, size):
    """Only position embeddings are not the same, and the map hardly is another one."""
    before, after = build(small), build({**small, **size})
    weights = before.state_dict()
    load_weights(after, resampled(after, weights), "small")
    found = after.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], found[name])}
    assert changed == ({"backbone.pos_embed"} if "size" in size else set())
    if changed:
        last = weights["backbone.pos_embed"].shape[1] - before.grid**2
        assert torch.equal(
            found["backbone.pos_embed"][:, :last], weights["backbone.pos_embed"][:, :last]
        )
        back = resampled(before, found)["backbone.pos_embed"]
        assert back.shape == weights["backbone.pos_embed"].shape
    with torch.no_grad():
        assert after.eval()(records(1)).shape == (1, 1, 70, 70)


def test_another_patch_does_not_carry_over():
    other = build({**VIT, "patch": 10})
    with pytest.raises(InputError, match=r"1 differ: shape of backbone.patch_embed.proj.weight"):
        load_weights(other, resampled(other, build(VIT).state_dict()), "w")


def test_shots_keep_their_place_beside_each_other():
    """The shared trunk does not care for the order of shots, the others do."""
    x = records(1)
    for values, same in ((TRUNK, True), (VIT, False)):
        model = build(values).eval()
        with torch.no_grad():
            equal = torch.allclose(model(x), model(x.flip(1)), atol=0.01)
        assert equal is same, values["name"]


LONG, SHORT = replace(OFFICIAL, nt=2000), replace(OFFICIAL, nt=60)


@pytest.mark.parametrize(
    ("values", "survey", "part"),
    [
        ({"depth": 4}, OFFICIAL, "'model.decoder': got 5 channels; takes 4"),
        ({"encoder": "resnet1"}, OFFICIAL, "'model.encoder': got 'resnet1'"),
        ({"encoder": "tu-resnet1"}, OFFICIAL, "'model.encoder': got 'tu-resnet1'"),
        ({"input_size": (4, 70)}, OFFICIAL, "'model.input_size': got 4; takes greater.*to 8"),
        ({"weights": "w"}, OFFICIAL, "'model.weights': got 'w'; takes null with .* 'resnet18'"),
        ({"pretrained": True, "weights": "w"}, OFFICIAL, "one source of weights"),
        ({"name": "hgnet", "encoder": "x"}, OFFICIAL, "unknown key 'model.encoder'"),
        ({**HGNET, "decoder": (64, 32)}, OFFICIAL, r"'model.decoder': got \(64, 32\); takes 4 val"),
        ({**HGNET, "backbone": "resnet18"}, OFFICIAL, "'resnet18'; nearest known: hgnetv2"),
        ({**CONVNEXT, "backbone": "convnext_atto_ols"}, OFFICIAL, "a stem of .*4×4 patches"),
        ({**CONVNEXT, "pretrained": True, "weights": "w"}, OFFICIAL, "one source of weights"),
        (CONVNEXT, LONG, r"records of \[2000, 70\].*makes \[135, 72\].*expected \[72, 72\]"),
        (CAFORMER, SHORT, r"records of \[60, 70\].*makes \[\].*expected \[72, 72\]"),
        ({**VIT, "size": 150}, OFFICIAL, "'model.size': got 150; takes multiples of 70"),
        ({**TRUNK, "size": 250}, OFFICIAL, "'model.size': got 250; takes multiples of 14"),
        ({**VIT, **QUERIES, "cells": 4}, OFFICIAL, r"'model.cells': got 4; takes a divisor"),
        ({**TRUNK, "shot_blocks": 13}, OFFICIAL, "'model.shot_blocks': got 13; .* has 12"),
        (TRUNK, replace(OFFICIAL, nt=998), "records of 998 time steps: .* multiple of 4"),
        ({**TRUNK, "backbone": "vit_tiny_patch16_224"}, OFFICIAL, "nearest known: eva02"),
        ({"name": "resnet"}, OFFICIAL, "'model.name': got 'resnet'; takes one of 'unet', 'hgnet'"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, survey, part):
    with pytest.raises(InputError, match=part) as caught:
        build(values, survey)
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
