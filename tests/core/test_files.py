"""Files are whole or not there, and are checked before they are used."""

import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from comp.core.errors import InputError
from comp.core.files import (
    atomic_path,
    growing_npy,
    new_npy,
    open_npy,
    read_json,
    save_npy,
    write_json,
)
from comp.core.predictions import load_predictions, save_predictions


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1} and len(list(tmp_path.iterdir())) == 1


def test_new_npy_appears_only_when_complete(tmp_path):
    path = tmp_path / "a.npy"
    with new_npy(path, (3, 2), np.float32) as array:
        array[:] = 7
        assert not path.exists()
    assert (open_npy(path, (3, 2), [np.float32]) == 7).all()
    with pytest.raises(KeyError), new_npy(tmp_path / "b.npy", (3, 2), np.float32):
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_a_growing_npy_is_what_numpy_saves_and_appears_only_when_complete(tmp_path):
    values, path = np.arange(24, dtype=np.float16).reshape(4, 3, 2), tmp_path / "a.npy"
    with growing_npy(path, values.shape, np.float16) as file:
        for part in (values[:1], values[1:]):
            file.write(part.data)
            assert not path.exists()
    np.save(tmp_path / "saved.npy", values)
    assert path.read_bytes() == (tmp_path / "saved.npy").read_bytes()
    with pytest.raises(KeyError), growing_npy(tmp_path / "b.npy", (3, 2), np.float32):
        raise KeyError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "saved.npy"]


WAYS = {
    "new_npy": "array[:] = 1",
    "growing_npy": "array.write(np.ones(100_000, np.float32).data)",
}


@pytest.mark.parametrize(("way", "fill"), WAYS.items(), ids=list(WAYS))
def test_a_full_disk_is_an_error_and_not_a_crash(tmp_path, way, fill):
    script = textwrap.dedent(f"""
        import resource, signal
        import numpy as np
        from comp.core.errors import run_script
        from comp.core.files import {way}
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        def main():
            with {way}({str(tmp_path / "big.npy")!r}, (100_000,), "f4") as array:
                {fill}
        run_script(main)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2 and "big.npy: not written" in done.stderr
    assert not list(tmp_path.iterdir())


def bad_npy(folder, kind):
    path = folder / "bad.npy"
    good = np.ones((4, 5), np.float32)
    if kind == "truncated":
        np.save(path, good)
        path.write_bytes(path.read_bytes()[:-3])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "objects":
        np.save(path, np.array([{}, []], dtype=object), allow_pickle=True)
    elif kind == "shape":
        np.save(path, good.T)
    elif kind == "dtype":
        np.save(path, good.astype(np.int64))
    elif kind == "archive":
        with open(path, "wb") as file:
            np.savez(file, a=good)
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("missing", "no such file"),
        ("truncated", "truncated"),
        ("empty", "truncated"),
        ("objects", "Python objects"),
        ("shape", r"shape \(5, 4\), expected \('any', 5\)"),
        ("dtype", "dtype int64, expected float32"),
        ("archive", "npz archive"),
    ],
)
def test_bad_npy_is_one_line(tmp_path, kind, part, mmap):
    path = bad_npy(tmp_path, kind)
    with pytest.raises(InputError, match=part) as caught:
        open_npy(path, (None, 5), [np.float32], mmap=mmap)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_prediction_file_round_trip(tmp_path):
    table = pd.DataFrame({"id": ["000e10", "0001", "NA"], "fold": [0, 1, 0]})
    values = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    save_predictions(tmp_path / "p.npy", table, values)
    found = load_predictions(tmp_path / "p.npy")
    assert found.ids.tolist() == ["000e10", "0001", "NA"] and found.table["fold"].tolist() == [
        0,
        1,
        0,
    ]
    assert (found.values == values).all()
    assert found.rows_of(["NA", "000e10"]).tolist() == [2, 0]
    with pytest.raises(InputError, match="1 of 2 ids missing, first 'zz'"):
        found.rows_of(["NA", "zz"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("id\na\na\nb\n", "'a' in row 1 stands there twice"),
        ("id\na\n\nb\n", "2 ids for 3 rows"),
        ("id\na\n", "1 ids for 3 rows"),
        ("name\na\nb\nc\n", "expected 'id'"),
        ("", "not a CSV table"),
        ('id,x\na,1\n"",2\nb,3\n', "blank id in row 1"),
        (None, "no such file"),
    ],
)
def test_bad_id_table_is_one_line(tmp_path, text, part):
    save_npy(tmp_path / "p.npy", np.zeros((3, 2)))
    if text is not None:
        (tmp_path / "p.ids.csv").write_text(text)
    with pytest.raises(InputError, match=part) as caught:
        load_predictions(tmp_path / "p.npy")
    assert "p.ids.csv" in str(caught.value) and "\n" not in str(caught.value)
