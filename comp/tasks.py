"""The one place that knows every competition: a name to its task, a config file to its config."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from comp.core.config import (
    RunConfig,
    apply_overrides,
    config_differences,
    dump_config,
    parse_config,
    read_yaml,
)
from comp.core.errors import InputError

if TYPE_CHECKING:  # torch comes with it, and a script may end before it needs a task
    from comp.core.task import Task

# Imported on demand: an image competition needs none of the wave solver's packages.
_TASKS = {"fwi": ("comp.fwi.task", "FwiTask"), "image": ("comp.image.task", "ImageTask")}


def task_class(name: str) -> "type[Task]":
    """The task class of a competition kind; raises InputError naming the known ones."""
    if name not in _TASKS:
        raise InputError(f"task {name!r}: unknown; takes one of {', '.join(_TASKS)}")
    module, attribute = _TASKS[name]
    return getattr(import_module(module), attribute)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config, apply dotted overrides, check every key.

    Raises:
        InputError: a missing file, an unknown key, a wrong type or a value out of range.
    """
    values = apply_overrides(read_yaml(path), overrides)
    name = values.get("task")
    if not isinstance(name, str):
        raise InputError(f"{path}: key 'task': got {name!r}; takes one of {', '.join(_TASKS)}")
    return parse_config(task_class(name).config_type, values, path)


# What may differ where a trained run predicts: where the data are, and how it computes.
_PREDICTION_KEYS = ("data.folder", "data.folds", "train.precision", "train.channels_last")


def load_run(run: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a run folder, to predict by.

    Raises:
        InputError: as `load_config`; an override of what the networks were trained with.
    """
    path = run / "config.yaml"
    trained, config = load_config(path), load_config(path, overrides)
    for line in config_differences(dump_config(trained), dump_config(config)):
        if line.partition(":")[0] not in _PREDICTION_KEYS:
            takes = ", ".join(_PREDICTION_KEYS)
            raise InputError(
                f"{path}: trained with another {line}; prediction takes loader.*, {takes}"
            )
    return config


def build_task(config: RunConfig) -> "Task":
    """The task that `config` describes."""
    return task_class(config.task)(config)
