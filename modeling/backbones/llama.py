"""LLaMA for causal language modelling, its tokenizer and LLaVA's connector, from every layout they are published in.

    Hugging Face LLaMA    config.json, model*.safetensors or pytorch_model*.bin, whole or sharded
    Hugging Face LLaVA    the same with language_model.*, multi_modal_projector.* and vision_tower.*
    LLaVA's own           LLaMA's names with model.mm_projector.*, or the projector beside it in mm_projector.bin
    LLaVA's delta         LLaVA's own layout holding differences; `base` names the LLaMA they are added to

Knows nothing of prompts or of what the connector's input is.
"""

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from modeling.backbones.checkpoint import (
    JsonObject,
    State,
    check_state,
    read_json,
    read_state,
    read_weight_file,
    resolve_checkpoint,
)
from modeling.errors import ConfigError, WeightsError

PROJECTOR_FILE = "mm_projector.bin"
_LLAMA_PREFIXES = (("language_model.model.", "model."), ("language_model.", ""), ("model.language_model.", "model."))
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
_DELTA_NORM = 0.05  # mean magnitude of the last norm's weights: about 1 or more in a trained LLaMA, about 0 in a delta


@dataclass(frozen=True)
class LanguageModel:
    """What a language checkpoint gives."""

    model: LlamaForCausalLM
    """In evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    projector: State = field(default_factory=dict)
    """LLaVA's connector as linear_1.weight, linear_1.bias, linear_2.weight, ...; empty for a plain LLaMA."""
    vision_tower: str | None = None
    """The vision tower that LLaVA's own config names: a hub id or path; None in the other layouts."""


def load_llama(
    path_or_hub_id: str,
    *,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    device_map: str | Mapping[str, int | str] | None = None,
    weight_bits: int | None = None,
) -> LanguageModel:
    """The model, tokenizer and connector of a folder or hub id in any of the layouts above.

    With `base`, the checkpoint holds LLaVA's delta weights over that LLaMA. `device_map` spreads the layers over
    devices as accelerate does; `weight_bits` 8 or 4 quantizes the linear layers while loading (bitsandbytes).
    """
    quantization = _quantization(weight_bits, dtype)
    folder = resolve_checkpoint(path_or_hub_id)
    if not folder.is_dir():
        raise WeightsError(f"{folder} must be a folder with config.json, tokenizer and weights, not a single file")
    content = read_json(folder / "config.json")
    config = _llama_config(content, folder)
    state, projector = split_llava_state(_read_with_projector(folder))
    if base is not None:
        state = add_delta(state, read_state(resolve_checkpoint(base)), source=str(folder))
    _check(config, state, folder, is_merged=base is not None)
    with _no_progress_bars():
        model = LlamaForCausalLM.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, device_map=device_map, quantization_config=quantization
        )
    tower = content.get("mm_vision_tower")
    tokenizer = load_tokenizer(folder, config)
    return LanguageModel(model.eval(), tokenizer, projector, tower if isinstance(tower, str) else None)


def load_tokenizer(folder: Path, config: LlamaConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, from `tokenizer.json` or sentencepiece's `tokenizer.model`."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise WeightsError(f"{folder} has neither tokenizer.json nor tokenizer.model: copy the model's tokenizer there")
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), config=config or LlamaConfig(), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(f"the tokenizer in {folder} cannot be read: {error}") from error


def split_llava_state(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """LLaMA's tensors under LLaMA's names, and the connector's as linear_1, linear_2, ...; towers are left out."""
    language: State = {}
    projector: State = {}
    for name, tensor in state.items():
        if connector := re.search(r"(?:^|\.)(?:mm_projector|multi_modal_projector)\.(.+)$", name):
            projector[_connector_name(connector.group(1))] = tensor
        elif "vision_tower." not in name:
            language[_llama_name(name)] = tensor
    return language, projector


def add_delta(delta: Mapping[str, Tensor], base: Mapping[str, Tensor], *, source: str) -> State:
    """base + delta, tensor by tensor, in the delta's dtype.

    Where the delta's vocabulary has more rows than the base's, the rows without a base are taken as they are.
    """
    unknown = [name for name in delta if name not in base]
    if unknown:
        raise WeightsError(
            f"{source} cannot be added to this base: the base lacks {', '.join(unknown[:5])}. Give the LLaMA that the "
            f"delta was made from, as a Hugging Face folder"
        )
    merged: State = {}
    for name, difference in delta.items():
        start = base[name]
        fits = difference.shape == start.shape or (
            name in _VOCABULARY and len(difference) > len(start) and difference.shape[1:] == start.shape[1:]
        )
        if not fits:
            raise WeightsError(
                f"{source} does not fit this base: {name} is {tuple(difference.shape)} in the delta and "
                f"{tuple(start.shape)} in the base. Give the LLaMA of the same size that the delta was made from"
            )
        total = difference.float()
        total[: len(start)] += start
        merged[name] = total.to(difference.dtype)
    return merged


def add_control_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, tokens: Sequence[str]) -> list[int]:
    """The ids of tokens that the tokenizer now knows whole, each one id, wherever it stands in a text.

    A token that was not known before gets the mean of all former rows in the embedding and in the output layer, also
    where the checkpoint holds spare rows for it. Use these ids: encoding such a token alone may give a space piece too.
    """
    num_before = len(tokenizer)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    ids = [_single_id(tokenizer, token) for token in tokens]
    num_rows = model.get_input_embeddings().weight.shape[0]
    if num_rows < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    fresh = [index for token, index in zip(tokens, ids, strict=True) if token not in known]
    num_former = min(num_before, num_rows)
    with torch.no_grad():
        for weight in _vocabulary_weights(model):
            weight[fresh] = weight[:num_former].float().mean(0).to(weight.dtype)
    return ids


