"""Waveform inversion as a task of the core: shot records in, velocity maps out."""

from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from comp.core.folds import Description, read_folds
from comp.core.task import Batch, Task
from comp.fwi.augment import augment, draw_augment, mirror_shots, official_shots
from comp.fwi.config import FwiConfig
from comp.fwi.describe import describe_folder
from comp.fwi.metrics import scored
from comp.fwi.models import build_model
from comp.fwi.records import RecordFolder
from comp.fwi.shots import RecordDataset, ShotDataset, ShotStore
from comp.fwi.submission import LAYOUT
from comp.fwi.survey import OFFICIAL


class FwiTask(Task):
    """The waveform-inversion competition; see `Task` for each method."""

    config_type = FwiConfig
    layout = LAYOUT
    metric = "mae"
    lower_is_better = True
    config: FwiConfig

    @staticmethod
    def describe(folder: str) -> Description:
        return describe_folder(folder)

    @cached_property
    def store(self) -> ShotStore:
        """The training data."""
        return ShotStore(self.config.data.folder)

    @property
    def ids(self) -> np.ndarray:
        return self.store.ids

    @cached_property
    def _folds(self) -> np.ndarray:
        return read_folds(self.config.data.folds, self.ids)

    def folds(self) -> np.ndarray:
        return self._folds

    def dataset(self, rows: np.ndarray) -> Dataset:
        return ShotDataset(self.store, rows)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"id": self.ids[rows], "family": self.store.families[rows]})

    def truth(self, rows: np.ndarray) -> np.ndarray:
        return self.store.velocities(rows)

    def test_data(self, folder: str) -> tuple[pd.DataFrame, Dataset]:
        records = RecordFolder(folder, OFFICIAL)
        return pd.DataFrame({"id": records.ids}), RecordDataset(records)

    @property
    def prediction_shape(self) -> tuple[int, ...]:
        return OFFICIAL.map_shape

    def build_model(self, fetch: bool = True) -> nn.Module:
        pretrained = fetch and self.config.model.pretrained
        return build_model(
            self.config.model.model_copy(update={"pretrained": pretrained}), OFFICIAL
        )

    def training_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        shots = self._amplitudes(batch["shots"])
        draw = draw_augment(len(shots), self.config.augment, generator)
        shots, velocity = augment(shots, batch["velocity"], draw, self.store.survey)
        return {**batch, "shots": shots, "velocity": velocity}

    def plain_batch(self, batch: Batch) -> Batch:
        shots = batch["shots"]
        if shots.dtype == torch.float16:  # from the store; test records come as they were recorded
            shots = official_shots(self._amplitudes(shots), self.store.survey)
        return {**batch, "shots": shots}

    def _amplitudes(self, shots: torch.Tensor) -> torch.Tensor:
        return shots.float() / self.store.amplitude_scale

    def inputs(self, batch: Batch) -> torch.Tensor:
        return batch["shots"]

    def loss(self, output: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        # Divided by half the velocity range, so that gradients have the size of a unit-scale net's.
        half_range = (OFFICIAL.max_velocity - OFFICIAL.min_velocity) / 2
        error = (output.float() - batch["velocity"]).abs().mean()
        return {"loss": error / half_range, "train_mae": error}

    def predictions(self, output: torch.Tensor) -> torch.Tensor:
        # The truth lies in this range, so clipping to it can only lower the error.
        return output[:, 0].clamp(OFFICIAL.min_velocity, OFFICIAL.max_velocity)

    def score_samples(self, predictions: torch.Tensor, batch: Batch) -> Batch:
        error = scored(predictions - batch["velocity"][:, 0])
        return {"error": error.abs().mean((1, 2))}

    def metrics(self, scores: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        error = pd.Series(scores["error"].astype(np.float64))
        families = error.groupby(self.store.families[rows]).mean()
        return {"mae": float(error.mean()), **{f"mae/{k}": float(v) for k, v in families.items()}}

    def views(self) -> tuple[str, ...]:
        return ("plain", "mirror")

    def view(self, batch: Batch, name: str) -> Batch:
        if name == "plain":
            return batch
        return {**batch, "shots": mirror_shots(batch["shots"])}

    def unview(self, predictions: torch.Tensor, name: str) -> torch.Tensor:
        return predictions if name == "plain" else predictions.flip(-1)
