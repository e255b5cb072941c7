"""Configs: each mistake is one line that names the key, what it got and what it takes."""

from pathlib import Path
from typing import Literal

import pytest
import yaml
from conftest import ROOT
from pydantic import Field

from comp.core.config import (
    Section,
    by_name,
    config_differences,
    dump_config,
    parse_config,
    read_yaml,
)
from comp.core.errors import InputError
from comp.core.keys import config_keys
from comp.core.runs import open_run
from comp.tasks import load_config

SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))
SMALL = """
task: fwi
name: small
data: {folder: data/x, folds: data/x/folds.csv}
train: {epochs: 3}
"""


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_configs_are_shipped():
    names = {f"{path.parent.name}/{path.stem}" for path in SHIPPED}
    backbones = "efficientnet_b0 efficientnet_b4 seresnext50_32x4d convnext_tiny hgnetv2_b2"
    networks = {"hgnet_b2", "convnext_small", "caformer_b36", "vit_base", "eva02_base"}
    assert {f"fwi/{name}" for name in {"demo", "openfwi", *networks}} <= names
    image = {"demo", "plant_pathology", "bengali", *backbones.split()}
    assert {f"image/{name}" for name in image} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_config_parses_and_opens_with_its_command(path):
    config = load_config(path)
    head = path.read_text().splitlines()[:12]
    assert all(line.startswith("#") for line in head[:3])
    assert any("scripts/train.py --config" in line for line in head), (
        "a config opens with its command"
    )
    assert str(path.relative_to(ROOT)) in path.read_text()
    assert config.name


def test_overrides_reach_nested_keys(small):
    config = load_config(small, ["train.epochs=7", "optim.lr=1e-4", "folds=[1, all]", "limit=null"])
    assert config.train.epochs == 7 and config.optim.lr == 1e-4 and config.folds == (1, "all")
    assert load_config(small).train.epochs == 3


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epoch=7", ["'train.epoch'", "'train.epochs'"]),
        ("trian.epochs=7", ["'trian'", "'train'"]),
        ("optim.lrr=7", ["'optim.lrr'", "'optim.lr'"]),
        ("train.epochs=ten", ["'train.epochs'", "'ten'", "integer", "passes over"]),
        ("train.epochs=0", ["'train.epochs'", "got 0", "greater than or equal to 1"]),
        ("train.precision=fp8", ["'train.precision'", "'fp8'", "'fp32', 'fp16' or 'bf16'"]),
        ("optim.lr=-1", ["'optim.lr'", "greater than 0"]),
        ("train=5", ["'train'", "got 5"]),
        ("folds=[x]", ["'folds'", "'x'"]),
        ("name=a/b", ["'name'", "'a/b'"]),
        ("data.folder=null", ["'data.folder'", "None"]),
        ("task=chess", ["'chess'", "fwi"]),
        ("train.epochs", ["train.epochs", "expected key=value"]),
        ("train.epochs=[1", ["not a YAML value"]),
    ],
)
def test_a_mistake_is_one_line_naming_the_key(small, override, parts):
    with pytest.raises(InputError) as caught:
        load_config(small, [override])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n- b\n", "list at the top"),
        ("task: fwi\ntask: fwi\n", "'task' stands twice"),
        ("task: [", "not valid YAML"),
        ("name: x\n", "key 'task'"),
        ("task: fwi\nname: x\n", "'data'"),
    ],
)
def test_broken_files(tmp_path, text, part):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=part.replace("'", ".")) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Sized(Section):
    name: str
    size: tuple[int, int]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "size": [3]}, "key 'size': got [3]; takes 2 values"),
        ({"name": "a", "size": []}, "key 'size': got []; takes 2 values"),
        (
            {"name": "a", "size": [3, 4, 5]},
            "key 'size': got [3, 4, 5]; tuple should have at most 2",
        ),
        ({"name": "a"}, "key 'size' is missing"),
        ({"size": []}, "key 'name' is missing"),
    ],
)
def test_a_tuple_of_the_wrong_length_is_not_a_missing_key(values, message):
    with pytest.raises(InputError) as caught:
        parse_config(Sized, values, "a.yaml")
    assert str(caught.value).startswith(f"a.yaml: {message}")


