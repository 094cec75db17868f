"""Weight files of published formats as lazily read tensors, and their safe, checked loading into a module.

A checkpoint is a folder (or one file) of safetensors or torch `.bin` / `.pth` files, sharded or not. Torch files are
opened with `weights_only=True`: a file that needs more than tensors to load is refused, never executed.
Knows nothing of the models behind the names.
"""

import json
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modeling.errors import WeightsError

JsonObject = dict[str, object]
State = dict[str, Tensor]

_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_NUM_NAMED = 5  # keys listed in an error message
_MAIN_FILES = ("model.safetensors", "pytorch_model.bin")


def resolve_checkpoint(path_or_hub_id: str) -> Path:
    """A local folder or file; a Hugging Face hub id ("owner/name") is downloaded into its cache (weights as
    safetensors where the repository has them)."""
    local = Path(path_or_hub_id).expanduser()
    if local.exists():
        return local.resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path_or_hub_id):
        raise WeightsError(
            f"no checkpoint at {path_or_hub_id}: give a folder, a weight file, or a Hugging Face hub id like "
            f'"openai/clip-vit-large-patch14"'
        )
    try:
        folder = Path(
            huggingface_hub.snapshot_download(path_or_hub_id, allow_patterns=[*_SMALL_FILES, "*.safetensors"])
        )
        if not any(folder.glob("*.safetensors")):
            huggingface_hub.snapshot_download(path_or_hub_id, allow_patterns=[*_SMALL_FILES, "*.bin"])
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path_or_hub_id} is neither a local path nor a hub repository that can be reached "
            f"({type(error).__name__}: {error}); download it first and give its folder"
        ) from error
    return folder


def read_json(path: Path) -> JsonObject:
    """A JSON object of a checkpoint folder, such as its `config.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path.parent} has no {path.name}: it is not a complete checkpoint folder") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return cast(JsonObject, content)


def read_weight_file(path: Path) -> State:
    """All tensors of one weight file, memory-mapped where the format allows it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _load_torch(path)
    except FileNotFoundError as error:
        raise WeightsError(f"the weight file {path} is missing: download the checkpoint again") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors and loading it could run foreign code, so it is refused; convert it to "
            f"safetensors with a tool you trust ({str(error).splitlines()[0]})"
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or no weight file: {error}") from error
    return _as_state(content, path)


def read_state(folder: Path) -> State:
    """All tensors of a checkpoint: a file's, or a folder's (safetensors before `.bin`), gathered from its shards."""
    if folder.is_file():
        return read_weight_file(folder)
    for main in _MAIN_FILES:
        index = folder / f"{main}.index.json"
        if index.exists():
            return _read_shards(folder, index)
        if (folder / main).exists():
            return read_weight_file(folder / main)
    raise WeightsError(f"{folder} has no weights: expected one of {', '.join(_MAIN_FILES)} or their .index.json")


def strip_prefix(state: Mapping[str, Tensor], *prefixes: str) -> State:
    """The tensors under the first of the prefixes that any key has, named without it; empty when none has."""
    for prefix in prefixes:
        chosen = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if chosen:
            return chosen
    return {}


def check_state(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, source: str, optional: Iterable[str] = ()
) -> None:
    """WeightsError when `state` lacks a tensor of `wanted` (but the `optional` ones) or has one in another shape."""
    missing = [name for name in wanted if name not in state and name not in set(optional)]
    if missing:
        raise WeightsError(
            f"{source} lacks {len(missing)} of {len(wanted)} tensors of this model: {_first(missing)}; "
            f"it has {_first(list(state)) or 'none'}. Check that it is the right kind of checkpoint and complete"
        )
    differing = [
        f"{name} is {tuple(state[name].shape)}, the model needs {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if differing:
        raise WeightsError(
            f"{source} does not fit the model in {len(differing)} tensors: {_first(differing, '; ')}. "
            f"Its config and its weights belong to different models"
        )


def load_checked(module: nn.Module, state: Mapping[str, Tensor], *, source: str, optional: Iterable[str] = ()) -> None:
    """Copies the state's tensors into the module after `check_state`; surplus tensors are left out."""
    wanted = module.state_dict()
    check_state(wanted, state, source=source, optional=optional)
    module.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def _load_torch(path: Path) -> object:
    """Mapped into memory when it is torch's zip format; older files cannot be mapped."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def _as_state(content: object, path: Path) -> State:
    """A state dict, also when it is wrapped as {"state_dict": ...}, {"model": ...} or, by DINO, {"teacher": ...}."""
    for key in ("state_dict", "model", "teacher"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} must hold named tensors only, got {type(content).__name__}")
    return {str(name): tensor for name, tensor in content.items()}


def _read_shards(folder: Path, index: Path) -> State:
    """The tensors that the index names, each from the file it names."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(f'{index} has no "weight_map" object: it is no shard index')
    state: State = {}
    for file_name, names in _by_file(cast(dict[str, str], weight_map), index):
        shard = read_weight_file(folder / file_name)
        lost = [name for name in names if name not in shard]
        if lost:
            raise WeightsError(f"{folder / file_name} lacks tensors that {index.name} places there: {_first(lost)}")
        state.update((name, shard[name]) for name in names)
    return state


def _by_file(weight_map: Mapping[str, str], index: Path) -> Iterator[tuple[str, list[str]]]:
    for file_name in sorted(set(weight_map.values())):
        if Path(file_name).name != file_name:
            raise WeightsError(f"{index} names a shard outside its own folder: {file_name!r}")
        yield file_name, [name for name, place in weight_map.items() if place == file_name]


def _first(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return separator.join(names[:_NUM_NAMED]) + more
