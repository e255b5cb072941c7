"""Reading a prepared folder and a folder of test records."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from test_prepare import FAULT, TINY, VEL, replace_value, save, write_pair
from torch.utils.data import DataLoader

from comp.core.errors import InputError
from comp.fwi.openmaps import OpenMaps
from comp.fwi.prepare import prepare
from comp.fwi.shards import AMPLITUDE_SCALE
from comp.fwi.shots import RecordDataset, RecordFolder, ShotDataset, ShotStore
from comp.fwi.survey import OFFICIAL

SCALE = np.float32(AMPLITUDE_SCALE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared folder of three shards, and the arrays that went in, in store order."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [
        write_pair(folder / "raw", FAULT, "2_1_0", rows=5, seed=1),
        write_pair(folder / "raw", VEL, "1", rows=8, seed=2),
        write_pair(folder / "raw", VEL, "2", rows=3, seed=3),
    ]
    prepare(folder / "raw", folder / "out", TINY)
    return folder / "out", *(np.concatenate(arrays) for arrays in zip(*pairs))


def batches(dataset, workers=0, batch_size=4):
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=dataset.collate,
        generator=generator,
    )
    return list(loader)


# --- the store


def test_every_row_is_the_sample_that_went_in(prepared):
    folder, shots, velocity = prepared
    store = ShotStore(folder)
    assert len(store) == len(store.ids) == len(store.families) == len(store.sources) == 16
    for row in range(16):
        assert store.shots(row).dtype == np.float16
        np.testing.assert_array_equal(store.shots(row), (shots[row] * SCALE).astype(np.float16))
        np.testing.assert_array_equal(store.velocity(row), velocity[row])
        with pytest.raises(ValueError, match="read-only"):
            store.shots(row)[0] = 0
    rows = [15, 0, 7, 0]
    np.testing.assert_array_equal(store.velocities(rows), velocity[rows])
    assert store.velocities([]).shape == (0, *TINY.map_shape)


def test_mean_map_is_that_of_all_or_of_some_evenly_spread(prepared):
    store = ShotStore(prepared[0])
    maps = store.velocities(range(16)).astype(np.float64)
    np.testing.assert_allclose(store.mean_map(), maps.mean(0), rtol=1e-6)
    np.testing.assert_allclose(store.mean_map(samples=4), maps[[0, 5, 10, 15]].mean(0), rtol=1e-6)
    assert store.mean_map().dtype == np.float32


@pytest.mark.parametrize("row", [-1, 16])
def test_rows_outside_are_refused(prepared, row):
    with pytest.raises(IndexError, match="of 16"):
        ShotStore(prepared[0]).shots(row)
    with pytest.raises(IndexError, match="of 16"):
        ShotDataset(ShotStore(prepared[0]), [0, row])


def open_files(folder):
    """How many files of `folder` this process holds open."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(folder)) for link in links if os.path.exists(link))


def test_files_are_opened_when_needed_and_dropped_by_pickling(prepared):
    store = ShotStore(prepared[0])
    assert open_files(prepared[0]) == 0
    store.shots(0), store.velocity(0), store.shots(1)
    assert open_files(prepared[0]) == 2
    assert len(store.ids) == 16
    data = pickle.dumps(store)
    assert store.ids[3].encode() not in data
    copy = pickle.loads(data)
    assert open_files(prepared[0]) == 2
    np.testing.assert_array_equal(copy.shots(15), store.shots(15))
    np.testing.assert_array_equal(copy.ids, store.ids)


def test_only_so_many_files_stay_open(prepared):
    store = ShotStore(prepared[0])
    store._open = OpenMaps([(store.folder, shard) for shard in store.shards], limit=2)
    first = store.shots(0)
    kept = first.copy()
    for row in range(16):
        store.shots(row), store.velocity(row)
    del row
    assert len(store._open) == 2
    np.testing.assert_array_equal(first, kept)  # a view outlives its place among the open files
    del first
    assert open_files(prepared[0]) == 2
    assert len(ShotDataset(store).__getitems__(range(16))["shots"]) == 16


def resident_kb(folder):
    """How much of the files of `folder` is mapped and resident in this process."""
    total, ours = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split()[0]:
                ours = str(folder) in line
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


def test_batches_leave_no_pages_behind(prepared):
    store = ShotStore(prepared[0])
    view = store.shots(0)
    view.copy()
    assert resident_kb(prepared[0]) > 0
    ShotDataset(store).__getitems__(range(16))
    assert resident_kb(prepared[0]) == 0
    np.testing.assert_array_equal(view, store.shots(0))


def edit_index(folder, change):
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


