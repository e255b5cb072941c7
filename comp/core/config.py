"""Typed configuration: YAML plus dotted overrides, checked when built, errors that name the key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from comp.core.errors import InputError
from comp.core.files import write_text
from comp.core.keys import describe_error


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def by_name(*sections: type[Section]) -> Any:
    """The type of a section that is one of several: the one of that `name`, by default the first.

    Each has a field `name` of one value, which is its default.
    """
    names = [section.model_fields["name"].default for section in sections]

    def chosen(value: Any) -> str:
        if isinstance(value, dict):
            return str(value.get("name", names[0]))
        return getattr(value, "name", names[0])

    tagged = tuple(Annotated[section, Tag(name)] for section, name in zip(sections, names))
    return Annotated[Union[tagged], Discriminator(chosen)]  # noqa: UP007


class LoaderConfig(Section):
    """How samples reach the device; nothing here changes a result."""

    workers: int = Field(2, ge=0, description="loader processes per training process")
    prefetch: int = Field(4, ge=1, description="batches each worker reads ahead")
    ahead: bool = Field(
        True, description="GPU: augment and simulate the next batch on a second stream meanwhile"
    )


class OptimConfig(Section):
    """The optimizer, by its name in timm's factory."""

    name: str = Field("adamw", description="timm optimizer name")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, description="decoupled decay, not on norms and biases")
    layer_decay: float | None = Field(None, gt=0, le=1, description="lr factor per layer downward")


class ScheduleConfig(Section):
    """The learning rate as a function of the step."""

    name: Literal["cosine", "constant_cosine", "constant"] = Field("cosine", description="shape")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps, linear from zero")
    constant: float = Field(0.5, ge=0, le=1, description="constant_cosine: share before decay")
    final: float = Field(0.01, ge=0, le=1, description="last lr as a share of the peak")


class TrainConfig(Section):
    """One fit."""

    epochs: int = Field(10, ge=1, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, description="samples per optimizer step, all GPUs together")
    accumulate: int = Field(1, ge=1, description="micro-batches per step and process")
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="autocast type")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights")
    channels_last: bool = Field(False, description="memory format of the network")
    compile: bool = Field(False, description="torch.compile the network")
    graph: bool = Field(
        False,
        description="on one GPU, replay the network as CUDA graphs: for small networks; not with "
        "compile or accumulate",
    )
    start_from: str | None = Field(
        None, description="run folder or .safetensors whose weights of the same fold to start from"
    )
    early_stop: int | None = Field(None, ge=1, description="validations without a better score")
    eval_every: int = Field(1, ge=1, description="epochs between validations")
    eval_train: int | None = Field(
        None,
        ge=0,
        description="training samples, neither augmented nor mixed, that are scored at validation "
        "too; null: 1000 where training mixes samples, else none",
    )
    checkpoint_every: int | None = Field(None, ge=1, description="steps; also after validation")
    log_every: int = Field(10, ge=1, description="steps between log lines")
    tensorboard: bool = Field(False, description="also write TensorBoard events")

    def probes(self, mixes: bool) -> int:
        """How many training samples are scored beside validation, if training mixes samples."""
        if self.eval_train is not None:
            return self.eval_train
        return 1000 if mixes else 0


class RunConfig(Section):
    """Everything that a run depends on; a competition adds its own sections."""

    task: str = Field(description="the competition's kind: fwi or image")
    name: str = Field(pattern=r"^[\w.-]+$", description="run folder's name")
    root: str = Field("runs", description="folder that holds the run folders")
    seed: int = Field(0, ge=0, description="seed of everything drawn")
    folds: tuple[int | Literal["all"], ...] = Field((0,), min_length=1, description="folds to fit")
    limit: int | None = Field(None, ge=1, description="at most so many rows a split")
    loader: LoaderConfig = LoaderConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.root) / self.name


# Settings that may differ between a checkpoint and the run that continues it: they move the work
# about, and leave the mathematics as it was.
RUNTIME_KEYS = (
    "root",
    "folds",
    "loader",
    "train.accumulate",
    "train.checkpoint_every",
    "train.eval_train",
    "train.log_every",
    "train.tensorboard",
)

ConfigT = TypeVar("ConfigT", bound=Section)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not a silent last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        doubled = {str(key) for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {sorted(doubled)[0]!r} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; raises InputError when missing, unreadable or not a mapping."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, expected a YAML config file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: {type(value).__name__} at the top, expected keys and values")
    return value


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with dotted overrides such as `train.epochs=5` set."""
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: expected key=value, as in train.epochs=5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"override {override!r}: {text!r} is not a YAML value") from None
        *parents, leaf = key.split(".")
        place = result
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, dict) else {}
            place = place[parent]
        place[leaf] = value
    return result


def parse_config(cls: type[ConfigT], values: dict[str, Any], source: str | Path) -> ConfigT:
    """Build `cls` from plain values.

    Raises:
        InputError: the first unknown key (with the nearest valid one), wrong type or value out of
            range: what the key got and what it takes.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {describe_error(error, cls)}") from None


def dump_config(config: Section) -> dict[str, Any]:
    """The resolved config as plain JSON-compatible values."""
    return config.model_dump(mode="json")


def write_config(path: str | Path, config: Section) -> None:
    """Write the resolved config atomically; it can be given to `--config` again."""
    write_text(path, yaml.safe_dump(dump_config(config), sort_keys=False))


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: old → new` for every setting that matters to the result and differs."""
    lines = []
    for name in old.keys() | new.keys():
        key = prefix + name
        before, after = old.get(name), new.get(name)
        if key in RUNTIME_KEYS or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            lines += config_differences(before, after, f"{key}.")
        else:
            lines.append(f"{key}: {before!r} → {after!r}")
    return sorted(lines)