def _vocabulary_weights(model: PreTrainedModel) -> list[Tensor]:
    """The embedding's and the output layer's rows; one tensor when they are tied."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [cast(Tensor, layer.weight) for layer in layers if layer is not None]
    return weights[:1] if len(weights) == 2 and weights[0] is weights[1] else weights


def _single_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The token's id, after checking that a text with it encodes to it exactly once, beside nothing but spaces."""
    index = tokenizer.convert_tokens_to_ids(token)
    alone = tokenizer(token, add_special_tokens=False)["input_ids"]
    rest = tokenizer.decode([other for other in alone if other != index])
    inside = tokenizer(f"a{token} b", add_special_tokens=False)["input_ids"]
    if not isinstance(index, int) or alone.count(index) != 1 or inside.count(index) != 1 or rest.strip():
        raise WeightsError(
            f"the tokenizer splits the control token {token!r} into {alone}; it must be one token. Use the tokenizer "
            f"that belongs to the language model, as published"
        )
    return index


def _llama_config(content: JsonObject, folder: Path) -> LlamaConfig:
    """LLaMA's numbers from a config.json of LLaMA, of Hugging Face's LLaVA (text_config) or of LLaVA's own."""
    nested = content.get("text_config")
    numbers = nested if isinstance(nested, dict) else content
    kind = numbers.get("model_type", "llama")
    if kind not in ("llama", "llava", "llava_llama"):
        raise WeightsError(
            f"{folder} holds a language model of kind {kind!r}; only LLaMA can be loaded (kinds llama, llava, "
            f"llava_llama)"
        )
    known = {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling"} - {"model_type", "architectures", "dtype"}
    return LlamaConfig.from_dict({name: value for name, value in numbers.items() if name in known})


def _read_with_projector(folder: Path) -> State:
    """The folder's weights, with those of a separate mm_projector.bin where there is one."""
    separate = folder / PROJECTOR_FILE
    return {**read_state(folder), **(read_weight_file(separate) if separate.exists() else {})}


def _check(config: LlamaConfig, state: State, folder: Path, *, is_merged: bool) -> None:
    with torch.device("meta"):
        wanted = LlamaForCausalLM(config).state_dict()
    optional = ["lm_head.weight"] if config.tie_word_embeddings else []
    check_state(wanted, state, source=str(folder), optional=optional)
    if not is_merged and state["model.norm.weight"].float().abs().mean() < _DELTA_NORM:
        raise WeightsError(
            f"{folder} looks like delta weights (its last norm is about zero): name the LLaMA they belong to as base"
        )


def _llama_name(name: str) -> str:
    for prefix, replacement in _LLAMA_PREFIXES:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def _connector_name(name: str) -> str:
    """LLaVA's own `weight` or `0.weight`, `2.weight` (a GELU stands between) -> Hugging Face's linear_1, linear_2."""
    if name.startswith("linear_"):
        return name
    position, _, rest = name.rpartition(".")
    return f"linear_{int(position or 0) // 2 + 1}.{rest}"


def _quantization(weight_bits: int | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if weight_bits is None:
        return None
    if weight_bits not in (4, 8):
        raise ConfigError(f"weight_bits is {weight_bits}: it must be 4, 8, or left out for unquantized weights")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"weight_bits = {weight_bits} needs the package bitsandbytes, which is not installed: "
            f"run `pip install bitsandbytes`, or leave weight_bits out"
        )
    if weight_bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """`transformers` draws a bar per load on stderr; workers load by the dozen."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
