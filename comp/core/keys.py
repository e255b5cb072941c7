"""The dotted keys of a config class, and what pydantic found wrong in terms of them."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def describe_error(error: ValidationError, cls: type[BaseModel]) -> str:
    """One line on the first mistake in a config: the key, what it got and what it takes."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    parts, known = _locate(cls, first["loc"])
    key, got, message = ".".join(parts), first["input"], first["msg"]
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return f"unknown key '{key}'; the nearest valid key is '{near[0]}'"
    if first["type"] == "union_tag_invalid":
        parts.append("name")
        got, message = got["name"], f"Input should be one of {first['ctx']['expected_tags']}"
    # Positions in a tuple and the branches of a union follow the key in pydantic's location.
    while parts and ".".join(parts) not in known:
        parts.pop()
    key = ".".join(parts) or key
    meaning = f" ({known[key]})" if known.get(key) else ""
    if first["type"] == "missing":
        *place, last = first["loc"]
        if isinstance(last, str):
            return f"key '{key}'{meaning} is missing"
        # A tuple that is too short: pydantic misses each of its further positions.
        beside = [other for other in error.errors() if other["loc"][:-1] == tuple(place)]
        message = f"Input should be {last + len(beside)} values"
    message = message.replace("Input should be", "takes").replace("Value error, ", "")
    return f"key '{key}': got {got!r}; {message[:1].lower()}{message[1:]}{meaning}"


def _locate(cls: type[BaseModel], place: Sequence[str | int]) -> tuple[list[str], dict[str, str]]:
    """The keys along a pydantic location, and all valid keys where the sections of `place` are.

    Where a section is one of several, pydantic puts the name of the chosen one behind its key.
    """
    parts: list[str] = []
    known, options = config_keys(cls), {"": cls}
    for part in map(str, place):
        if len(options) > 1 and part in options:
            prefix, cls = ".".join(parts) + ".", options[part]
            known = {k: v for k, v in known.items() if not k.startswith(prefix)}
            known |= config_keys(cls, prefix)
            options = {"": cls}
            continue
        cls = options.get("", cls)
        parts.append(part)
        options = _sections(cls.model_fields[part].annotation) if part in cls.model_fields else {}
    return parts, known


def _sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a field may hold: one without a name, or several by their names."""
    types = [get_args(each)[0] if get_args(each) else each for each in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"": annotation}
    if not types or not all(isinstance(t, type) and issubclass(t, BaseModel) for t in types):
        return {}
    return {each.model_fields["name"].default: each for each in types}


def config_keys(cls: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted keys of a config class with their descriptions, sections included."""
    keys: dict[str, str] = {}
    for name, info in cls.model_fields.items():
        keys[prefix + name] = info.description or ""
        for section in _sections(info.annotation).values():
            keys |= config_keys(section, f"{prefix}{name}.")
    return keys