class Circle(Section):
    name: Literal["circle"] = Field("circle", description="shape")
    radius: float = Field(1.0, gt=0, description="half its width")


class Box(Section):
    name: Literal["box"] = Field("box", description="shape")
    sides: tuple[int, int] = (1, 1)


class Drawing(Section):
    shape: by_name(Circle, Box) = Circle()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, Circle()),
        ({"radius": 2}, Circle(radius=2)),
        ({"name": "box", "sides": [3, 4]}, Box(sides=(3, 4))),
    ],
)
def test_a_section_is_chosen_by_its_name(shape, expected):
    drawing = parse_config(Drawing, {"shape": shape}, "a.yaml")
    assert drawing.shape == expected
    assert parse_config(Drawing, dump_config(drawing), "a.yaml") == drawing
    assert {"shape.radius", "shape.sides", "shape.name"} <= config_keys(Drawing).keys()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "ring"}, "key 'shape.name': got 'ring'; takes one of 'circle', 'box'"),
        ({"name": None}, "key 'shape.name': got None; takes one of 'circle', 'box'"),
        ({"sides": [1, 1]}, "unknown key 'shape.sides'; the nearest valid key is 'shape.radius'"),
        ({"name": "box", "side": 1}, "unknown key 'shape.side'; the nearest valid key is"),
        ({"name": "box", "sides": [1]}, "key 'shape.sides': got [1]; takes 2 values"),
        ({"radius": 0}, "key 'shape.radius': got 0; takes greater than 0 (half its width)"),
        (5, "key 'shape': got 5"),
    ],
)
def test_a_mistake_in_a_chosen_section_names_its_keys(shape, message):
    with pytest.raises(InputError) as caught:
        parse_config(Drawing, {"shape": shape}, "a.yaml")
    assert str(caught.value).startswith(f"a.yaml: {message}") and "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="nothere.yaml"):
        load_config(tmp_path / "nothere.yaml")


def test_every_key_says_what_it_is():
    from comp.fwi.config import FwiConfig

    sections = {"loader", "optim", "schedule", "train", "data", "augment", "model"}
    sections |= {"physics", "online"}
    bare = [k for k, meaning in config_keys(FwiConfig).items() if not meaning and k not in sections]
    assert not bare


def test_resolved_config_repeats_the_run(small, tmp_path):
    config = load_config(small, [f"root={tmp_path / 'runs'}", "train.clip=null", "folds=[0,all]"])
    run = open_run(config)
    assert load_config(run / "config.yaml") == config
    versions = read_yaml(run / "versions.json")
    assert {"commit", "python", "torch", "comp"} <= versions.keys()
    open_run(config)
    with pytest.raises(InputError, match=r"optim.lr: 0.001 → 0.1") as caught:
        open_run(load_config(run / "config.yaml", ["optim.lr=0.1"]))
    assert str(run / "config.yaml") in str(caught.value)


def test_a_run_from_before_a_key_came_counts_it_as_its_default(small, tmp_path):
    config = load_config(small, [f"root={tmp_path}"])
    saved = open_run(config) / "config.yaml"
    older = read_yaml(saved)
    del older["train"]["early_stop"], older["optim"]["layer_decay"]
    saved.write_text(yaml.safe_dump(older))
    open_run(config)
    with pytest.raises(InputError, match=r"train.early_stop: None → 3"):
        open_run(load_config(small, [f"root={tmp_path}", "train.early_stop=3"]))


def test_runtime_settings_are_no_difference(small):
    old = dump_config(load_config(small))
    new = dump_config(load_config(small, ["loader.workers=0", "train.log_every=1", "folds=[3]"]))
    assert config_differences(old, new) == []
    new = dump_config(load_config(small, ["train.batch_size=7"]))
    assert config_differences(old, new) == ["train.batch_size: 32 → 7"]
