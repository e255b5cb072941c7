"""The writer of prepared folders: every shard gets its own rows, all of them and no other's."""

import json
from dataclasses import replace

import numpy as np
import pytest

from comp.core.errors import InputError
from comp.fwi.shard_writer import Shard, write_shards
from comp.fwi.shots import ShotStore
from comp.fwi.survey import OFFICIAL

TINY = replace(OFFICIAL, nt=6)


def shard(name, rows, sizes):
    """A shard of so many rows whose chunks have these sizes; all its maps are alike."""

    def chunks():
        for size in sizes:
            records = np.random.default_rng(0).normal(size=(size, *TINY.record_shape))
            maps = np.full((size, *TINY.map_shape), 1500 + 10 * ord(name), np.float32)
            yield records.astype(np.float32), maps

    return Shard(
        name, "FlatVel_A", "here", name, rows, {}, (f"{name}.data", f"{name}.maps"), chunks
    )


def test_chunks_of_any_size_become_shards(tmp_path):
    shards = [shard("a", 8, [3, 5]), shard("b", 4, [4]), shard("c", 3, [1, 1, 1])]
    write_shards(tmp_path, TINY, shards)
    store = ShotStore(tmp_path)
    velocity = store.velocities(range(len(store)))[:, 0, 0]
    assert velocity.tolist() == [2470] * 8 + [2480] * 4 + [2490] * 3


@pytest.mark.parametrize(
    ("sizes", "found"),
    [([3, 4], "7 maps"), ([], "0 maps"), ([3, 5, 1], "9 or more maps"), ([3, 9], "12 or more")],
)
@pytest.mark.parametrize("last", [False, True])
def test_rows_that_lack_or_are_too_many_are_named_and_go_to_no_other(tmp_path, sizes, found, last):
    shards = [shard("a", 8, sizes), shard("b", 4, [4])]
    with pytest.raises(InputError, match=rf"a\.maps: {found}.*expected 8"):
        write_shards(tmp_path, TINY, shards[::-1] if last else shards)
    assert not (tmp_path / "index.json").exists() and not list(tmp_path.rglob("*.partial"))
    for path in (tmp_path / "shards").glob("*.json"):
        name, entry = path.name[0], json.loads(path.read_text())
        values = np.load(tmp_path / "shards" / f"{name}.velocity.npy")
        assert len(values) == entry["rows"] and (values == 1500 + 10 * ord(name)).all()


def test_a_source_that_cannot_be_read_is_named_and_not_the_file_being_written(tmp_path):
    def lost():
        yield from shard("a", 8, [3]).chunks()
        raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match=r"^a\.data: Input/output error$"):
        write_shards(tmp_path, TINY, [replace(shard("a", 8, []), chunks=lost)])
    assert not list(tmp_path.rglob("*.partial"))
