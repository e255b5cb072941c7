"""A task small enough to train in a test: regress a known function of a few numbers."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from comp.core.config import RunConfig
from comp.core.task import Task


class ToyConfig(RunConfig):
    task: str = "toy"
    samples: int = 96
    dropout: float = 0.0
    batch_norm: bool = False
    jitter: float = 0.0
    poison: int | None = None  # this row's target becomes NaN


class ToyData(Dataset):
    def __init__(self, x, y, rows):
        self.x, self.y, self.rows = x, y, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return {"row": torch.tensor(row), "x": self.x[row], "y": self.y[row]}


class ToyTask(Task):
    config_type = ToyConfig
    layout = report = None
    metric = "mae"
    lower_is_better = True

    def __init__(self, config):
        super().__init__(config)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(config.samples, 6, generator=generator)
        self.y = (self.x[:, :1] - 0.5 * self.x[:, 1:2]).tanh()
        if config.poison is not None:
            self.y[config.poison] = float("nan")

    @staticmethod
    def describe(folder):
        raise NotImplementedError

    @property
    def ids(self):
        return np.array([f"s{i:03d}" for i in range(self.config.samples)])

    def folds(self):
        return np.arange(self.config.samples) % 3

    def dataset(self, rows):
        return ToyData(self.x, self.y, rows)

    def table(self, rows):
        return pd.DataFrame({"id": self.ids[rows]})

    def truth(self, rows):
        return self.y[rows].numpy()

    def test_data(self, folder, sample=None):
        rows = np.arange(self.config.samples)
        return self.table(rows), self.dataset(rows)

    @property
    def prediction_shape(self):
        return (1,)

    def build_model(self, fetch=True):
        norm = nn.BatchNorm1d(16) if self.config.batch_norm else nn.Identity()
        return nn.Sequential(
            nn.Linear(6, 16), norm, nn.GELU(), nn.Dropout(self.config.dropout), nn.Linear(16, 1)
        )

    def training_batch(self, batch, generator):
        noise = torch.randn(batch["x"].shape, generator=generator).to(batch["x"].device)
        return {**batch, "x": batch["x"] + self.config.jitter * noise}

    def plain_batch(self, batch):
        return batch

    def inputs(self, batch):
        return (batch["x"],)

    def loss(self, output, batch, done):
        return {"loss": (output - batch["y"]).abs().mean()}

    def predictions(self, output):
        return output

    def score_samples(self, predictions, batch):
        return {"error": (predictions - batch["y"]).abs()[:, 0]}

    def metrics(self, scores, rows):
        assert len(scores["error"]) == len(rows)
        return {"mae": float(scores["error"].mean())}

    def views(self):
        return ("plain", "negated")

    def view(self, batch, name):
        return batch if name == "plain" else {**batch, "x": -batch["x"]}

    def unview(self, predictions, name):
        return predictions if name == "plain" else -predictions


def toy_config(root, **values):
    """A config that fits in well under a second."""
    train = {"epochs": 3, "batch_size": 16, "log_every": 1, **values.pop("train", {})}
    return ToyConfig(
        name="toy",
        root=str(root),
        loader={"workers": 0},
        train=train,
        optim={"lr": 0.01, **values.pop("optim", {})},
        **values,
    )
