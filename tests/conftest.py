"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

# Before any albumentations import: it asks a server for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Threads of the processes that tests start sleep while they wait: they are not alone on the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items):
    """The whole ways first: they take longest, and others are done beside them."""
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors are work for one; several wait for each other, long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def set_threads():
    """To give torch another number of threads for one test."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.fixture
def saved_figures(monkeypatch) -> list[Figure]:
    """Every figure that is written from now on."""
    figures, plain = [], Figure.savefig

    def remember(self, *arguments, **options):
        figures.append(self)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real data, or a skip that says how to have it."""
    folder = os.environ.get("COMP_SAMPLE_DATA")
    if not folder:
        pytest.skip("COMP_SAMPLE_DATA is not set: it names the folder of real OpenFWI data")
    return Path(folder)
