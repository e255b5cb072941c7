"""Training samples made as training goes: maps in the loader's workers, records on the device.

A map is a function of the seed, the epoch and its number alone, so any number of workers and
processes and any interruption give the same training. Its parents train beside the fold, so what
is made of them may too; both parents of a blend are of one family and one fold, as those of
`comp.fwi.derived`. Records come from the exact scheme, in the survey of the stored ones, and stay
float32: the test's are float32 too, so rounding them as stored ones are would gain nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch

from comp.core.batches import batch_tensor
from comp.core.errors import InputError
from comp.core.loading import derive_seed
from comp.core.task import Batch
from comp.fwi.config import OnlineConfig
from comp.fwi.derived import Parents, derive, draw
from comp.fwi.shots import ShotDataset, ShotStore
from comp.fwi.survey import Survey
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import simulate

# Marks the seeds of maps made here. Those of generated data on disk (`comp.fwi.maps`) end in a
# family's number after a shard's, or after a 1 for test data, so no map is ever made twice.
_ONLINE = 2


class OnlineMaps:
    """Makes velocity maps from training maps and by the generators."""

    def __init__(
        self,
        store: ShotStore,
        rows: np.ndarray,
        folds: np.ndarray,
        config: OnlineConfig,
        seed: int,
    ) -> None:
        """
        Args:
            store: the training data.
            rows: of it, those that train and may be parents.
            folds: (len(store),) the fold of each row.
            config: which kinds, how often.
            seed: of everything drawn.

        Raises:
            InputError: no two maps to blend, or no family to generate.
        """
        self.store, self.rows, self.seed = store, rows, seed
        weights = config.weights()
        self.kinds = [kind for kind, weight in weights.items() if weight > 0]
        self._until = np.cumsum([weights[kind] for kind in self.kinds]) / sum(weights.values())
        families, family = np.unique(store.families[rows], return_inverse=True)
        together = np.stack([family, folds[rows]], axis=1)
        self._parents = Parents(np.unique(together, axis=0, return_inverse=True)[1].ravel())
        self.families = config.families or tuple(f for f in families.tolist() if f in FAMILIES)
        if "blend" in self.kinds and not len(self._parents.pairable):
            what = "but no two training maps of one family are in one fold"
            raise InputError(f"key 'online.blend': got {config.blend:g}, {what}")
        if "generated" in self.kinds and not self.families:
            what = f"the data's ({', '.join(families)}) have no generator; name families that have"
            raise InputError(f"key 'online.families': got none, and {what}")

    def describe(self, epoch: int, number: int) -> str:
        """What map `number` of an epoch is made of, for messages."""
        kind, what = self._draw(epoch, number)
        if kind == "generated":
            return f"online sample {number} of epoch {epoch} (generated {what[0]})"
        parents = dict.fromkeys(self.store.ids[self._rows(kind, what)].tolist())
        return f"online sample {number} of epoch {epoch} ({kind} of {' and '.join(parents)})"

    def make(self, epoch: int, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The maps `numbers` of an epoch.

        Returns:
            (n,) int64 rows of their first parents, −1 for generated ones; (n, ny, nx) float32 maps,
            m/s.
        """
        drawn = [self._draw(epoch, int(number)) for number in numbers]
        pairs = [(-1, -1) if k == "generated" else self._rows(k, what) for k, what in drawn]
        rows = np.array(pairs, np.int64).reshape(-1, 2)
        out = np.empty((len(rows), *self.store.survey.map_shape), np.float32)
        given = rows[:, 0] >= 0
        first, second = (self.store.velocities(column[given]) for column in rows.T)
        place = iter(range(len(first)))
        for i, (kind, what) in enumerate(drawn):
            if kind == "generated":
                out[i] = generate(what[0], 1, what[1])[0]
                continue
            one = slice(at := next(place), at + 1)
            out[i] = first[at] if kind == "real" else derive(what, first[one], second[one])[0]
        return rows[:, 0], out

    def _draw(self, epoch: int, number: int) -> tuple[str, object]:
        """Kind of a map, and: the number of its parent, its `Draw`, or family and seeds."""
        random = np.random.default_rng([derive_seed(self.seed, epoch, number), _ONLINE])
        kind = self.kinds[int(np.searchsorted(self._until, random.random(), side="right"))]
        if kind == "real":
            return kind, int(random.integers(self._parents.count))
        if kind == "generated":
            family = self.families[random.integers(len(self.families))]
            return kind, (family, [*random.integers(2**32, size=4).tolist(), _ONLINE])
        return kind, draw(1, [kind], self._parents, self.store.survey.map_shape, random)

    def _rows(self, kind: str, what: object) -> np.ndarray:
        """(2,) rows of the store: the parents, twice the same where there is one."""
        return self.rows[[what, what]] if kind == "real" else self.rows[what.parents[0]]


class OnlineDataset(ShotDataset):
    """Stored training samples and behind them the places of those made anew for every epoch.

    Batches are those of `ShotDataset`; "row" of a sample made here is its first parent's, or −1.
    """

    def __init__(self, rows: np.ndarray, stored: bool, maps: OnlineMaps, samples: int) -> None:
        """`rows` train as they are stored, unless `stored` is false; `samples` are made."""
        super().__init__(maps.store, rows if stored else rows[:0])
        self.maps, self.samples = maps, samples

    def __len__(self) -> int:
        return len(self.rows) + self.samples

    def __getitem__(self, position: int) -> Batch:
        raise TypeError("online samples come in batches, of an epoch")

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        place, epoch = np.asarray(positions), getattr(positions, "epoch", 0)
        online = place >= len(self.rows)
        rows = np.empty(len(place), np.int64)
        rows[~online] = self.rows[place[~online]]
        velocity = batch_tensor((len(place), 1, *self.store.survey.map_shape), torch.float32)
        maps = velocity.numpy()[:, 0]
        maps[~online] = self.store.velocities(rows[~online])
        rows[online], maps[online] = self.maps.make(epoch, place[online] - len(self.rows))
        stored = ~online
        stored[stored] = self.store.recorded[rows[stored]]
        return self.with_records(rows, velocity, stored)

    def names(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        """(b,) str: what the samples at `positions` are, for messages."""
        first = len(self.rows)
        return np.array(
            [
                self.store.ids[self.rows[p]] if p < first else self.maps.describe(epoch, p - first)
                for p in np.asarray(positions).tolist()
            ]
        )


def with_made_records(stored: torch.Tensor | None, batch: Batch, survey: Survey) -> torch.Tensor:
    """Records of a whole batch: those that are stored, and the others simulated from their maps.

    Args:
        stored: (k, shots, nt, receivers) float32 amplitudes of the samples at `batch["kept"]`;
            None where there are none.
        batch: of a `ShotDataset`, with "made"; on the device.
        survey: the acquisition of all.

    Returns:
        (b, shots, nt, receivers) float32 amplitudes, in the order of the batch.
    """
    velocity, made = batch["velocity"][:, 0], batch["made"]
    simulated = simulate(velocity[made], survey)
    if stored is None:
        return simulated
    records = stored.new_empty(len(velocity), *stored.shape[1:])
    records[batch["kept"]] = stored
    records[made] = simulated
    return records
