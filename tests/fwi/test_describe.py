"""The description of FWI samples, from a prepared folder to balanced folds."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from comp.core.errors import InputError
from comp.core.folds import read_folds
from comp.core.stratify import PACKAGE, make_folds
from comp.fwi.describe import BINS, CHUNK, describe_folder
from comp.fwi.shard_writer import Shard, write_shards
from comp.fwi.survey import Survey

SURVEY = Survey(ny=4, nx=3, nt=2, source_columns=(0,), receiver_columns=(0, 1))


def shard(family, number, maps, group="file"):
    records = np.tile(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), (len(maps), 1, 1, 1))
    name = f"{family}_{number}"
    source = f"{family}/data/data{number}.npy"
    chunks = [(records, maps.astype(np.float32))]
    return Shard(name, family, source, group, len(maps), {}, (source, source), lambda: chunks)


def random_maps(n, seed, spread=300):
    """Maps (n, 4, 3) of velocities around a level of their own, m/s."""
    rng = np.random.default_rng(seed)
    return rng.uniform(1800, 4000, (n, 1, 1)) + rng.uniform(-spread, spread, (n, 4, 3))


@pytest.fixture
def folder(tmp_path):
    """Three families, ten source files of unlike sizes, more samples than are read at once."""
    sizes = {"FlatVel_A": [200, 180, 190, 200], "Style_A": [60, 70, 65], "CurveVel_B": [30, 20, 25]}
    shards = [
        shard(family, i, random_maps(n, [f, i]))
        for f, (family, counts) in enumerate(sizes.items())
        for i, n in enumerate(counts)
    ]
    assert sum(s.rows for s in shards) > 2 * CHUNK
    write_shards(tmp_path / "data", SURVEY, shards)
    return tmp_path / "data"


def test_every_sample_has_a_family_and_a_bin_of_each_measure(folder):
    samples = describe_folder(folder)
    assert samples.labels.dtype == np.uint8
    assert samples.labels.shape == (1040, 3 + 2 * BINS)
    np.testing.assert_array_equal(samples.labels.sum(axis=1), 3)
    families = np.array(samples.names[:3])[samples.labels[:, :3].argmax(axis=1)]
    np.testing.assert_array_equal(families, samples.table["family"])
    np.testing.assert_array_equal(samples.labels[:, 3:].sum(axis=0), 1040 // BINS)


def test_measures_and_their_bins(tmp_path):
    # Map i of ten: velocity 2000 + 100·i on average, rising by 10·i a cell of 10 m.
    depth = np.arange(4).reshape(1, 4, 1) - 1.5
    i = np.arange(10).reshape(10, 1, 1)
    maps = np.broadcast_to(2000 + 100 * i + 10 * i * depth, (10, 4, 3))
    write_shards(tmp_path, SURVEY, [shard("FlatVel_A", 1, maps)])
    samples = describe_folder(tmp_path)
    np.testing.assert_array_equal(samples.table["mean_velocity"], 2000 + 100 * np.arange(10))
    np.testing.assert_array_equal(samples.table["roughness"], np.arange(10))
    assert samples.names[1] == "mean velocity bin 1, 2000-2180 m/s"
    assert samples.names[-1] == "roughness bin 5, 7.20-9.00 1/s"
    for first in (1, 1 + BINS):
        bins = samples.labels[:, first : first + BINS].argmax(axis=1)
        np.testing.assert_array_equal(bins, np.arange(10) // 2)


def test_equal_maps_and_lone_samples_need_no_bins(tmp_path):
    flat = np.full((3, 4, 3), 3000.0)
    write_shards(tmp_path, SURVEY, [shard("FlatVel_A", 1, flat), shard("Style_B", 1, flat[:1])])
    samples = describe_folder(tmp_path)
    np.testing.assert_array_equal(samples.labels, [[1, 0, 1, 1]] * 3 + [[0, 1, 1, 1]])


def test_groups_are_source_files_or_single_samples(tmp_path):
    maps = random_maps(2, 0)
    write_shards(tmp_path, SURVEY, [shard("Style_A", 1, maps), shard("Style_B", 1, maps, "sample")])
    source = "Style_A/data/data1.npy"
    groups = [source, source, "Style_B_1_0000", "Style_B_1_0001"]
    assert list(describe_folder(tmp_path).groups) == groups


def test_folds_keep_the_proportions_of_families(folder):
    samples = describe_folder(folder)
    families = samples.table["family"].to_numpy()
    folds = make_folds(samples.labels, samples.ids, 5, seed=0)
    for family in np.unique(families):
        wanted = (families == family).sum() / 5
        counts = np.bincount(folds[families == family])
        assert np.abs(counts - wanted).max() < 2


def test_folds_never_part_a_source_file(folder):
    samples = describe_folder(folder)
    folds = make_folds(samples.labels, samples.groups, 3, seed=0)
    families = samples.table["family"].to_numpy()
    for fold in range(3):
        others = set(samples.groups[folds != fold])
        assert not others & set(samples.groups[folds == fold])
        assert set(families[folds == fold]) == set(families)  # three files or more a family


def test_not_a_prepared_folder(tmp_path):
    with pytest.raises(InputError, match=r"index\.json"):
        describe_folder(tmp_path)


@pytest.fixture
def make_folds_script(monkeypatch, capsys):
    """Runs scripts/make_folds.py; returns its exit code, standard output and last error line."""

    def run(*arguments):
        script = Path(__file__).parents[2] / "scripts" / "make_folds.py"
        monkeypatch.setattr(sys, "argv", ["make_folds.py", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()[-1]

    return run


def test_script_writes_the_file_and_shows_the_balance(make_folds_script, folder):
    code, out, _ = make_folds_script("--data", folder, "--folds", 4, "--seed", 3)
    assert code == 0
    samples = describe_folder(folder)
    folds = read_folds(folder / "folds.csv", samples.ids)
    np.testing.assert_array_equal(folds, make_folds(samples.labels, samples.groups, 4, 3))
    header = (folder / "folds.csv").read_text().split("id,fold,group")[0].splitlines()
    command = next(line for line in header if line.startswith("# command: "))
    assert command.endswith(f"scripts/make_folds.py --data {folder} --folds 4 --seed 3")
    assert f"# package: {PACKAGE}" in header
    assert {"# folds: 4", "# seed: 3", "# group: source", "# samples: 1040"} < set(header)
    table = [line.split() for line in out.splitlines() if not line.startswith("warning")]
    assert ["CurveVel_B", "75", "7.2"] in [row[:3] for row in table]  # samples, percent of all
    # Three files in four folds: the fold that goes without is named.
    assert "warning: CurveVel_B: 75 samples in 3 groups: never validated in fold" in out


def test_script_cuts_a_single_split_and_draws_it(make_folds_script, folder, tmp_path):
    out, picture = tmp_path / "split.csv", tmp_path / "split.png"
    arguments = ("--valid-fraction", 0.1, "--group", "none", "--out", out, "--picture", picture)
    code, said, _ = make_folds_script("--data", folder, *arguments)
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert said.splitlines()[-2:] == [
        f"wrote {picture}",
        f"wrote {out}: 1040 samples, grouped by nothing",
    ]
    folds = read_folds(out, describe_folder(folder).ids)
    assert set(folds) == {-1, 0}
    assert abs((folds == 0).mean() - 0.1) < 0.01
    assert "# valid: 0.1" in out.read_text()


def test_script_ends_with_one_line_on_bad_input(make_folds_script, folder):
    code, _, error = make_folds_script("--data", folder, "--group", "site")
    assert code == 2
    assert error.startswith("error: group: no column 'site', expected one of family, source")
    assert not (folder / "folds.csv").exists()
