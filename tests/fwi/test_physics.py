"""The loss on re-simulated records: what it measures, what it is drawn from, how it trains."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from comp.core.checkpoint import load_state
from comp.core.config import parse_config
from comp.core.errors import InputError
from comp.core.folds import write_folds
from comp.core.loading import to_device
from comp.core.predict import fold_folder
from comp.core.runs import read_log
from comp.core.trainer import Trainer, fit
from comp.fwi.config import FwiConfig, PhysicsConfig
from comp.fwi.describe import describe_folder
from comp.fwi.maps import generated_maps
from comp.fwi.physics import Part, draw_part, filtered, misfit_weight, waveform_misfit, within
from comp.fwi.simulated import write_training
from comp.fwi.survey import OFFICIAL
from comp.fwi.task import FwiTask
from comp.fwi.velocity import generate
from comp.fwi.wave import simulate

SHORT = replace(OFFICIAL, nt=120, pad=20)
SURVEYS = {"five": SHORT, "six": SHORT.with_six_shots()}


def maps(family="CurveVel_A", count=2):
    return torch.from_numpy(generate(family, count, 3))


# --- the misfit


@pytest.mark.parametrize("solver", ["sponge", "deepwave"])
def test_misfit_is_the_relative_distance_of_the_records(solver):
    truth = maps()
    record = simulate(truth, SHORT, solver)[:, :, :100]
    wrong = truth + torch.tensor([0.0, 60.0])[:, None, None]
    found = waveform_misfit(wrong, record, SHORT, solver)
    distance = simulate(wrong, SHORT, solver)[:, :, :100] - record
    expected = distance.flatten(1).norm(dim=1) / record.flatten(1).norm(dim=1)
    assert found.dtype == torch.float32 and found[0] < 2e-6 and found[1] > 0.01
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_gradient_leads_to_the_truth():
    truth = maps()
    record = simulate(truth, SHORT, "deepwave")
    start = (truth * 1.02).requires_grad_()
    waveform_misfit(start, record, SHORT, "deepwave").sum().backward()
    assert start.grad.isfinite().all()
    assert ((start.grad * (start - truth)).sum((1, 2)) > 0).all()
    exact = truth.clone().requires_grad_()
    waveform_misfit(exact, record, SHORT, "deepwave").sum().backward()
    assert exact.grad.isfinite().all()  # where the distance is nothing, too


@pytest.mark.parametrize(("hertz", "passed"), [(5.0, 2**-0.25), (10.0, 0.5), (20.0, 2**-4)])
def test_lowpass_halves_its_frequency(hertz, passed):
    time = torch.arange(1000) * OFFICIAL.dt
    wave = torch.sin(2 * math.pi * hertz * time)[:, None].expand(3, -1, 2)
    found = filtered(wave, 0.0, 10.0, OFFICIAL.dt)
    torch.testing.assert_close(found[:, 300:700], passed * wave[:, 300:700], atol=2e-3, rtol=0)


def test_lowpass_does_not_carry_the_end_to_the_start():
    record = torch.zeros(1, 500, 1)
    record[:, -50:] = 1
    found = filtered(record, 0.0, 10.0, OFFICIAL.dt)
    assert found[:, -30:].min() > 0.4 and found[:, :200].abs().max() < 1e-5


def test_taper_fades_the_end():
    found = filtered(torch.ones(1, 200, 2), 0.1, None, OFFICIAL.dt)
    assert (found[:, :180] == 1).all()
    assert (found[:, 180:].diff(dim=1) < 0).all()
    torch.testing.assert_close(found[0, [189, 199], 0], torch.tensor([0.5, 0.0]))


def test_the_misfit_is_taken_of_filtered_records():
    truth = maps()
    record = simulate(truth, SHORT, "deepwave")
    how = {"taper": 0.3, "lowpass": 8.0}
    found = waveform_misfit(truth + 60, record, SHORT, "deepwave", **how)
    residual = simulate(truth + 60, SHORT, "deepwave") - record
    norms = [filtered(x, 0.3, 8.0, SHORT.dt).flatten(1).norm(dim=1) for x in (residual, record)]
    torch.testing.assert_close(found, norms[0] / norms[1])


def test_mixed_precision_stays_out_of_the_solver():
    truth = maps()
    record = simulate(truth, SHORT, "deepwave")
    expected = waveform_misfit(truth + 30, record, SHORT, "deepwave")
    with torch.autocast("cpu", torch.bfloat16):
        found = waveform_misfit((truth + 30).double(), record, SHORT, "deepwave")
    assert torch.equal(found, expected)


def test_a_map_that_is_no_number_has_no_misfit_and_the_others_keep_theirs():
    truth = maps()
    record = simulate(truth, SHORT, "deepwave")
    broken = truth.clone()
    broken[0, 3, 3] = torch.nan
    found = waveform_misfit(broken, record, SHORT, "deepwave")
    assert found[0].isnan() and found[1] < 2e-6


def test_maps_outside_the_range_are_taken_from_its_bound():
    truth = maps(count=1).clamp(1800, 3000)
    survey = replace(SHORT, min_velocity=1800.0, max_velocity=3000.0)
    record = simulate(truth, survey, "deepwave")
    outside = truth.clone()
    outside[truth == 3000] += 2e5
    outside[truth == 1800] -= 2e5
    assert (outside != truth).any()
    assert waveform_misfit(outside, record, survey, "deepwave") < 2e-6


def test_gradient_outside_the_range_leads_back_in():
    x = torch.tensor([0.0, 0.0, 2.0, 5.0, 5.0, 1.0], requires_grad=True)
    y = within(x, 1, 3)
    assert y.tolist() == [1, 1, 2, 3, 3, 1]
    (y * torch.tensor([-1.0, 2.0, 3.0, 4.0, -5.0, 6.0])).sum().backward()
    assert x.grad.tolist() == [-1, 0, 3, 4, 0, 6]


# --- what is drawn, and the weight


def test_a_part_is_drawn_from_the_generator_alone():
    config = PhysicsConfig(weight=1.0, samples=0.3, shots=2, window=(0.25, 0.75))
    parts = [
        draw_part(8, config, OFFICIAL, torch.Generator().manual_seed(seed)) for seed in range(200)
    ]
    assert parts[7] == draw_part(8, config, OFFICIAL, torch.Generator().manual_seed(7))
    assert {part.samples for part in parts} == {3}
    assert {len(set(part.shots)) for part in parts} == {2}
    assert {shot for part in parts for shot in part.shots} == set(range(5))
    assert all(list(part.shots) == sorted(part.shots) for part in parts)
    rows = [part.rows for part in parts]
    assert 250 <= min(rows) < 270 and 730 < max(rows) <= 749


def test_everything_is_taken_by_default_but_the_last_row():
    config = PhysicsConfig(weight=1.0)
    part = draw_part(4, config, OFFICIAL, torch.Generator().manual_seed(0))
    assert part == Part(4, (0, 1, 2, 3, 4), 999)
    records = torch.arange(4 * 5 * 1000).view(4, 5, 1000, 1)
    assert torch.equal(part.cut(records), records[:, :, :-1])
    assert part.survey(OFFICIAL) == replace(OFFICIAL, nt=999)
    some = Part(2, (1, 4), 300)
    assert torch.equal(some.cut(records), records[:2, [1, 4], :300])
    assert some.survey(OFFICIAL) == replace(OFFICIAL, nt=300, source_columns=(17, 69))


def test_the_weight_comes_in_after_the_warmup():
    config = PhysicsConfig(weight=0.4, warmup=0.5, ramp=0.25)
    found = [misfit_weight(config, done) for done in (0, 0.49, 0.5, 0.625, 0.75, 1)]
    assert found == pytest.approx([0, 0, 0, 0.2, 0.4, 0.4])
    assert misfit_weight(PhysicsConfig(weight=0.4), 0.0) == 0.4


# --- in training


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A prepared folder for each survey, 12 samples, and its fold file."""
    found = {}
    for name, survey in SURVEYS.items():
        folder = tmp_path_factory.mktemp(name)
        write_training(folder, generated_maps(["FlatVel_A", "Style_A"], 6, 6, seed=0), survey)
        description = describe_folder(folder)
        write_folds(folder / "folds.csv", np.arange(12) % 3, description.grouped_by(None), {})
        found[name] = folder
    return found


