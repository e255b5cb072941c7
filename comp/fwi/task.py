"""Waveform inversion as a task of the core: shot records in, velocity maps out."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from comp.core.errors import InputError
from comp.core.folds import Description
from comp.core.halves import Storage
from comp.core.loading import limit_rows
from comp.core.submission import read_ids
from comp.core.task import Batch, Task
from comp.fwi.augment import augment, draw_augment, mirror_shots, official_shots
from comp.fwi.config import FwiConfig
from comp.fwi.describe import describe_folder
from comp.fwi.extra import training_folds
from comp.fwi.metrics import scored
from comp.fwi.models import build_model
from comp.fwi.online import OnlineDataset, OnlineMaps, with_made_records
from comp.fwi.physics import Part, draw_part, misfit_weight, waveform_misfit
from comp.fwi.records import RecordFolder
from comp.fwi.scoring import report
from comp.fwi.shots import RecordDataset, ShotDataset, ShotStore
from comp.fwi.submission import LAYOUT, FwiLayout
from comp.fwi.survey import OFFICIAL, OFFICIAL_COLUMNS, Survey

if TYPE_CHECKING:
    from comp.fwi.blend import FwiBlender


class FwiTask(Task):
    """The waveform-inversion competition; see `Task` for each method."""

    config_type = FwiConfig
    metric = "mae"
    lower_is_better = True
    half = Storage("uint16", 0.1)  # dm/s: off by at most 0.05 m/s
    kernel_wheels = ("segmentation-models-pytorch==0.6.0", "timm==1.0.31")
    config: FwiConfig

    @staticmethod
    def describe(folder: str) -> Description:
        return describe_folder(folder)

    @staticmethod
    def layout(data: Path | None = None, rule: Path | None = None) -> FwiLayout:
        if rule is not None:
            raise InputError(f"{rule}: no rule is used here, velocities are submitted as they are")
        return LAYOUT

    @staticmethod
    def blender(data: Path | None = None) -> "FwiBlender":
        from comp.fwi.blend import FwiBlender  # scikit-learn is slow to import

        if data is not None:
            raise InputError(f"--data {data}: of no use here, velocities have no labels")
        return FwiBlender()

    @staticmethod
    def report(submission: Path, truth: Path, **files: Path | None) -> Iterator[str]:
        return report(submission, truth, LAYOUT, **files)

    @cached_property
    def store(self) -> ShotStore:
        """The training data."""
        return ShotStore(self.config.data.folder, self.config.data.extra)

    @property
    def ids(self) -> np.ndarray:
        return self.store.ids

    @cached_property
    def _folds(self) -> np.ndarray:
        return training_folds(self.store, self.config.data.folds)

    def folds(self) -> np.ndarray:
        return self._folds

    def dataset(self, rows: np.ndarray) -> Dataset:
        return ShotDataset(self.store, rows)

    def training_dataset(self, rows: np.ndarray, seed: int) -> Dataset:
        online = self.config.online
        if not online.samples:
            return self.dataset(rows)
        # A quick look is at so many of these, too.
        samples = min(online.samples, self.config.limit or online.samples)
        maps = OnlineMaps(self.store, rows, self.folds(), online, seed)
        return OnlineDataset(rows, online.stored, maps, samples)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"id": self.ids[rows], "family": self.store.families[rows]})

    def truth(self, rows: np.ndarray) -> np.ndarray:
        return self.store.velocities(rows)

    def test_data(
        self, folder: str, sample: str | Path | None = None
    ) -> tuple[pd.DataFrame, Dataset]:
        ids = None if sample is None else read_ids(sample, LAYOUT)
        records = RecordFolder(folder, OFFICIAL, ids, lenient=True)
        return pd.DataFrame({"id": records.ids}), RecordDataset(records, lenient=True)

    def stand_in(self) -> np.ndarray:
        return self.store.mean_map()

    def test_files(self, name: str) -> tuple[str, ...]:
        return (f"{name}.npy",)

    @property
    def prediction_shape(self) -> tuple[int, ...]:
        return OFFICIAL.map_shape

    def build_model(self, fetch: bool = True) -> nn.Module:
        return build_model(self.config.model, OFFICIAL, fetch)

    @cached_property
    def _survey(self) -> Survey:
        """Of the training data's official shots."""
        return replace(self.store.survey, source_columns=OFFICIAL_COLUMNS)

    @property
    def mixes(self) -> bool:
        return self.config.augment.mixup > 0

    def training_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        records = self._records(batch)
        draw = draw_augment(len(records), self.config.augment, generator)
        shots, velocity = augment(records, batch["velocity"], draw, self.store.survey)
        physics = {}
        if self.config.physics.weight > 0:
            part = draw_part(len(records), self.config.physics, self._survey, generator)
            physics = {
                "record": part.cut(official_shots(records, self.store.survey)),
                "record_shots": torch.tensor(part.shots),
                "mirrored": draw.mirror[: part.samples].to(records.device, non_blocking=True),
            }
        return {**batch, "shots": shots, "velocity": velocity, **physics}

    def plain_batch(self, batch: Batch) -> Batch:
        if "velocity" not in batch:  # test records, which come as they were recorded
            return batch
        return {**batch, "shots": official_shots(self._records(batch), self.store.survey)}

    def _records(self, batch: Batch) -> torch.Tensor:
        """(b, shots, nt, receivers) float32 amplitudes, all the survey's shots."""
        stored = batch["shots"].float() / self.store.amplitude_scale if "shots" in batch else None
        return with_made_records(stored, batch, self.store.survey) if "made" in batch else stored

    def inputs(self, batch: Batch) -> tuple[torch.Tensor]:
        return (batch["shots"],)

    def loss(self, output: torch.Tensor, batch: Batch, done: float) -> dict[str, torch.Tensor]:
        # Divided by half the velocity range, so that gradients have the size of a unit-scale net's.
        half_range = (OFFICIAL.max_velocity - OFFICIAL.min_velocity) / 2
        error = (output.float() - batch["velocity"]).abs().mean()
        physics = self.config.physics
        terms = {"loss": physics.label_weight * error / half_range, "train_mae": error}
        if weight := misfit_weight(physics, done):
            misfit = self._training_misfit(output[:, 0], batch).mean()
            terms |= {"loss": terms["loss"] + weight * misfit, "train_misfit": misfit}
        return terms

    def _training_misfit(self, velocity: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(k,) misfits of the part of a batch that `training_batch` drew."""
        record, physics = batch["record"], self.config.physics
        part = Part(len(record), tuple(batch["record_shots"].tolist()), record.shape[2])
        # Maps are mirrored back rather than records forth: with five shots that is not exact.
        velocity = velocity[: part.samples]
        velocity = torch.where(batch["mirrored"][:, None, None], velocity.flip(-1), velocity)
        how = {"taper": physics.taper, "lowpass": physics.lowpass}
        return waveform_misfit(velocity, record, part.survey(self._survey), physics.solver, **how)

    def predictions(self, output: torch.Tensor) -> torch.Tensor:
        # The truth lies in this range, so clipping to it can only lower the error.
        return OFFICIAL.clip(output[:, 0])

    def score_samples(self, predictions: torch.Tensor, batch: Batch) -> Batch:
        error = scored(predictions - batch["velocity"][:, 0]).abs().mean((1, 2))
        if not self.config.physics.valid_samples:
            return {"error": error}
        misfit = torch.full_like(error, torch.nan)
        probed = self._probed[batch["row"].to(self._probed.device)].to(error.device)
        if probed.any():
            # Through the scheme of the data whatever trains, so that runs can be compared.
            record = batch["shots"][probed, :, : self._survey.trusted_rows]
            misfit[probed] = waveform_misfit(predictions[probed], record, self._survey)
        return {"error": error, "misfit": misfit}

    @cached_property
    def _probed(self) -> torch.Tensor:
        """(n,) bool: the samples whose misfit validation reports, spread over each fold."""
        folds, probed = self.folds(), torch.zeros(len(self.ids), dtype=torch.bool)
        for fold in np.unique(folds[folds >= 0]):
            rows = limit_rows(np.flatnonzero(folds == fold), self.config.limit)
            probed[limit_rows(rows, self.config.physics.valid_samples)] = True
        return probed

    def metrics(self, scores: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
        error = pd.Series(scores["error"].astype(np.float64))
        found = {"mae": float(error.mean())}
        if "misfit" in scores and not np.isnan(scores["misfit"]).all():
            found["misfit"] = float(np.nanmean(scores["misfit"]))
        families = error.groupby(self.store.families[rows]).mean()
        return found | {f"mae/{k}": float(v) for k, v in families.items()}

    def views(self) -> tuple[str, ...]:
        return ("plain", "mirror")

    def view(self, batch: Batch, name: str) -> Batch:
        if name == "plain":
            return batch
        return {**batch, "shots": mirror_shots(batch["shots"])}

    def unview(self, predictions: torch.Tensor, name: str) -> torch.Tensor:
        return predictions if name == "plain" else predictions.flip(-1)
