"""The order of samples is a pure function of the seed and the step."""

import numpy as np
import pytest
import torch

from comp.core.config import OptimConfig, ScheduleConfig
from comp.core.errors import InputError
from comp.core.loading import StepBatches, chunks, derive_seed, limit_rows
from comp.core.mixing import draw_mixup, mix
from comp.core.optim import build_optimizer, lr_factor, set_lr
from comp.core.watch import LossWatch


def test_each_epoch_sees_every_sample_once_in_a_new_order():
    batches = StepBatches(30, 10, seed=5, stop=6)
    dealt = [np.concatenate(list(batches)[i : i + 3]) for i in (0, 3)]
    assert sorted(dealt[0]) == sorted(dealt[1]) == list(range(30))
    assert dealt[0].tolist() != dealt[1].tolist()


def test_starting_late_deals_what_would_have_come():
    whole = list(StepBatches(25, 8, seed=1, accumulate=2, stop=9))
    late = list(StepBatches(25, 8, seed=1, accumulate=2, start=4, stop=9))
    assert whole[8:] == late and len(late) == len(
        StepBatches(25, 8, 1, accumulate=2, start=4, stop=9)
    )
    assert list(StepBatches(25, 8, seed=2, accumulate=2, stop=9)) != whole


def test_processes_and_accumulation_split_the_same_step():
    one = list(StepBatches(40, 8, seed=3, accumulate=4, stop=5))
    two = [
        list(StepBatches(40, 8, seed=3, accumulate=2, process=p, processes=2, stop=5))
        for p in (0, 1)
    ]
    for step in range(5):
        merged = [two[p][step * 2 + micro] for micro in (0, 1) for p in (0, 1)]
        assert merged == one[step * 4 : step * 4 + 4]


def test_derived_seeds_differ_in_every_part():
    seeds = {derive_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125 and all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)


def test_limit_spreads_over_the_rows():
    rows = np.arange(100, 200)
    assert limit_rows(rows, 4).tolist() == [100, 133, 166, 199]
    assert limit_rows(rows, None) is rows and limit_rows(rows, 500) is rows
    assert chunks(np.arange(5), 2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("name", ["cosine", "constant_cosine", "constant"])
def test_learning_rate_schedule(name):
    config = ScheduleConfig(name=name, warmup=0.1, constant=0.6, final=0.05)
    lr = np.array([lr_factor(step, 200, config) for step in range(200)])
    assert 0 < lr[0] < 0.06 and (np.diff(lr[:20]) > 0).all() and lr.max() == 1.0
    assert (np.diff(lr[20:]) <= 1e-12).all()
    assert lr[-1] == pytest.approx(1.0 if name == "constant" else 0.05)
    assert (lr[20:120] == 1).all() == (name != "cosine")


def test_layer_scales_survive_setting_the_rate():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["lr_scale"] = 0.5
    set_lr(optimizer, 0.2)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_no_decay_on_biases_and_norms():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(model[0].weight)] == 0.3
    assert decay[id(model[0].bias)] == decay[id(model[1].weight)] == 0.0


def test_unknown_optimizer():
    with pytest.raises(InputError, match=r"'optim.name': got 'adamx'.*adamw"):
        build_optimizer(torch.nn.Linear(1, 1), OptimConfig(name="adamx"))


def test_mixup_mixes_inputs_and_targets_alike():
    draw = draw_mixup(64, 0.4, torch.Generator().manual_seed(0))
    x = torch.randn(64, 3, 2)
    mixed = mix(x, draw)
    i = 5
    expected = draw.weight[i] * x[i] + (1 - draw.weight[i]) * x[draw.partner[i]]
    torch.testing.assert_close(mixed[i], expected)
    torch.testing.assert_close(mix(2 * x + 1, draw), 2 * mixed + 1)  # linear maps commute with it
    assert draw.weight.min() >= 0.5 and draw.weight.std() > 0.05
    again = draw_mixup(64, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(draw.weight, again.weight) and torch.equal(draw.partner, again.partner)


def test_watch_reads_one_step_late_and_stops_at_the_first_broken_one():
    watch = LossWatch(lambda rows: rows)

    def push(step, loss, norm=1.0):
        watch.push(step, {"loss": torch.tensor(loss)}, torch.tensor(norm), 0)

    push(0, 1.0)
    assert watch.read(everything=False).step == -1
    push(1, float("nan"))
    assert watch.read(everything=False).step == 0
    push(2, 2.0)
    seen = watch.read(everything=True)
    assert seen.step == 1 and seen.broken


def test_watch_leaves_infinite_gradients_to_the_loss_scaler():
    for strict in (True, False):
        watch = LossWatch(lambda rows: rows, strict=strict)
        watch.push(0, {"loss": torch.tensor(1.0)}, torch.tensor(float("inf")), 0)
        assert watch.read(everything=True).broken is strict
