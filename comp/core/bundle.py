"""One flat folder with all that a notebook without a network needs to submit finished runs.

manifest.json                       what is what, with checksums, see comp.core.manifest
<run>.config.yaml                   the resolved config, its paths those of the unpacked bundle
<run>.fold_<k>.safetensors          weights alone: no optimizer, no marks
<run>.fold_<k>.done.json            says that the fold was trained to its end
data.*                              the few files of the prepared folder that prediction needs
<run>.fold_<k>.stand_in.npy         the prediction of a sample that cannot be read
rule.json                           from probabilities to labels
recipe.json                         how the runs are combined
predict.py                          the script, which a wheel does not carry
*.whl                               the project's wheel, and those that the image lacks
submission.ipynb, *-metadata.json   the notebook, and what `kaggle` wants to know
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from comp.core.checkpoint import load_state, save_state
from comp.core.config import RunConfig, dump_config
from comp.core.errors import InputError
from comp.core.files import partial_path, write_json, write_text
from comp.core.manifest import MANIFEST, Manifest, RunEntry, entry_of
from comp.core.notebook import (
    NOTEBOOK,
    check_name,
    dataset_metadata,
    kernel_metadata,
    notebook,
)
from comp.core.predict import fold_folder
from comp.core.recipe import read_recipe
from comp.core.runs import finished_folds
from comp.core.task import Task
from comp.core.wheels import bring_wheels, build_wheel, check_wheel

_SCRIPT = Path(__file__).parents[2] / "scripts/predict.py"
_KEPT = ("fold", "step", "metric", "score", "model")  # of a checkpoint
_DATA, _RULE, _RECIPE = "data", "rule.json", "recipe.json"
_WORKERS = 2  # loader processes at most: a notebook has four cores for two GPUs


@dataclass
class Bundle:
    """A folder in the making.

    Attributes:
        folder: flat, empty at first.
        places: of the files that are unpacked elsewhere, by name.
    """

    folder: Path
    places: dict[str, str] = field(default_factory=dict)

    def add(self, source: Path, name: str, place: str | None = None) -> None:
        """Copy a file in."""
        try:
            shutil.copyfile(source, self.new(name, place))
        except FileNotFoundError:
            raise InputError(f"{source}: no such file, expected it for the bundle") from None

    def new(self, name: str, place: str | None = None) -> Path:
        """Where to write the file `name`."""
        path = self.folder / name
        if path.exists():
            raise InputError(f"{path}: two files of this name; give the runs different names")
        if place is not None:
            self.places[name] = place
        return path


@dataclass(frozen=True)
class Choices:
    """What can be chosen.

    Attributes:
        name: of the data set, and of the bundle.
        owner: whose it will be at Kaggle.
        competition: its address at Kaggle.
        half: store floating-point weights in half precision.
        wheels: pins, instead of those that the task names.
        wheels_from: a folder that has them; None to download.
        rule: from probabilities to labels, for tasks that need one.
        weights: of every fold of every run in turn; none for the mean.
        recipe: of scripts/recipe.py, with a file a run, instead of weights.
        hours: in which all runs have to predict.
        predict: options of the script.
        licence: of the data set, as Kaggle calls it.
    """

    name: str
    owner: str
    competition: str | None = None
    half: bool = False
    wheels: Sequence[str] | None = None
    wheels_from: Path | None = None
    rule: Path | None = None
    weights: Sequence[float] | None = None
    recipe: Path | None = None
    hours: float | None = None
    predict: Sequence[str] = ()
    licence: str = "unknown"


def make_bundle(
    out: Path, runs: Sequence[tuple[Path, RunConfig]], task: type[Task], choices: Choices
) -> Manifest:
    """Write a bundle of finished runs into the new folder `out`, which is there when it is whole.

    Raises:
        InputError: a folder that is not empty, an unfinished run, one without a best checkpoint,
            another number of weights than folds, a missing or needless rule, a wheel that does not
            fit.
    """
    check_name("--name", choices.name)
    folds = {run: _folds_of(run) for run, _ in runs}
    _check_choices(folds, runs, task, choices)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; a bundle is made anew, so that nothing old travels")
    partial = partial_path(out)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _fill(Bundle(partial), runs, folds, task, choices)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _fill(
    bundle: Bundle,
    runs: Sequence[tuple[Path, RunConfig]],
    folds: dict[Path, list],
    task: type[Task],
    choices: Choices,
) -> Manifest:
    out = bundle.folder
    check_wheel(build_wheel(out))
    pins = task.kernel_wheels if choices.wheels is None else choices.wheels
    bring_wheels(pins, out, choices.wheels_from)
    bundle.add(_SCRIPT, _SCRIPT.name)
    data = _add_data(bundle, [config for _, config in runs], task)
    if choices.rule is not None:
        bundle.add(choices.rule, _RULE, _RULE)
    if choices.recipe is not None:
        bundle.add(choices.recipe, _RECIPE, _RECIPE)
    for run, config in runs:
        _add_run(bundle, run, config, folds[run], choices.half)
    files = {
        path.name: entry_of(path, bundle.places.get(path.name)) for path in sorted(out.iterdir())
    }
    manifest = Manifest(
        bundle=choices.name,
        task=runs[0][1].task,
        runs=tuple(RunEntry(name=run.name, folds=tuple(folds[run])) for run, _ in runs),
        data=data,
        rule=None if choices.rule is None else _RULE,
        predict=tuple(choices.predict),
        weights=None if choices.weights is None else tuple(choices.weights),
        recipe=None if choices.recipe is None else _RECIPE,
        hours=choices.hours,
        files=files,
    )
    write_json(out / NOTEBOOK, notebook(choices.name))
    owner, name = choices.owner, choices.name
    write_json(out / "dataset-metadata.json", dataset_metadata(owner, name, choices.licence))
    write_json(out / "kernel-metadata.json", kernel_metadata(owner, name, choices.competition))
    write_json(out / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def sizes(folder: Path) -> list[str]:
    """A line for every file of a bundle, largest first, and one for all."""
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    ordered = sorted(files, key=lambda name: (-files[name], name))
    lines = [f"{files[name] / 1e6:10.3f} MB  {name}" for name in ordered]
    return [*lines, f"{sum(files.values()) / 1e6:10.3f} MB  in {len(files)} files"]


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """In half precision where it is a floating-point tensor whose values fit."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.isfinite(half).all() else tensor