def config_of(folder, root, **values):
    train = {"epochs": 2, "batch_size": 4, "log_every": 1, **values.pop("train", {})}
    model = {"encoder": "tu-mobilenetv3_small_100", "decoder": (8,) * 5, "input_size": (32, 64)}
    physics = {"weight": 0.5, "solver": "deepwave", **values.pop("physics", {})}
    plain = {"task": "fwi", "name": "run", "root": str(root), "loader": {"workers": 0}}
    data = {"folder": str(folder), "folds": str(folder / "folds.csv")}
    values = {**plain, "data": data, "train": train, "model": model, "physics": physics, **values}
    return parse_config(FwiConfig, values, "test")


def one_batch(task, rows, seed=0):
    batch = task.dataset(np.arange(12)).__getitems__(rows)
    return task.training_batch(to_device(batch, "cpu"), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("survey", SURVEYS)
@pytest.mark.parametrize("mirror", [0.0, 0.5, 1.0])
def test_the_true_map_has_no_misfit_however_the_sample_was_changed(
    places, tmp_path, survey, mirror
):
    """Mirrored with five shots, with noise and with gain, where the seen record is of no map."""
    augment = {"mirror": mirror, "noise": 0.5, "amplitude": 0.3}
    physics = {"samples": 0.6, "shots": 3, "window": (0.8, 1.0), "solver": "sponge"}
    task = FwiTask(config_of(places[survey], tmp_path, augment=augment, physics=physics))
    for seed in range(3):
        batch = one_batch(task, [0, 3, 7, 9], seed)
        assert len(batch["record"]) == 3 and batch["record"].shape[1] == 3
        terms = task.loss(batch["velocity"], batch, 0.0)
        assert terms["train_mae"] == 0
        assert terms["train_misfit"] < 2e-3  # half precision on the disk
        wrong = task.loss(batch["velocity"] * 0.98, batch, 0.0)["train_misfit"]
        assert wrong > 10 * terms["train_misfit"]


def test_without_labels_no_label_is_learned_from(places, tmp_path):
    task = FwiTask(config_of(places["five"], tmp_path, physics={"label_weight": 0.0}))
    batch = one_batch(task, [0, 7])
    gradients = []
    for shift in (0, 500):
        output = (batch["velocity"] * 0.98).requires_grad_()
        terms = task.loss(output, {**batch, "velocity": batch["velocity"] + shift}, 0.0)
        terms["loss"].backward()
        assert terms["loss"] == 0.5 * terms["train_misfit"]
        gradients.append(output.grad)
    assert torch.equal(*gradients) and gradients[0].norm() > 0


def test_the_misfit_stays_out_until_the_warmup_is_over(places, tmp_path):
    task = FwiTask(config_of(places["five"], tmp_path, physics={"warmup": 0.5}))
    batch = one_batch(task, [0, 7])
    early, late = (task.loss(batch["velocity"] + 50, batch, done) for done in (0.49, 0.5))
    assert early.keys() == {"loss", "train_mae"}
    assert late["loss"] == early["loss"] + 0.5 * late["train_misfit"]


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(places, tmp_path, monkeypatch):
    """Warm-up, mirror and every draw of the part included."""
    physics = {"warmup": 0.2, "ramp": 0.3, "samples": 0.5, "shots": 2, "window": (0.4, 1.0)}
    physics |= {"valid_samples": 2, "taper": 0.1, "lowpass": 20.0}
    train = {"checkpoint_every": 1, "epochs": 3}

    def task(name):
        return FwiTask(config_of(places["five"], tmp_path / name, physics=physics, train=train))

    step = Trainer.train_step

    def dies(self, feed):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, feed)

    for name in ("whole", "killed"):
        if name == "killed":
            monkeypatch.setattr(Trainer, "train_step", dies)
            with pytest.raises(KeyboardInterrupt):
                fit(task(name), 0, tmp_path / name / "run")
            monkeypatch.setattr(Trainer, "train_step", step)
        fit(task(name), 0, tmp_path / name / "run")
    folders = [fold_folder(tmp_path / name / "run", 0) for name in ("whole", "killed")]
    whole, killed = (load_state(folder / "final.safetensors")["model"] for folder in folders)
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    logs = [[{**e, "samples_per_s": 0} for e in read_log(f / "log.jsonl")] for f in folders]
    assert logs[0] == logs[1]
    assert ["train_misfit" in e for e in logs[0] if "loss" in e] == [False] * 2 + [True] * 4
    assert all(0 < e["valid/misfit"] < 10 for e in logs[0] if "valid/mae" in e)


