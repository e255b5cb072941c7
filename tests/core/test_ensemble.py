"""Mean, median and weights of small prediction files, against NumPy and brute force."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cli import SCRIPTS, disk_full_at, run
from scipy.optimize import linprog

from comp.core import aligned
from comp.core.ensemble import combine, reduce_stack
from comp.core.errors import InputError
from comp.core.files import new_npy
from comp.core.predictions import load_predictions, save_predictions, write_ids
from comp.core.recipe import fingerprint
from comp.core.weights import fit_weights, least_absolute

IDS = [f"s{i}" for i in range(7)]
SHAPE = (4, 3)


def save(path, ids, values, **columns):
    save_predictions(path, pd.DataFrame({"id": ids, **columns}), values.astype(np.float32))
    return path


@pytest.fixture
def values():
    return np.random.default_rng(0).uniform(1500, 4500, (4, 7, *SHAPE)).astype(np.float32)


@pytest.fixture
def files(tmp_path, values):
    return [save(tmp_path / f"{i}.npy", IDS, v) for i, v in enumerate(values)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(aligned, "_CHUNK_VALUES", 3 * 2 * 12)  # two samples of three files


@pytest.mark.parametrize("count", [1, 3, 4])
def test_mean_median_weighted_equal_numpy(tmp_path, files, values, count):
    weights = np.arange(1, count + 1) / np.arange(1, count + 1).sum()
    expected = {
        "mean": values[:count].mean(0, dtype=np.float64),
        "median": np.median(values[:count], axis=0),
        "weighted": np.average(values[:count].astype(np.float64), axis=0, weights=weights),
    }
    for method, result in expected.items():
        combine(files[:count], tmp_path / "out.npy", method, weights)
        found = load_predictions(tmp_path / "out.npy")
        assert found.ids.tolist() == IDS and found.values.dtype == np.float32
        np.testing.assert_allclose(found.values, result, rtol=1e-6)


def test_another_order_is_aligned_and_noted(tmp_path, files, values, capsys):
    order = np.random.default_rng(1).permutation(7)
    other = save(tmp_path / "other.npy", np.array(IDS)[order], values[1][order])
    combine([files[0], other], tmp_path / "out.npy")
    np.testing.assert_allclose(
        load_predictions(tmp_path / "out.npy").values, values[:2].mean(0), rtol=1e-6
    )
    assert f"note: {other}: another order of ids" in capsys.readouterr().out


def test_the_first_table_is_carried_along(tmp_path, values):
    a = save(tmp_path / "a.npy", IDS, values[0], fold=[0, 1, 2, 0, 1, 2, 0], family=["F"] * 7)
    b = save(tmp_path / "b.npy", IDS, values[1], fold=[2, 1, 0, 2, 1, 0, 2])
    combine([a, b], tmp_path / "out.npy")
    assert load_predictions(tmp_path / "out.npy").table.equals(load_predictions(a).table)


@pytest.mark.parametrize(
    ("ids", "shape", "columns", "message"),
    [
        (IDS[:-1], SHAPE, {}, "1 of 7 ids missing, first 's6'"),
        ([*IDS, "s7"], SHAPE, {}, "id 's7' is unknown to .*0.npy"),
        (IDS, (3, 4), {}, r"sample shape \(3, 4\), expected \(4, 3\) as in .*0.npy"),
        (IDS, SHAPE, {"fold": 0}, "one is out-of-fold and the other is not"),
    ],
)
def test_files_that_do_not_agree_are_refused(tmp_path, files, ids, shape, columns, message):
    other = save(tmp_path / "other.npy", ids, np.zeros((len(ids), *shape)), **columns)
    with pytest.raises(InputError, match=message):
        combine([files[0], other], tmp_path / "out.npy")
    assert not list(tmp_path.glob("out*"))


def test_doubled_ids_are_refused(tmp_path, files):
    table = tmp_path / "1.ids.csv"
    table.write_text(table.read_text().replace("s3", "s2"))
    with pytest.raises(InputError, match="1.ids.csv: id 's2' in row 3 stands there twice"):
        combine(files[:2], tmp_path / "out.npy")


@pytest.mark.parametrize("method", ["mean", "median", "weighted"])
def test_nan_is_refused_naming_file_and_id(tmp_path, files, values, method):
    values[1][5, 2, 2] = np.nan
    save(files[1], IDS, values[1])
    with pytest.raises(InputError, match="1.npy: id 's5' holds NaN"):
        combine(files[:3], tmp_path / "out.npy", method, [0.2, 0.3, 0.5])
    assert not list(tmp_path.glob("out*"))


def test_rounded_weights_leave_probabilities_at_most_one(tmp_path):
    sure = [save(tmp_path / f"{i}.npy", IDS, np.ones((7, *SHAPE))) for i in range(3)]
    combine(sure, tmp_path / "out.npy", "weighted", [0.3333335] * 3)
    np.testing.assert_array_equal(load_predictions(tmp_path / "out.npy").values, 1)


@pytest.mark.parametrize("weights", [None, [1.0], [0.5, 0.6], [1.5, -0.5], [np.nan, 1.0]])
def test_bad_weights_are_refused(tmp_path, files, weights):
    with pytest.raises(InputError, match="weights"):
        combine(files[:2], tmp_path / "out.npy", "weighted", weights)


@pytest.fixture
def out_of_fold(tmp_path, values):
    """Truth, and three out-of-fold files with errors of different size and sign."""
    rng = np.random.default_rng(2)
    errors = [(60, 10), (90, -50), (300, 0)]
    fold = {"fold": np.arange(7) % 2}
    paths = [
        save(
            tmp_path / f"oof{i}.npy",
            IDS,
            values[0] + bias + rng.laplace(0, size, (7, *SHAPE)),
            **fold,
        )
        for i, (size, bias) in enumerate(errors)
    ]
    return paths, save(tmp_path / "truth.npy", IDS, values[0])


def test_fitted_weights_are_the_best_of_a_fine_grid(out_of_fold):
    paths, truth = out_of_fold
    stack = np.stack([load_predictions(path).values for path in paths]).reshape(3, -1)
    target = load_predictions(truth).values.ravel()

    def mae(weights):
        return np.abs(weights @ stack - target).mean()

    weights = fit_weights(paths, truth)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
    pairs = itertools.product(range(101), repeat=2)
    best = min(mae(np.array([a, b, 100 - a - b]) / 100) for a, b in pairs if a + b <= 100)
    assert mae(weights) <= best < mae(weights) + 0.1
    assert mae(weights) < min(mae(single) for single in np.eye(3)) - 1


def test_weights_of_least_squares_are_the_best_of_a_fine_grid(out_of_fold):
    paths, truth = out_of_fold
    stack = np.stack([load_predictions(path).values for path in paths]).reshape(3, -1)
    target = load_predictions(truth).values.ravel()

    def square(weights):
        return np.square(weights @ stack.astype(np.float64) - target).mean()

    weights = fit_weights(paths, truth, "squared")
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
    pairs = itertools.product(range(101), repeat=2)
    best = min(square(np.array([a, b, 100 - a - b]) / 100) for a, b in pairs if a + b <= 100)
    assert square(weights) <= best < square(weights) * 1.001
    assert np.abs(weights - fit_weights(paths, truth)).max() > 0.01


def test_probabilities_take_weights_by_squares(tmp_path):
    # A coin's chances, and the same driven to the ends: nearer in sum, further from the truth.
    rng = np.random.default_rng(0)
    chance = np.where(rng.random((40, 500)) < 0.5, 0.3, 0.7)
    truth = save(tmp_path / "t.npy", range(40), rng.random((40, 500)) < chance)
    files = {"true": chance, "sharp": np.round(chance)}
    paths = [save(tmp_path / f"{k}.npy", range(40), v, fold=0) for k, v in files.items()]
    assert fit_weights(paths, truth, "absolute")[1] > 0.99
    assert fit_weights(paths, truth, "squared")[0] > 0.95


@pytest.mark.parametrize("error", ["absolute", "squared"])
def test_a_useless_file_gets_no_weight(tmp_path, out_of_fold, error):
    (good, *_), truth = out_of_fold
    fold = {"fold": np.zeros(7, int)}
    exact = save(tmp_path / "exact.npy", IDS, load_predictions(truth).values, **fold)
    np.testing.assert_allclose(fit_weights([good, exact], truth, error), [0, 1], atol=1e-7)


def test_weights_do_not_depend_on_order_of_ids_or_more_truth(tmp_path, out_of_fold, values):
    paths, truth = out_of_fold
    expected = fit_weights(paths, truth)
    order = np.random.default_rng(3).permutation(7)
    more = np.concatenate([values[0][order], values[3]])
    wide = save(tmp_path / "wide.npy", [*np.array(IDS)[order], *(f"t{i}" for i in range(7))], more)
    file = load_predictions(paths[1])
    turned = save(tmp_path / "turned.npy", file.ids[order], file.values[order], fold=0)
    np.testing.assert_allclose(fit_weights([paths[0], turned, paths[2]], wide), expected, atol=1e-9)


def test_the_draw_is_seeded(out_of_fold):
    paths, truth = out_of_fold
    first, again, other = (fit_weights(paths, truth, values=20, seed=s) for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_weights_are_fitted_on_out_of_fold_files_only(tmp_path, out_of_fold, files):
    paths, truth = out_of_fold
    with pytest.raises(InputError, match="0.npy: no column 'fold' in its id table"):
        fit_weights(files[:2], truth)
    with pytest.raises(InputError, match="one is out-of-fold and the other is not"):
        fit_weights([paths[0], files[1]], truth)
    short = save(tmp_path / "short.npy", IDS[:3], np.zeros((3, *SHAPE)))
    with pytest.raises(InputError, match="short.npy: 4 of 7 ids missing, first 's3'"):
        fit_weights(paths, short)


def test_script_fits_weights_and_combines(tmp_path, files, values, out_of_fold, capsys):
    paths, truth = out_of_fold
    out = tmp_path / "out.npy"
    weighted = ["--predictions", *files[:3], "--method", "weighted", "--out", out]
    assert run("ensemble.py", *weighted, "--oof", *paths, "--truth", truth) == 0
    weights = fit_weights(paths, truth)
    assert f"{weights[0]:.4f}  {files[0]}" in capsys.readouterr().out
    expected = np.tensordot(weights, values[:3], axes=1)
    np.testing.assert_allclose(load_predictions(out).values, expected, rtol=1e-6)
    assert run("ensemble.py", *weighted, "--weights", "0.5", "0.25", "0.25") == 0
    expected = np.tensordot([0.5, 0.25, 0.25], values[:3], axes=1)
    np.testing.assert_allclose(load_predictions(out).values, expected, rtol=1e-6)


@pytest.mark.parametrize("given", [["oof"], ["truth"], [], ["oof", "truth", "weights"]])
def test_script_refuses_half_of_what_weights_need(tmp_path, files, out_of_fold, capsys, given):
    paths, truth = out_of_fold
    options = {"oof": ["--oof", *paths], "truth": ["--truth", truth], "weights": ["--weights", 1]}
    chosen = [word for name in given for word in options[name]]
    weighted = ["--predictions", *files[:3], "--method", "weighted", *chosen]
    assert run("ensemble.py", *weighted, "--out", tmp_path / "out.npy") == 2
    assert "give either --weights or both" in capsys.readouterr().err


def test_a_mean_is_made_without_torch(tmp_path):
    """It takes several seconds to import."""
    path = save(tmp_path / "a.npy", ["a"], np.zeros((1, 2, 2)))
    code = f"""if True:
        import runpy, sys
        sys.argv[0] = {str(SCRIPTS / "ensemble.py")!r}
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit("torch" in sys.modules)
    """
    arguments = ["--predictions", path, path, "--out", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert load_predictions(tmp_path / "out.npy").ids == ["a"]


def test_a_full_disk_leaves_nothing(tmp_path, capsys):
    path, out = save(tmp_path / "big.npy", ["a"], np.zeros((1, 1024, 1024))), tmp_path / "out.npy"
    with disk_full_at(1 << 20):
        assert run("ensemble.py", "--predictions", path, "--out", out) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {out}: not written")
    assert not list(tmp_path.glob("out*"))


def test_memory_does_not_grow_with_the_files(tmp_path):
    """Four files of 118 MB into a fifth: mapped pages count as resident unless they are dropped."""
    samples = 6000
    with new_npy(tmp_path / "a.npy", (samples, 70, 70), np.float32):
        pass
    write_ids(tmp_path / "a.npy", pd.DataFrame({"id": np.arange(samples)}))
    code = """if True:
        import sys
        from pathlib import Path
        from comp.core.ensemble import combine, reduce_stack

        def peak():  # of this process, MiB
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

        before = peak()
        combine(sys.argv[1:2] * 4, sys.argv[2])
        print(peak() - before)
    """
    command = [sys.executable, "-c", code, tmp_path / "a.npy", tmp_path / "out.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150


def test_weighted_median_equals_brute_force(tmp_path, files, values):
    """The value at which the sorted weights reach a half; the midpoint where they meet it."""
    for weights in ([0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]):
        combine(files, tmp_path / "out.npy", "weighted-median", weights)
        flat, expected = values.reshape(4, -1), []
        for column in flat.T:
            order = np.argsort(column)
            below = np.cumsum(np.array(weights)[order])
            low = column[order][np.argmax(below >= 0.5 - 1e-9)]
            high = column[order][np.argmax(below > 0.5 + 1e-9)]
            expected.append((low + high) / 2)
        found = load_predictions(tmp_path / "out.npy").values.ravel()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 16, 33])
def test_the_median_of_any_number_of_files_is_numpys(count):
    stack = np.random.default_rng(count).normal(size=(count, 3, 300)).astype(np.float32)
    stack[0, 0, :9] = stack[-1, 0, :9]  # equal values
    np.testing.assert_array_equal(reduce_stack(stack, "median"), np.median(stack, axis=0))


def test_float16_files_are_combined_in_single_precision(tmp_path, values):
    paths = []
    for number, value in enumerate(values[:3]):
        paths.append(tmp_path / f"half{number}.npy")
        save_predictions(paths[-1], pd.DataFrame({"id": IDS}), value.astype(np.float16))
    combine(paths, tmp_path / "out.npy")
    found = load_predictions(tmp_path / "out.npy").values
    assert found.dtype == np.float32
    expected = values[:3].astype(np.float16).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_least_absolute_weights_have_the_primal_programmes_error():
    """The same programme with a row for each value, solved as it is written down."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(1500, 4500, 60)
    predictions = (
        truth[:, None] + rng.laplace(0, (30, 60, 90), (60, 3)) + rng.normal(0, 20, (60, 1))
    )
    one, zero = np.eye(60), np.zeros(60)
    primal = linprog(
        c=np.append(np.zeros(3), np.ones(60)),
        A_ub=np.vstack([np.hstack([predictions, -one]), np.hstack([-predictions, -one])]),
        b_ub=np.append(truth, -truth),
        A_eq=np.append(np.ones(3), zero)[None],
        b_eq=[1],
    )
    weights = least_absolute(predictions, truth)
    assert np.abs(predictions @ weights - truth).sum() == pytest.approx(primal.fun, rel=1e-9)


def test_a_fingerprint_tells_files_and_tables_apart(tmp_path, files):
    same = save(tmp_path / "same.npy", IDS, load_predictions(files[0]).values)
    other = save(tmp_path / "other.npy", IDS[::-1], load_predictions(files[0]).values)
    marks = [fingerprint(path) for path in (files[0], same, other, files[1])]
    assert marks[0] == marks[1] and len(set(marks)) == 3


def test_files_of_other_folds_are_noted(tmp_path, out_of_fold, capsys):
    (first, second, _), truth = out_of_fold
    other = save(tmp_path / "other.npy", IDS, load_predictions(second).values, fold=[0] * 7)
    fit_weights([first, other], truth)
    assert f"note: {other}: other folds than {first}" in capsys.readouterr().out