SPOILT = {
    "no index": (lambda f: (f / "index.json").unlink(), r"index\.json: no such file"),
    "not json": (lambda f: (f / "index.json").write_text("{"), r"index\.json: not valid JSON"),
    "a list": (lambda f: (f / "index.json").write_text("[]"), "format version None, expected 1"),
    "version": (lambda f: edit_index(f, lambda i: i.update(version=9)), "format version 9"),
    "key": (lambda f: edit_index(f, lambda i: i["shards"][0].pop("rows")), "not an index.*rows"),
    "empty": (lambda f: edit_index(f, lambda i: i.update(shards=[])), "lists no shards"),
    "scale": (
        lambda f: edit_index(f, lambda i: i["shards"][1].update(amplitude_scale=2.0)),
        "FlatVel_A_data1: amplitude_scale 2.0, others 256",
    ),
    "survey": (
        lambda f: edit_index(f, lambda i: i["survey"].update(nt=30)),
        r"seis2_1_0\.shots\.npy: shape \(5, 2, 20, 3\), expected \(5, 2, 30, 3\)",
    ),
    "file gone": (
        lambda f: (f / "shards/FlatVel_A_data2.velocity.npy").unlink(),
        r"FlatVel_A_data2\.velocity\.npy: no such file, but the index lists it",
    ),
    "file cut": (
        lambda f: os.truncate(f / "shards/FlatVel_A_data2.shots.npy", 500),
        r"FlatVel_A_data2\.shots\.npy: 500 bytes, expected \d+; truncated\?",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_folder_is_refused_when_opened(case, tmp_path):
    write_pair(tmp_path / "raw", FAULT, "2_1_0", rows=5)
    write_pair(tmp_path / "raw", VEL, "1", rows=2)
    write_pair(tmp_path / "raw", VEL, "2", rows=2)
    prepare(tmp_path / "raw", tmp_path / "out", TINY)
    spoil, message = SPOILT[case]
    spoil(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        ShotStore(tmp_path / "out")


def test_other_array_than_the_index_says_is_refused_when_read(tmp_path):
    write_pair(tmp_path / "raw", VEL, "1", rows=2)
    prepare(tmp_path / "raw", tmp_path / "out", TINY)
    store = ShotStore(tmp_path / "out")
    save(tmp_path / "out/shards/FlatVel_A_data1.shots.npy", np.zeros((2, 2, 20, 3), np.int16))
    with pytest.raises(InputError, match=r"data1\.shots\.npy: dtype int16, expected float16"):
        store.shots(0)


# --- datasets


def test_batches_have_the_rows_values_shapes_and_dtypes(prepared):
    folder, shots, velocity = prepared
    dataset = ShotDataset(ShotStore(folder), rows=[14, 3, 9, 0, 12])
    assert len(dataset) == 5
    batch = dataset.__getitems__([4, 0, 1])
    rows = [12, 14, 3]
    assert batch["row"].dtype == torch.int64 and batch["row"].tolist() == rows
    assert batch["shots"].dtype == torch.float16
    assert batch["velocity"].dtype == torch.float32
    expected = torch.from_numpy((shots[rows] * SCALE).astype(np.float16))
    torch.testing.assert_close(batch["shots"], expected, rtol=0, atol=0)
    torch.testing.assert_close(
        batch["velocity"], torch.from_numpy(velocity[rows])[:, None], rtol=0, atol=0
    )
    one = dataset[1]
    assert one["row"] == 3 and one["row"].shape == ()
    assert one["shots"].shape == TINY.record_shape
    assert one["velocity"].shape == (1, *TINY.map_shape)


def test_workers_bring_the_same_batches(prepared):
    dataset = ShotDataset(ShotStore(prepared[0]), np.arange(14))
    dataset[0]  # files that the parent has open must not matter
    alone, shared = batches(dataset), batches(dataset, workers=2)
    assert [len(b["row"]) for b in alone] == [4, 4, 4, 2]
    for a, b in zip(alone, shared, strict=True):
        assert a.keys() == b.keys() == {"row", "shots", "velocity"}
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)
        assert b["shots"].is_shared()


# --- the competition's test records


@pytest.fixture
def records(tmp_path):
    folder = tmp_path / "test"
    random = np.random.default_rng(0)
    for name in ("00f", "a01", "3c2"):
        array = random.normal(0, 10, TINY.record_shape).astype(np.float32)
        save(folder / f"{name}.npy", array)
    return folder


def test_records_in_order_of_their_ids(records):
    (records / "notes.txt").touch()
    store = RecordFolder(records, TINY)
    assert store.ids.tolist() == ["00f", "3c2", "a01"]
    dataset = RecordDataset(store)
    for workers in (0, 2):
        found = torch.cat([b["shots"] for b in batches(dataset, workers, batch_size=2)])
        rows = torch.cat([b["row"] for b in batches(dataset, workers, batch_size=2)])
        assert found.dtype == torch.float32
        for row, shots in zip(rows, found):
            expected = np.load(records / f"{store.ids[row]}.npy")
            np.testing.assert_array_equal(shots.numpy(), expected)


def cut_record(folder):
    path = folder / "3c2.npy"
    os.truncate(path, path.stat().st_size - 1)


BAD_FILE = {
    "cut": (cut_record, r"3c2\.npy: truncated"),
    "shape": (
        lambda f: save(f / "3c2.npy", np.zeros((2, 21, 3), np.float32)),
        r"3c2\.npy: shape \(2, 21, 3\), expected \(2, 20, 3\)",
    ),
    "dtype": (
        lambda f: save(f / "3c2.npy", np.zeros(TINY.record_shape)),
        r"3c2\.npy: dtype float64, expected float32",
    ),
    "objects": (
        lambda f: np.save(f / "3c2.npy", np.full((40, 2), None), allow_pickle=True),
        r"3c2\.npy: holds Python objects",
    ),
    "text": (lambda f: (f / "3c2.npy").write_text("oid_ypos,x_1\n"), r"3c2\.npy: not a \.npy file"),
}


@pytest.mark.parametrize("case", BAD_FILE)
def test_file_that_is_no_record_is_found_at_once(case, records):
    spoil, message = BAD_FILE[case]
    spoil(records)
    with pytest.raises(InputError, match=message):
        RecordFolder(records, TINY)


def test_records_of_another_survey_are_found_at_once(records):
    with pytest.raises(InputError, match=r"00f\.npy: shape \(2, 20, 3\), expected \(5, 1000, 70\)"):
        RecordFolder(records, OFFICIAL)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ((1, 4, 2), np.nan, "shot 1 holds NaN or infinite values"),
        ((0, 0, 0), np.inf, "shot 0 holds NaN or infinite values"),
        (1, 0.0, r"shot 1 is constant \(0\): a dead record"),
    ],
)
def test_bad_values_are_found_when_read(records, index, value, message):
    replace_value(records / "3c2.npy", index, value)
    dataset = RecordDataset(RecordFolder(records, TINY))
    with pytest.raises(InputError, match=rf"3c2\.npy: {message}"):
        dataset.__getitems__([0, 1])
    assert dataset[0]["row"] == 0


