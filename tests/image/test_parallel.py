"""Work in threads: results in order, and an error that does not wait for the rest."""

import time

import pytest

from comp.core.errors import InputError
from comp.image.parallel import in_threads


def test_results_come_in_order():
    def work(item):
        time.sleep(0.01 * (3 - item % 3))
        return item * item

    assert in_threads(work, range(20), 4, "squaring") == [i * i for i in range(20)]


def test_an_error_ends_it_all():
    done = []

    def work(item):
        if item == 5:
            raise InputError("item 5")
        time.sleep(0.002)
        done.append(item)

    with pytest.raises(InputError, match="item 5"):
        in_threads(work, range(1000), 2, "working")
    assert len(done) < 100
