"""Images as a task of the core: pixels in, probabilities of labels out."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from timm.models import get_pretrained_cfg
from torch import nn
from torch.utils.data import Dataset

from comp.core.errors import InputError
from comp.core.folds import Description, read_folds
from comp.core.submission import read_ids
from comp.core.task import Batch, Task
from comp.image.augment import plain_transform, training_transform, view_images, view_names
from comp.image.config import ImageConfig
from comp.image.data import ImageDataset, TestDataset
from comp.image.losses import HeadLosses
from comp.image.mixing import mix_batch, network_inputs
from comp.image.models import build_model
from comp.image.scoring import report
from comp.image.store import INFERENCE_FILES, ImageStore, describe_folder
from comp.image.submission import ImageLayout, read_layout
from comp.image.testset import TestImages, sample_files
from comp.image.trivial import stand_in_labels
from comp.image.validation import (
    log_losses,
    selecting_metric,
    to_probabilities,
    validation_metrics,
)

if TYPE_CHECKING:
    from comp.image.blend import ImageBlender


class ImageTask(Task):
    """A multilabel or multiclass competition over images; see `Task` for each method.

    Predictions are probabilities (C,), the heads' columns one after another.
    """

    config_type = ImageConfig
    lower_is_better = False
    ruled = True
    kernel_wheels = ("timm==1.0.31",)
    config: ImageConfig

    @staticmethod
    def describe(folder: str) -> Description:
        return describe_folder(folder)

    @staticmethod
    def layout(data: Path | None = None, rule: Path | None = None) -> ImageLayout:
        return read_layout(data, rule)

    @staticmethod
    def blender(data: Path | None = None) -> "ImageBlender":
        from comp.image.blend import ImageBlender  # its compiled loops are slow to import

        if data is None:
            raise InputError("--data: not given; expected the prepared folder, for its heads")
        return ImageBlender(ImageStore(data))

    @staticmethod
    def report(submission: Path, truth: Path, **files: Path | None) -> Iterator[str]:
        return report(submission, truth, **files)

    @staticmethod
    def inference_files(folder: Path) -> tuple[str, ...]:
        return INFERENCE_FILES

    @cached_property
    def store(self) -> ImageStore:
        """The training data."""
        return ImageStore(self.config.data.folder)

    @property
    def metric(self) -> str:
        return selecting_metric(self.store.metric)

    @property
    def ids(self) -> np.ndarray:
        return self.store.ids

    @cached_property
    def _folds(self) -> np.ndarray:
        return read_folds(self.config.data.folds, self.ids)

    def folds(self) -> np.ndarray:
        return self._folds

    def dataset(self, rows: np.ndarray) -> Dataset:
        transform = plain_transform(self.config.augment, self.config.data.size)
        return ImageDataset(self.store, rows, transform)

    def training_dataset(self, rows: np.ndarray, seed: int) -> Dataset:
        how = self.config.augment, self.config.data.size, self.store.channels
        return ImageDataset(self.store, rows, training_transform(*how), seed)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        return self.store.table(rows)

    def truth(self, rows: np.ndarray) -> np.ndarray:
        return self.store.targets(rows)

    def test_data(
        self, folder: str, sample: str | Path | None = None
    ) -> tuple[pd.DataFrame, Dataset]:
        layout = read_layout(self.config.data.folder, None)
        ids = None if sample is None else read_ids(sample, layout)
        images = TestImages(folder, self.store.competition, self.store.size, ids)
        transform = plain_transform(self.config.augment, self.config.data.size)
        return pd.DataFrame({"id": images.ids}), TestDataset(images, transform)

    def test_files(self, name: str) -> tuple[str, ...]:
        return sample_files(self.store.competition.images, name)

    @cached_property
    def _stand_in(self) -> np.ndarray:
        # As 0 and 1, which any rule leaves as they are.
        return stand_in_labels(self.store).astype(np.float32)

    def stand_in(self) -> np.ndarray:
        return self._stand_in

    @property
    def prediction_shape(self) -> tuple[int, ...]:
        return (len(self.store.labels),)

    def build_model(self, fetch: bool = True) -> nn.Module:
        how = self.store.heads, self.store.channels, fetch, self.config.data.size
        return build_model(self.config.model, *how)

    @cached_property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(c, 1, 1) mean and deviation of the channels, in grey levels.

        Those the backbone was pretrained with; for other than three channels their means.
        """
        known = get_pretrained_cfg(self.config.model.backbone)
        parts = ((0.5,) * 3, (0.5,) * 3) if known is None else (known.mean, known.std)
        channels = self.store.channels
        levels = [part if channels == 3 else (np.mean(part),) * channels for part in parts]
        mean, deviation = (255 * torch.tensor(level).float()[:, None, None] for level in levels)
        return mean, deviation

    @property
    def mixes(self) -> bool:
        return self.config.mix.kind != "none"

    @property
    def fixed_inputs(self) -> bool:
        return self.config.mix.kind != "feature"  # whose draw goes into the network

    def training_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        return mix_batch(self.plain_batch(batch), self.config.mix, generator)

    def plain_batch(self, batch: Batch) -> Batch:
        device = batch["image"].device
        mean, deviation = (part.to(device, non_blocking=True) for part in self._scale)
        return {**batch, "image": (batch["image"].float() - mean) / deviation}

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return network_inputs(batch)

    @cached_property
    def _losses(self) -> HeadLosses:
        return HeadLosses(self.config.loss, self.store.heads)

    def loss(self, output: torch.Tensor, batch: Batch, done: float) -> dict[str, torch.Tensor]:
        return self._losses(output, batch["target"])

    def predictions(self, output: torch.Tensor) -> torch.Tensor:
        return to_probabilities(output, self.store.heads)

    def score_samples(self, predictions: torch.Tensor, batch: Batch) -> Batch:
        losses = log_losses(predictions, batch["target"], self.store.heads)
        return {"probabilities": predictions, "log_loss": losses}

    def metrics(self, scores: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        truth = self.store.targets(rows) > 0
        how = self.store.metric, self.store.label_groups
        found = validation_metrics(scores["probabilities"], truth, *how)
        return found | {"log_loss": float(scores["log_loss"].mean(dtype=np.float64))}

    def views(self) -> tuple[str, ...]:
        return view_names(self.config.augment, self.config.data.size)

    def view(self, batch: Batch, name: str) -> Batch:
        return {**batch, "image": view_images(batch["image"], name)}