def _folds_of(run: Path) -> list[int | str]:
    """The finished folds of a run, all with the weights that prediction takes."""
    folds = finished_folds(run)
    if not folds:
        raise InputError(f"{run}: no finished fold; train it to its end first")
    for fold in folds:
        if not (path := _weights_of(run, fold)).is_file():
            raise InputError(f"{path}: no such file; a bundle needs it of every finished fold")
    return folds


def _weights_of(run: Path, fold: int | str) -> Path:
    # Only a run on all samples has no validation by which to choose the best.
    return fold_folder(run, fold) / f"{'final' if fold == 'all' else 'best'}.safetensors"


def _check_choices(
    folds: dict[Path, list], runs: Sequence[tuple[Path, RunConfig]], task: type[Task], how: Choices
) -> None:
    if len({config.task for _, config in runs}) > 1:
        raise InputError(f"{runs[1][0]}: a run of another task, expected {runs[0][1].task}")
    number = sum(map(len, folds.values()))
    if how.weights is not None and len(how.weights) != number:
        raise InputError(f"--weights: got {len(how.weights)}, expected {number}, one a fold")
    if how.recipe is not None:
        if how.weights is not None:
            raise InputError("--weights: given beside --recipe, which says it already")
        if (files := read_recipe(how.recipe, runs[0][1].task).files) != len(runs):
            raise InputError(f"{how.recipe}: for {files} files, expected one a run, {len(runs)}")
    if task.ruled and how.rule is None:
        raise InputError("--rule: not given; expected a file written by scripts/rules.py")
    if not task.ruled and how.rule is not None:
        raise InputError(f"{how.rule}: no rule is used here")


def _add_data(bundle: Bundle, configs: Sequence[RunConfig], task: type[Task]) -> str | None:
    """The prepared folder's small files; all runs share those of the first one's."""
    folder = Path(configs[0].data.folder)
    names = task.inference_files(folder)
    for config in configs[1:]:
        for name in names:
            mine, other = folder / name, Path(config.data.folder) / name
            if mine.read_bytes() != other.read_bytes():
                raise InputError(f"{other}: not the same as {mine}; runs of one bundle share it")
    for name in names:
        bundle.add(folder / name, f"{_DATA}.{name}", f"{_DATA}/{name}")
    return _DATA if names else None


def _add_run(bundle: Bundle, run: Path, config: RunConfig, folds: list, half: bool) -> None:
    name, place = run.name, f"runs/{run.name}"
    write_text(bundle.new(f"{name}.config.yaml", f"{place}/config.yaml"), _config_text(config))
    for fold in folds:
        source, inner = _weights_of(run, fold), f"{place}/fold_{fold}"
        state = {key: value for key, value in load_state(source).items() if key in _KEPT}
        if half:
            state["model"] = {key: halved(value) for key, value in state["model"].items()}
        stem = f"{name}.fold_{fold}"
        save_state(bundle.new(f"{stem}.safetensors", f"{inner}/{source.name}"), state)
        done = fold_folder(run, fold) / "done.json"
        bundle.add(done, f"{stem}.done.json", f"{inner}/done.json")
        stand_in = fold_folder(run, fold) / "stand_in.npy"
        if stand_in.exists():  # runs of older versions have none
            bundle.add(stand_in, f"{stem}.stand_in.npy", f"{inner}/stand_in.npy")


def _config_text(config: RunConfig) -> str:
    values: dict[str, Any] = dump_config(config)
    values["root"] = "runs"
    values["data"] |= {"folder": _DATA, "folds": f"{_DATA}/folds.csv"}
    values["loader"]["workers"] = min(values["loader"]["workers"], _WORKERS)
    if values["train"]["precision"] == "bf16":
        print(f"note: {config.name}: bf16 becomes fp16, a T4 has no bf16")
        values["train"]["precision"] = "fp16"
    return yaml.safe_dump(values, sort_keys=False)
