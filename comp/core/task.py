"""The seam: what a competition supplies, so that the core can train, predict and submit for it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from comp.core.config import RunConfig
from comp.core.folds import Description
from comp.core.halves import Storage
from comp.core.layout import Layout

if TYPE_CHECKING:  # its compiled loops are slow to import
    from comp.core.recipe import Blender

Batch = dict[str, torch.Tensor]


class Task(ABC):
    """One competition under one config.

    The core addresses samples by their row in `ids`. A dataset yields dicts of tensors; it may
    bring a `collate` of its own.
    """

    config_type: ClassVar[type[RunConfig]]
    metric: str  # the metric that selects the best checkpoint
    lower_is_better: ClassVar[bool]
    half: ClassVar[Storage] = Storage("float16")  # of predictions in two bytes a value
    ruled: ClassVar[bool] = False  # whether a rule makes what is submitted of predictions
    # Wheels that prediction needs and a notebook's image lacks or has in another version.
    kernel_wheels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @staticmethod
    @abstractmethod
    def describe(folder: str) -> Description:
        """Ids, groups and multi-hot labels of a prepared folder, for making folds."""

    @staticmethod
    @abstractmethod
    def layout(data: Path | None = None, rule: Path | None = None) -> Layout:
        """The submission's layout.

        Args:
            data: prepared folder of the training data, where the layout depends on it.
            rule: file that says how predictions become what is submitted, where they differ.

        Raises:
            InputError: one of them is needed, or of no use here.
        """

    @staticmethod
    def blender(data: Path | None = None) -> "Blender":
        """How predictions of several models are combined.

        Args:
            data: prepared folder of the training data, where that depends on it.

        Raises:
            InputError: it is needed, or of no use here.
        """
        raise NotImplementedError("nothing is known of how these predictions are combined")

    @staticmethod
    @abstractmethod
    def report(submission: Path, truth: Path, **files: Path | None) -> Iterable[str]:
        """Score a submission CSV from files alone: lines of text, the last one with the score.

        Args:
            submission: the CSV.
            truth: a prediction file, or a CSV in the submission's layout.
            files: `train`, the prepared training data; `picture`, a PNG to draw; `predictions` and
                `records`, the prediction file and the test folder that may be drawn there. None
                where not given.
        """

    @staticmethod
    def inference_files(folder: Path) -> tuple[str, ...]:
        """Files of a prepared folder without which nothing can be predicted and submitted."""
        return ()

    @property
    @abstractmethod
    def ids(self) -> np.ndarray:
        """(n,) str: ids of the training data."""

    @abstractmethod
    def folds(self) -> np.ndarray:
        """(n,) int: fold in which each training sample validates; negative for none, see
        `comp.core.folds.train_only`.
        """

    @abstractmethod
    def dataset(self, rows: np.ndarray) -> Dataset:
        """Training data at `rows`, with targets."""

    def training_dataset(self, rows: np.ndarray, seed: int) -> Dataset:
        """Training data at `rows` as it is trained on, where that is not `dataset`.

        Whatever is drawn in it may depend on `seed`, a sample's row and the epoch alone, see
        `comp.core.loading`. An epoch is one pass over it. If its length is not that of `rows`, it
        brings `names(positions, epoch)`, (b,) str, what its samples are called in messages.
        """
        return self.dataset(rows)

    @abstractmethod
    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """The id table of `rows` for a prediction file: `id`, then informative columns."""

    @abstractmethod
    def truth(self, rows: np.ndarray) -> np.ndarray:
        """(b, ...) targets of the training data's `rows`, in the form of predictions."""

    @abstractmethod
    def test_data(
        self, folder: str, sample: str | Path | None = None
    ) -> tuple[pd.DataFrame, Dataset]:
        """Id table and dataset, without targets, of a test folder in the competition's layout.

        Its batches may say which samples could not be read: "broken", (b,) bool.

        Args:
            folder: the test folder.
            sample: a sample submission, whose ids are wanted in its order, whether they are in the
                folder or not; None for all that are there.
        """

    def test_files(self, name: str) -> tuple[str, ...]:
        """Where in a test folder the files of the sample with the id `name` may lie.

        Paths relative to it, in which `*` stands for anything; not all need be there.
        """
        raise NotImplementedError(f"{type(self).__name__} says nothing of test files")

    def stand_in(self) -> np.ndarray:
        """The prediction of a test sample that could not be read, from the training data.

        Training saves it beside the weights, as prediction may happen where there are no such data.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing for a broken sample")

    @property
    @abstractmethod
    def prediction_shape(self) -> tuple[int, ...]:
        """Shape of one sample's prediction as it is stored."""

    @abstractmethod
    def build_model(self, fetch: bool = True) -> nn.Module:
        """The network, freshly initialised; the core has seeded torch before.

        Without `fetch` no pretrained weights are asked for: trained ones are about to be loaded,
        perhaps where there is no network.
        """

    @property
    def mixes(self) -> bool:
        """Whether the network is trained on mixtures of samples, so that losses say little."""
        return False

    @abstractmethod
    def training_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Cast, augment and mix on the device; everything random comes from `generator` (CPU)."""

    @abstractmethod
    def plain_batch(self, batch: Batch) -> Batch:
        """Cast on the device, for validation and prediction."""

    @property
    def fixed_inputs(self) -> bool:
        """Whether `inputs` of training are tensors, of the same shapes in every batch of a size."""
        return True

    @abstractmethod
    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """The network's arguments, from a batch as the two functions above leave it."""

    @abstractmethod
    def loss(self, output: torch.Tensor, batch: Batch, done: float) -> dict[str, torch.Tensor]:
        """Scalar terms, each a mean over samples; "loss" is minimised and all are logged.

        Args:
            output: the network's, for a batch out of `training_batch`.
            batch: that batch, with whatever else was drawn for it.
            done: share of the training's steps that lie behind, for terms that come in late.
        """

    @abstractmethod
    def predictions(self, output: torch.Tensor) -> torch.Tensor:
        """(b, ...) float32 predictions as they are stored, from the network's output."""

    @abstractmethod
    def score_samples(self, predictions: torch.Tensor, batch: Batch) -> Batch:
        """(b, ...) quantities from which `metrics` can be computed once all are gathered."""

    @abstractmethod
    def metrics(self, scores: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        """Metrics over all samples; `rows` are their rows in `ids`, in the order of `scores`."""

    def views(self) -> tuple[str, ...]:
        """Names of the test-time views, the plain one first."""
        return ("plain",)

    def view(self, batch: Batch, name: str) -> Batch:
        """A batch as seen in the view `name`."""
        return batch

    def unview(self, predictions: torch.Tensor, name: str) -> torch.Tensor:
        """Predictions made in the view `name`, back in the plain one."""
        return predictions
