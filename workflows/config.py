"""Settings of a step: one frozen pydantic model per step, filled from a YAML file, then flags, then `--set key=value`.

Unknown keys are refused by their full path, with the nearest known one. Every field carries a docstring below it with
its unit; it becomes the field's description.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from modeling.errors import ConfigError
from workflows.storage import split_uri

MOST_PROBLEMS_SHOWN = 6


class StepConfig(BaseModel):
    """Base of every config: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


Config = TypeVar("Config", bound=StepConfig)


def load_config(
    cls: type[Config],
    file: str | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """The config from `file` (YAML), overridden by `flags` (dotted keys; None means not given), then by `sets`.

    `sets` are "key=value" texts whose value is read as YAML, so `--set a.b=[1, 2]` gives a list.
    """
    return check_settings(cls, read_settings(file, flags, sets))


def read_settings(
    file: str | None = None, flags: Mapping[str, Any] | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """The settings as nested mappings, not checked yet: from `file`, then `flags`, then `sets`."""
    values = _read_file(file) if file else {}
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(values, key, value)
    for text in sets:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {text!r} is not of the form key=value. Example: --set min_score=0.5")
        _assign(values, key.strip(), _parse_yaml(value, source=f"--set {text}"))
    return values


def check_settings(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """The config of these settings; ConfigError says which are wrong, by their full path."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, cls)) from None


def _read_file(file: str) -> dict[str, Any]:
    folder, name = split_uri(file)
    values = _parse_yaml(folder.read_bytes(name).decode("utf-8", "replace"), source=file)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold keys and values at its top level, got a {type(values).__name__}.")
    return values


def _parse_yaml(text: str, *, source: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = str(error).replace("\n", " ")
        raise ConfigError(f"{source} is not valid YAML: {where}") from error


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key, making the mappings on the way."""
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} holds {inner!r}, which has no keys of its own.")
        place = inner
    place[last] = value


def _explain(error: ValidationError, cls: type[BaseModel]) -> str:
    problems = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown setting {path}{_suggestion(cls, item['loc'])}")
        elif item["type"] == "missing":
            problems.append(f"{path} is needed{_description(cls, item['loc'])}")
        else:
            got = f", got {item['input']!r}" if not isinstance(item["input"], dict) else ""
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{path or 'the settings'}: {message}{got}{_description(cls, item['loc'])}")
    more = f"; and {len(problems) - MOST_PROBLEMS_SHOWN} more" if len(problems) > MOST_PROBLEMS_SHOWN else ""
    return "; ".join(problems[:MOST_PROBLEMS_SHOWN]) + more


def _suggestion(cls: type[BaseModel], location: Sequence[int | str]) -> str:
    """The nearest known key at that place, or the list of keys."""
    *parents, key = (str(part) for part in location)
    model: type[BaseModel] | None = cls
    for parent in parents:
        model = _inner_model(model, parent)
    if model is None:
        return ""
    known = sorted(model.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    prefix = "".join(f"{parent}." for parent in parents)
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    return f"; the settings there are {', '.join(known)}"


def _description(cls: type[BaseModel], location: Sequence[int | str]) -> str:
    model: type[BaseModel] | None = cls
    for parent in location[:-1]:
        model = _inner_model(model, str(parent))
    found = model.model_fields.get(str(location[-1])) if model is not None and location else None
    return f" ({found.description.rstrip('.')})" if found is not None and found.description else ""


def _inner_model(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The model behind a field, if its annotation holds one."""
    found = model.model_fields.get(key) if model is not None else None
    if found is None:
        return None
    for candidate in (found.annotation, *get_args(found.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
