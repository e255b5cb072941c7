"""The steps from a prepared folder to a submission: what each makes, and whether that is there."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comp.core.config import RunConfig, read_yaml
from comp.core.errors import InputError
from comp.core.files import atomic_path, read_json, read_table, write_json
from comp.core.predict import fold_folder, fold_weights
from comp.core.predictions import ids_path
from comp.core.runs import refuse_other_config
from comp.core.task import Task

_STEPS = "steps.json"
_STARTS = {
    "python": [sys.executable],
    "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
}


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        name: what it is called.
        command: as it could be typed.
        outputs: files that are there once it is done.
        inputs: what they are made of; where one is newer, the step is due again.
        kept: the outputs stay, whatever command made them.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...] = ()
    kept: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be submitted.

    Attributes:
        config: of the run.
        train: arguments of the training script: the config file, overrides.
        scripts: folder of the scripts.
        test: test folder.
        sample: sample submission.
        out: the CSV to write.
        folds: number of folds to cut where there is no fold file.
    """

    config: RunConfig
    train: tuple[str, ...]
    scripts: Path
    test: Path
    sample: Path
    out: Path
    folds: int


def steps(plan: Plan, task: type[Task]) -> Iterator[Step]:
    """The steps in turn; each is made when those before it are done, for it looks at their files.

    Raises:
        InputError: no test folder or sample; a run folder of another config.
    """
    for path in (plan.test, plan.sample):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    config, run = plan.config, plan.config.folder
    if (saved := run / "config.yaml").exists():
        refuse_other_config(saved, read_yaml(saved), config)

    def python(script: str, *words: str | Path | int) -> tuple[str, ...]:
        return ("python", str(plan.scripts / script), *map(str, words))

    def launched(script: str, *words: str | Path | int) -> tuple[str, ...]:
        return ("accelerate", "launch", *python(script, *words)[1:])

    kind, data, file = ("--task", config.task), config.data.folder, Path(config.data.folds)
    cut = python("make_folds.py", *kind, "--data", data, "--folds", plan.folds, "--out", file)
    yield Step("folds", cut, (file,), kept=True)
    places = [fold_folder(run, fold) for fold in config.folds]
    done = tuple(place / "done.json" for place in places)
    yield Step("train", launched("train.py", *plan.train), done, kept=True)
    weights = tuple(fold_weights(run, fold) for fold in config.folds)
    rule: tuple[str | Path, ...] = ()
    held_out = [fold for fold in config.folds if fold != "all"]
    if held_out:
        parts = tuple(fold_folder(run, fold) / "predictions/valid.npy" for fold in held_out)
        folds = ("--folds", *held_out)
        command = launched("predict.py", "--run", run, "--oof", "--tta", *folds)
        yield Step("out-of-fold", command, parts, weights)
        ids, oof = run / "oof.expected.csv", run / "oof.npy"
        _write_expected(ids, file, held_out)
        command = python("ensemble.py", "--join-folds", *parts, "--ids", ids, "--out", oof)
        yield Step("join", command, (oof, ids_path(oof)), parts)
        if task.ruled:
            rule = ("--rule", run / "rule.json")
            command = python("rules.py", "--data", data, "--oof", oof, "--out", rule[1])
            yield Step("rule", command, (rule[1],), (oof,))
    elif task.ruled:
        raise InputError(f"folds {list(config.folds)}: none is held out, so no rule can be found")
    parts = tuple(place / "predictions/test.npy" for place in places)
    command = launched("predict.py", "--run", run, "--test", plan.test, "--tta")
    command = (*command, "--folds", *map(str, config.folds))
    yield Step("predict", command, parts, (*weights, plan.test))
    mean = run / "test.npy"
    command = python("ensemble.py", "--predictions", *parts, "--out", mean)
    yield Step("ensemble", command, (mean, ids_path(mean)), parts)
    about = (*kind, "--data", data, *rule) if task.ruled else kind
    made_of = (mean, plan.sample, *rule[1:])
    command = python("submit.py", *about, "--predictions", mean, "--sample", plan.sample)
    yield Step("submit", (*command, "--out", str(plan.out)), (plan.out,), made_of)


def reason_to_skip(step: Step, last: Sequence[str] | None) -> str | None:
    """Why a step need not run, if so; `last` is the command of its last time."""
    if not all(path.exists() for path in step.outputs):
        return None
    there = ", ".join(map(str, step.outputs[:2])) + (", …" if len(step.outputs) > 2 else "")
    if step.kept:
        return f"{there} there"
    newest = max((path.stat().st_mtime_ns for path in step.inputs), default=0)
    if list(step.command) != last or newest > min(p.stat().st_mtime_ns for p in step.outputs):
        return None
    return f"{there} there, by this command, newer than its inputs"


def run_steps(plan: Plan, task: type[Task]) -> None:
    """Run the steps that are due and print the reason for every other.

    Raises:
        InputError: a step failed.
    """
    path = plan.config.folder / _STEPS
    for step in steps(plan, task):
        last = read_json(path) if path.exists() else {}
        reason = reason_to_skip(step, last.get(step.name))
        if reason is not None:
            print(f"{step.name}: skipped: {reason}", flush=True)
            continue
        print(f"\n$ {shlex.join(step.command)}", flush=True)
        start = _STARTS[step.command[0]]
        if code := subprocess.run([*start, *step.command[1:]]).returncode:
            raise InputError(f"{step.name}: exit code {code}, see above; again goes on from here")
        if path.parent.exists():
            write_json(path, {**last, step.name: list(step.command)})


def _write_expected(path: Path, folds: Path, held_out: Sequence[int | str]) -> None:
    """The ids of the folds that were trained: not all of them need be."""
    table = read_table(folds)
    some = table[table["fold"].isin([str(fold) for fold in held_out])]
    with atomic_path(path) as partial:
        some[["id"]].to_csv(partial, index=False)