def test_records_that_cannot_be_read_are_marked_where_they_may_be(records):
    ids = ["a01", "none", "3c2", "00f"]
    cut_record(records)
    with pytest.raises(InputError, match=r"3c2\.npy: truncated"):
        RecordFolder(records, TINY, ids)
    replace_value(records / "00f.npy", (1, 4, 2), np.nan)
    folder = RecordFolder(records, TINY, ids, lenient=True)
    batch = RecordDataset(folder, lenient=True).__getitems__(range(4))
    assert batch["broken"].tolist() == [False, True, True, True]
    assert (batch["shots"][0].numpy() == np.load(records / "a01.npy")).all()
    assert (batch["shots"][1:] == 0).all()
    (records / "3c2.npy").unlink()
    with pytest.raises(InputError, match="1 of 2 records missing, first 'none'"):
        RecordFolder(records, TINY, ["a01", "none"])


def test_folder_missing_or_without_records(tmp_path):
    with pytest.raises(InputError, match="test: no such folder"):
        RecordFolder(tmp_path / "test", TINY)
    with pytest.raises(InputError, match=r"holds no \.npy records"):
        RecordFolder(tmp_path, TINY)


# --- a genuine record


def test_genuine_record_keeps_its_precision(sample_data, tmp_path):
    records = RecordFolder(sample_data / "kaggle_waveform_test")
    record = RecordDataset(records)[0]["shots"].numpy()
    save(tmp_path / "raw/FlatVel_A/data/data1.npy", record[None])
    velocity = np.full((1, 1, *OFFICIAL.map_shape), 2000, np.float32)
    save(tmp_path / "raw/FlatVel_A/model/model1.npy", velocity)
    prepare(tmp_path / "raw", tmp_path / "out")
    store = ShotStore(tmp_path / "out")
    error = store.shots(0).astype(np.float32) / store.amplitude_scale - record
    assert np.linalg.norm(error) / np.linalg.norm(record) < 2.2e-4
    # Without the scale, weak values would be float16 subnormals and off by up to 3 %.
    weak = (np.abs(record) > 1e-6) & (np.abs(record) < 6e-5)
    assert np.abs(error[weak] / record[weak]).max() <= 2**-11
    unscaled = record[weak].astype(np.float16).astype(np.float32) / record[weak] - 1
    assert np.abs(unscaled).max() > 0.02
