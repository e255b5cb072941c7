"""Simulated data: the exact forward model's records of velocity maps, written to disk.

Written as a prepared folder, for training, or as the competition lays out its test data, with the
truth beside it. Both may be killed and started again, and come out the same.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from comp.core.claims import exclusive, refuse_other_recipe
from comp.core.errors import InputError
from comp.core.files import new_npy, read_json, save_npy, write_json
from comp.core.lineage import join_lineages
from comp.core.predictions import Predictions, write_ids
from comp.core.progress import sample_bar
from comp.core.share import Share
from comp.core.submission import write_submission
from comp.core.threads import share_cores
from comp.fwi.checks import check_records, check_velocity
from comp.fwi.maps import Maps
from comp.fwi.shard_writer import Shard, full_recipe, write_shards
from comp.fwi.submission import FwiLayout
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.wave import simulate

_ODD = 0x9E3779B97F  # 2^40 / golden ratio: spreads ids well, and an odd step meets none twice


class Simulator:
    """The forward model for one survey on one device, called a few maps at a time.

    Attributes:
        survey: the acquisition.
        device: a GPU if there is one; the last bits of a record depend on it.
        step: maps at once: at most a second of work, so that the bar moves.
    """

    def __init__(self, survey: Survey, device: str | None = None) -> None:
        """`device` None takes the first GPU, or the CPU where there is none."""
        self.survey = survey
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.step = 8 if self.device.type == "cpu" else 128

    def records(self, velocity: np.ndarray, source: str) -> torch.Tensor:
        """(n, shots, nt, receivers) float32 records of maps (n, ny, nx) that came from `source`.

        They are on the device.
        """
        try:
            return simulate(torch.from_numpy(velocity).to(self.device), self.survey)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


def write_training(
    out: str | Path,
    maps: Sequence[Maps],
    survey: Survey = OFFICIAL,
    share: Share | None = None,
    records: bool = True,
) -> None:
    """Simulate maps into a prepared folder; see `comp.fwi.shard_writer.write_shards`.

    Args:
        out: the folder; finished if an earlier run was killed.
        maps: the velocity maps; either all are derived or none is.
        survey: the acquisition.
        share: which of the processes that write it together this is, and its device.
        records: False writes the maps alone; training then simulates their records as it goes.

    Raises:
        InputError: as `write_shards`; a map that cannot be simulated.
    """
    simulator = Simulator(survey, share.device if share else None)
    if share and share.count > 1 and simulator.device.type == "cpu":
        share_cores(share.count)
    origins = [part.lineage for part in maps if part.lineage is not None]
    lineage = join_lineages(origins) if origins else None
    shards = [_shard(part, simulator if records else None) for part in maps]
    write_shards(out, survey, shards, lineage, share)


def _shard(part: Maps, simulator: Simulator | None) -> Shard:
    def chunks() -> Iterator[tuple[torch.Tensor | None, np.ndarray]]:
        velocity = part.load()
        if simulator is None:
            yield None, velocity
            return
        for start in range(0, part.rows, simulator.step):
            some = velocity[start : start + simulator.step]
            yield simulator.records(some, part.source), some

    about = (part.name, part.family, part.source, part.group, part.rows, part.recipe)
    return Shard(*about, (part.source, part.source), chunks, records=simulator is not None)


def write_test(
    out: str | Path,
    maps: Sequence[Maps],
    seed: int,
    survey: Survey = OFFICIAL,
    device: str | None = None,
) -> None:
    """Simulate maps into the competition's test layout, with the truth beside it.

        test/<10 hexadecimal digits>.npy    float32 (shots, nt, receivers)
        test_truth.npy, test_truth.ids.csv  float32 (n, ny, nx) m/s, with id and family; ids sorted
        sample_submission.csv               the competition's format, every velocity the mid-range
        recipe.json                         what it was made from

    Args:
        out: the folder; finished if an earlier run was killed.
        maps: the velocity maps.
        seed: of the ids.
        survey: the acquisition.
        device: see `Simulator`.

    Raises:
        InputError: the folder holds test data made from other maps or settings; another process is
            writing to it; the disk is full.
    """
    out, total = Path(out), sum(part.rows for part in maps)
    simulator = Simulator(survey, device)
    ids = hex_ids(total, seed)
    order = np.argsort(ids)
    place = np.argsort(order)  # row in the truth, where ids are sorted
    with exclusive(out), sample_bar(total) as advance:
        recipes = {part.name: full_recipe(survey, _shard(part, simulator)) for part in maps}
        _claim(out, {"seed": seed, **recipes}, set(ids))
        first = 0
        with new_npy(out / "test_truth.npy", (total, *survey.map_shape), np.float32) as truth:
            for part in maps:
                rows = slice(first, first + part.rows)
                velocity = part.load()
                truth[place[rows]] = velocity
                _write_records(out / "test", ids[rows], velocity, simulator, part.source, advance)
                first = rows.stop
    families = np.repeat([part.family for part in maps], [part.rows for part in maps])
    table = pd.DataFrame({"id": ids[order], "family": families[order]})
    write_ids(out / "test_truth.npy", table)
    middle = np.float32((survey.min_velocity + survey.max_velocity) / 2)
    values = np.broadcast_to(middle, (total, *survey.map_shape))
    sample = out / "sample_submission.csv"
    write_submission(sample, Predictions(table, values, sample), FwiLayout(survey))


def _claim(out: Path, recipe: dict[str, Any], ids: set[str]) -> None:
    """Refuse a folder of other test data; remove what a killed run left half written."""
    path = out / "recipe.json"
    if path.exists():
        refuse_other_recipe(path, read_json(path), recipe, "write to another folder")
    else:
        write_json(path, recipe)
    for record in sorted((out / "test").glob("*")):
        if record.name.split(".")[0] not in ids:
            raise InputError(f"{record}: no part of this test data; write to another folder")
        if record.suffix == ".partial":
            record.unlink()


def _write_records(
    folder: Path,
    ids: np.ndarray,
    velocity: np.ndarray,
    simulator: Simulator,
    source: str,
    advance: Callable[[int, int], None],
) -> None:
    """Write the records of maps one file each, but for those that are there already."""
    check_velocity(velocity, source, 0)
    for start in range(0, len(ids), simulator.step):
        chunk = slice(start, start + simulator.step)
        paths = [folder / f"{name}.npy" for name in ids[chunk]]
        if not all(path.exists() for path in paths):
            records = simulator.records(velocity[chunk], source).cpu().numpy()
            check_records(records, source, start)
            for path, record in zip(paths, records):
                save_npy(path, record)
        advance(len(paths), sum(path.stat().st_size for path in paths))


def hex_ids(count: int, seed: int) -> np.ndarray:
    """(count,) distinct ids of ten hexadecimal digits, in no apparent order."""
    start = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    return np.array([f"{(start + i * _ODD) % 2**40:010x}" for i in range(count)])
