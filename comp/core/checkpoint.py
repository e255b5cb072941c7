"""Nested training state in one safetensors file, whole or absent; opening it can run no code.

Tensors are stored as such; the tree around them (dicts, lists, numbers, strings) goes as JSON into
the file's metadata, each tensor replaced by its name.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from comp.core.errors import InputError
from comp.core.files import atomic_path


def save_state(path: str | Path, state: Any) -> None:
    """Write a tree of dicts, lists, tuples, tensors and JSON values atomically.

    Raises:
        TypeError: a leaf that is neither a tensor nor a JSON value.
        InputError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_encode(state, "", tensors))
    with atomic_path(path) as partial:
        try:
            save_file(tensors, partial, metadata={"tree": tree})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_state(path: str | Path) -> Any:
    """Read back what `save_state` wrote, tensors on the CPU, tuples as lists."""
    return _open(path, lambda file: _decode(_tree(file, path), file))


def load_note(path: str | Path, key: str) -> Any:
    """One tensor-free entry of a saved dict, without reading the tensors."""
    return _open(path, lambda file: _decode(dict(_tree(file, path)["dict"])[key], file))


def count_parameters(path: str | Path) -> int:
    """Parameters of the network in a checkpoint, without reading its tensors.

    Statistics of batch norms are in the weights too, and are not counted.
    """
    own = ("running_mean", "running_var", "num_batches_tracked")

    def count(file: Any) -> int:
        names = file.keys()
        counted = [
            name
            for name in names
            if name.startswith("/model/") and name.rpartition(".")[2] not in own
        ]
        shapes = [file.get_slice(name).get_shape() for name in counted]
        return sum(math.prod(shape) for shape in shapes)

    return _open(path, count)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: str | Path) -> None:
    """Load weights strictly; raises InputError showing the first names or shapes that differ."""
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    surplus = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or surplus or reshaped:
        found = [f"missing {missing[0]}"] if missing else []
        found += [f"unknown {surplus[0]}"] if surplus else []
        found += [f"shape of {reshaped[0]}"] if reshaped else []
        count = len(missing) + len(surplus) + len(reshaped)
        raise InputError(
            f"{source}: weights of another network: {count} differ: {', '.join(found)}"
        )
    model.load_state_dict(weights)


def _open(path: str | Path, read: Any) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None


def _tree(file: Any, path: str | Path) -> Any:
    metadata = file.metadata() or {}
    if "tree" not in metadata:
        raise InputError(f"{path}: bare weights, expected a checkpoint of this project")
    return json.loads(metadata["tree"])


def _encode(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # A copy: safetensors refuses tensors that share memory, as tied weights do.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        # As pairs, because optimizer states have integer keys and JSON would make them strings.
        return {"dict": [[k, _encode(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_encode(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: cannot save a {type(value).__name__}")


def _decode(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return file.get_tensor(value["tensor"])
    if "dict" in value:
        return {k: _decode(v, file) for k, v in value["dict"]}
    return [_decode(v, file) for v in value["list"]]
