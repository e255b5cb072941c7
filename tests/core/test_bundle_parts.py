"""What bundles are made of and unpacked to: every bad input is one line, before hours are spent."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from packaging.requirements import Requirement
from toy import ToyTask, toy_config

from comp.core.bundle import Choices, halved, make_bundle
from comp.core.errors import InputError
from comp.core.manifest import Manifest, RunEntry, check_files, entry_of, read_manifest
from comp.core.notebook import check_name, dataset_metadata, kernel_metadata, notebook
from comp.core.unpack import check_space, find_sample, find_test, run, same_ids, unpack
from comp.core.wheels import bring_wheels, check_wheel
from comp.fwi.submission import LAYOUT
from comp.kernel import _weighted, in_one_line
from comp.tasks import task_class


def refused(*parts):
    """A context in which an InputError of one line with these parts is expected."""
    return pytest.raises(InputError, match="^" + "".join(f"(?=.*{part})" for part in parts) + ".*$")


@pytest.mark.parametrize("tags", ["py3-none-any", "cp312-cp312-manylinux_2_17_x86_64"])
def test_a_wheel_for_the_notebooks_python_passes(tags):
    check_wheel(Path(f"some-1.0-{tags}.whl"))
    check_wheel(Path("some-1.0-cp39-abi3-manylinux2014_x86_64.whl"))


@pytest.mark.parametrize(
    "tags", ["cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-macosx_11_0_arm64", "py2-none-any"]
)
def test_a_wheel_for_another_python_is_refused(tmp_path, tags):
    name = f"some_thing-1.0-{tags}.whl"
    (tmp_path / name).touch()
    with refused(name, tags, "3.12"):
        bring_wheels(["some-thing==1.0"], tmp_path / "out", tmp_path)


def test_wheels_are_named_exactly_and_found(tmp_path):
    with refused("some>=1", "exact"):
        bring_wheels(["some>=1"], tmp_path)
    with refused("nowhere", "no such folder"):
        bring_wheels(["some==1"], tmp_path, tmp_path / "nowhere")
    with refused("no wheel of some==1"):
        bring_wheels(["some==1"], tmp_path, tmp_path)


def test_the_pinned_wheels_are_those_that_the_project_takes():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    known = {need.name: need.specifier for need in map(Requirement, wanted)}
    for kind in ("fwi", "image"):
        for pin in task_class(kind).kernel_wheels:
            name, _, version = pin.partition("==")
            assert known[name].contains(version), pin


def test_half_precision_leaves_what_does_not_fit():
    assert halved(torch.ones(2)).dtype == torch.float16
    assert halved(torch.tensor([1e6])).dtype == torch.float32
    assert halved(torch.tensor([3])).dtype == torch.int64


@pytest.fixture
def bundle(tmp_path):
    """A folder with two files and their manifest."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a.weights").write_bytes(b"weights")
    (folder / "b.py").write_text("b")
    files = {"a.weights": entry_of(folder / "a.weights", "runs/a/weights")}
    files["b.py"] = entry_of(folder / "b.py")
    runs = (RunEntry(name="a", folds=(0,)),)
    manifest = Manifest(bundle="some-name", task="fwi", runs=runs, files=files)
    (folder / "manifest.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    return folder


def test_a_bundle_is_unpacked_as_links(tmp_path, bundle):
    manifest = read_manifest(bundle)
    for _ in range(2):  # a notebook may be run again
        unpack(bundle, manifest, tmp_path / "out")
    assert (tmp_path / "out/runs/a/weights").read_bytes() == b"weights"
    assert not (tmp_path / "out/b.py").exists()


def test_a_missing_or_damaged_file_is_named(bundle):
    manifest = read_manifest(bundle)
    (bundle / "a.weights").write_bytes(b"weightz")
    with refused("a.weights", "sha256"):
        check_files(bundle, manifest)
    (bundle / "a.weights").write_bytes(b"weight")
    with refused("a.weights: 6 bytes, expected 7"):
        check_files(bundle, manifest)
    (bundle / "a.weights").unlink()
    with refused("a.weights", "no such file"):
        check_files(bundle, manifest)
    (bundle / "manifest.json").write_text('{"bundle": "x", "runz": 1}')
    with refused("manifest.json"):
        read_manifest(bundle)


def test_inputs_are_found_by_what_they_are(tmp_path):
    deep = tmp_path / "competitions/waves"
    (deep / "parts/test").mkdir(parents=True)
    np.save(deep / "parts/test/a1.npy", np.zeros(1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sample_submission.csv").write_text("id,label\n")
    with refused("no sample submission", "oid_ypos", "other"):
        find_sample(tmp_path, LAYOUT)
    sample = deep / "sample_submission.csv"
    sample.write_text(",".join(LAYOUT.header) + "\n")
    assert find_sample(tmp_path, LAYOUT) == sample
    assert find_test([deep, tmp_path], ["a1.npy"], "a1") == deep / "parts/test"
    assert find_test([deep, tmp_path], ["test/a*.npy"], "a1") == deep / "parts"
    with refused("'b2'", "b2.npy"):
        find_test([deep, tmp_path], ["b2.npy"], "b2")


def test_other_ids_than_the_samples_are_named():
    test, sample = Path("test"), Path("sample.csv")
    same_ids(test, ["b", "a"], sample, ["a", "b"])
    with refused("test: 1 of 2 ids of sample.csv missing, first 'b'"):
        same_ids(test, ["a"], sample, ["a", "b"])
    with refused("sample.csv: 1 of 2 ids of test missing, first 'b'"):
        same_ids(test, ["a", "b"], sample, ["a"])


def test_too_little_space_is_said_before(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    needs = {tmp_path / "a": 2 * 10**9, tmp_path / "b": 10**9}
    check_space(needs, "all")
    with refused("3.00 GB free, expected 3.50 GB for all"):
        check_space({**needs, tmp_path / "b": 15 * 10**8}, "all")


def test_a_script_that_fails_says_its_own_line(tmp_path, capsys):
    script = "import sys; print('on its way'); sys.exit('error: a.npy: no such file')"
    with refused("^a.npy: no such file$"):
        run(["python3", "-c", script], tmp_path)
    assert "on its way" in capsys.readouterr().out


def test_a_notebook_ends_in_one_line():
    with pytest.raises(SystemExit, match="^error: a.npy: no such file$") as end, in_one_line():
        raise InputError("a.npy: no such file")
    assert end.value.__suppress_context__


@pytest.mark.parametrize("name", ["Fwi", "a", "a--bc-def", "a" * 41, "a_bcdef"])
def test_a_name_that_kaggle_refuses_is_refused(name):
    with refused("--name", name):
        check_name("--name", name)


def test_what_kaggle_wants_to_know():
    check_name("--name", "fwi-demo")
    assert dataset_metadata("me", "fwi-demo", "CC0-1.0") == {
        "title": "fwi demo",
        "id": "me/fwi-demo",
        "licenses": [{"name": "CC0-1.0"}],
    }
    kernel = kernel_metadata("me", "fwi-demo", "waves")
    assert kernel["id"].split("/")[1] == kernel["title"].replace(" ", "-")
    assert kernel["enable_internet"] is False and kernel["machine_shape"] == "NvidiaTeslaT4"
    assert kernel["dataset_sources"] == ["me/fwi-demo"] and kernel["competition_sources"] == [
        "waves"
    ]
    for cell in notebook("fwi-demo")["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), cell["id"], "exec")


class NoBest(ToyTask):
    ruled = False


def made(tmp_path, fold="fold_0", **how):
    config = toy_config(tmp_path)
    folder = tmp_path / "toy"
    (folder / fold).mkdir(parents=True, exist_ok=True)
    choices = Choices(name="toy-bundle", owner="me", **how)
    return make_bundle(tmp_path / "out", [(folder, config)], NoBest, choices)


def test_a_run_that_is_not_ready_is_refused(tmp_path):
    with refused("toy: no finished fold"):
        made(tmp_path)
    (tmp_path / "toy/fold_0/done.json").write_text("{}")
    with refused("fold_0/best.safetensors: no such file"):
        made(tmp_path)
    (tmp_path / "toy/fold_0/best.safetensors").touch()
    with refused("--weights: got 2, expected 1"):
        made(tmp_path, weights=[0.5, 0.5])
    with refused("rule.json: no rule is used here"):
        made(tmp_path, rule=Path("rule.json"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with refused("out: not empty"):
        made(tmp_path)


def test_weights_of_runs_that_came_too_late_are_shared_out(tmp_path):
    runs = [RunEntry(name="a", folds=(0, 1)), RunEntry(name="b", folds=("all",))]
    files = [[tmp_path / "a/fold_0.npy", tmp_path / "a/fold_1.npy"], [tmp_path / "b/fold_all.npy"]]
    every = [*files[0], *files[1]]
    assert _weighted(files, runs, None) == (every, None)
    assert _weighted(files, runs, [0.25, 0.25, 0.5]) == (every, [0.25, 0.25, 0.5])
    assert _weighted([files[0][1:], []], runs, [0.5, 0.1, 0.4]) == (files[0][1:], [1.0])
    assert _weighted([files[0], []], runs, [0.0, 0.0, 1.0]) == (files[0], None)