def test_records_alone_teach_the_velocity(places, tmp_path):
    """Without a label, maps come closer to the truth where the waves have been."""
    physics = {"label_weight": 0.0, "weight": 1.0, "shots": 2}
    values = {"physics": physics, "augment": {"mirror": 0.0}, "limit": 4, "optim": {"lr": 5e-3}}
    values |= {"schedule": {"warmup": 0.0}, "train": {"epochs": 12}}
    config = config_of(places["five"], tmp_path, **values)
    task = FwiTask(config)
    trainer = Trainer(task, "all", fold_folder(config.folder, "all"))
    batch = task.plain_batch(task.dataset(trainer.train_rows).__getitems__([0, 1, 2, 3]))

    def shallow_error():
        with torch.inference_mode():
            return (trainer.plain(batch["shots"]) - batch["velocity"])[:, :, :12].abs().mean()

    before = shallow_error()
    trainer.fit()
    log = read_log(trainer.folder / "log.jsonl")
    assert log[-1]["train_misfit"] < 0.5 * log[0]["train_misfit"]
    assert shallow_error() < 0.5 * before


def test_validation_reports_the_misfit_of_so_many_maps(places, tmp_path):
    task = FwiTask(config_of(places["six"], tmp_path, physics={"weight": 0.0, "valid_samples": 2}))
    rows = np.flatnonzero(task.folds() == 1)
    batch = task.plain_batch(to_device(task.dataset(rows).__getitems__([0, 1, 2, 3]), "cpu"))
    with torch.inference_mode():
        predictions = task.predictions(batch["velocity"] * 0.97)
        scores = {k: v.numpy() for k, v in task.score_samples(predictions, batch).items()}
    assert np.isfinite(scores["misfit"]).tolist() == [True, False, False, True]
    found = task.metrics(scores, rows)
    expected = waveform_misfit(predictions[[0, 3]], batch["shots"][[0, 3], :, :-1], SHORT)
    assert found["misfit"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert found.keys() == {"mae", "misfit", "mae/FlatVel_A", "mae/Style_A"}
    plain = FwiTask(config_of(places["six"], tmp_path, physics={"weight": 0.0}))
    assert plain.score_samples(predictions, batch).keys() == {"error"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"physics": {"window": (0.9, 0.5)}}, "'physics.window'.*ascending"),
        ({"physics": {"window": (0.0, 0.5)}}, "'physics.window'.*above 0"),
        ({"physics": {"shots": 6}}, "'physics.shots'.*less than or equal to 5"),
        ({"physics": {"solver": "exact"}}, "'physics.solver'.*'sponge' or 'deepwave'"),
        ({"physics": {"label_weight": 0, "weight": 0}}, "'physics.label_weight'.*no loss"),
        ({"physics": {"label_weight": 0, "warmup": 0.1}}, "'physics.warmup': got 0.1.*takes 0"),
        ({"physics": {"label_weight": 0, "ramp": 0.1}}, "'physics.ramp'.*takes 0"),
        ({"augment": {"mixup": 0.4}}, "'physics'.*augment.mixup"),
    ],
)
def test_settings_that_do_not_go_together_are_named(tmp_path, values, message):
    with pytest.raises(InputError, match=message) as caught:
        config_of(tmp_path, tmp_path, **values)
    assert "\n" not in str(caught.value)
