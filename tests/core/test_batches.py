"""Whole batches from a loader: positions know their epoch, and errors come out of workers."""

import gc
import multiprocessing
import pickle
import time

import numpy as np
import pytest
import torch

from comp.core.batches import BatchDataset
from comp.core.config import LoaderConfig
from comp.core.errors import InputError
from comp.core.loading import Positions, StepBatches, chunks, make_loader

CPU = torch.device("cpu")


class Numbers(BatchDataset):
    """Rows of nothing, with the epoch they are read in; some of them raise."""

    def __init__(self, errors=None, rows=None):
        super().__init__(range(100, 120), rows)
        self.errors = errors or {}

    def read(self, rows, epoch):
        for row in rows:
            if row in self.errors:
                raise self.errors[row]
        return {"row": torch.from_numpy(rows), "epoch": torch.full((len(rows),), epoch)}


def load(dataset, batches, workers):
    return list(make_loader(dataset, batches, LoaderConfig(workers=workers), CPU))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_reaches_the_dataset(workers):
    batches = StepBatches(20, 4, seed=1, accumulate=2, start=3, stop=12)  # 5 steps an epoch
    found = load(Numbers(), batches, workers)
    assert [int(batch["epoch"][0]) for batch in found] == [0] * 4 + [1] * 10 + [2] * 4
    assert [batch["row"].tolist() for batch in found] == list(batches)
    plain = load(Numbers(rows=[7, 3, 5]), chunks(np.arange(3), 2), workers)
    assert [batch["row"].tolist() for batch in plain] == [[7, 3], [5]]
    assert [batch["epoch"].tolist() for batch in plain] == [[0, 0], [0]]


def test_positions_are_a_list_and_travel():
    positions = Positions([3, 1], epoch=4)
    again = pickle.loads(pickle.dumps(positions))
    assert positions == again == [3, 1] and again.epoch == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_input_comes_out_of_a_worker_in_its_one_line(workers):
    with pytest.raises(InputError) as caught:
        load(Numbers({9: InputError("x.png: cut off")}), chunks(np.arange(20), 2), workers)
    assert str(caught.value) == "x.png: cut off"


@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_keep_their_type_and_traceback(workers):
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        load(Numbers({9: ZeroDivisionError("by nothing")}), chunks(np.arange(20), 2), workers)
    assert ("Traceback" in str(caught.value)) == (workers > 0)


@pytest.mark.parametrize("error", [InputError("x.png: cut off"), ZeroDivisionError("by nothing")])
def test_a_failure_ends_the_workers_at_once(error):
    began = time.perf_counter()
    with pytest.raises(type(error)):
        load(Numbers({9: error}), chunks(np.arange(20), 2), 2)
    gc.collect()
    assert not multiprocessing.active_children()
    assert time.perf_counter() - began < 4  # 20 s and more where they are waited for in vain
