"""A PS-ReID model on disk: one folder, safetensors only.

config.json           PsReidConfig
psreid.safetensors    adapters, control tokens, metric, grounding, prompt head, and SAM's trained mask decoder
lora/                 the peft adapter
metric/               the instruct-ReID model whose features are the metric, unless it is one of the shipped weights
clip/ llama/          Hugging Face folders, only for parts that the config does not take from a published source
sam.safetensors       likewise
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessor, LlamaForCausalLM

from modeling.backbones.sam import save_sam
from modeling.errors import WeightsError
from modeling.ps_reid.build import build_model, build_segmentation, lora_config
from modeling.ps_reid.config import CONFIG_VERSION, PsReidConfig
from modeling.ps_reid.folder import CONFIG_FILE, METRIC_FOLDER, is_shipped, metric_of, model_family, model_folder
from modeling.ps_reid.instruct_metric import InstructMetric
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.segmentation import SegmentationModule

_BACKBONES = ("vision.", "language.", "segmentation.sam.")
_MASK_DECODER = "segmentation.sam.mask_decoder."
_PARTS_FILE, _LORA_FILE = "psreid.safetensors", "adapter_model.safetensors"


def save_model(model: PsReid, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes the model; weights are stored in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    if config.vision.source is None:
        _save_clip(model, folder / "clip", dtype)
    if config.language.source is None:
        _save_llama(model, folder / "llama", dtype)
    if config.segmentation.source is None:
        assert config.segmentation.sam is not None
        save_sam(deepcopy(model.segmentation.sam).to(dtype), config.segmentation.sam, folder / "sam.safetensors")
    if isinstance(model.metric, InstructMetric) and not is_shipped(model.metric.source):
        _copy_folder(model_folder(model.metric.source), folder / METRIC_FOLDER)
    lora_config(config.language).save_pretrained(str(folder / "lora"))
    lora = get_peft_model_state_dict(model.language)
    save_file(_stored(lora, dtype), folder / "lora" / _LORA_FILE)
    save_file(_stored(_own_state(model), dtype), folder / _PARTS_FILE)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")


def _copy_folder(source: Path, target: Path) -> None:
    """As it is, so that its identity stays the same; nothing to do for a model saved again where it lies."""
    if source.resolve() != target.resolve():
        shutil.copytree(source, target, dirs_exist_ok=True)


def load_model(model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PsReid:
    """The saved model, in evaluation mode. Raises WeightsError when a file is missing or does not fit."""
    folder = model_folder(model)
    config = _read_config(folder)
    built = build_model(_with_local_sources(config, folder), dtype=dtype)
    lora = _read_tensors(folder / "lora" / _LORA_FILE)
    set_peft_model_state_dict(built.language, lora)
    built.config = config
    _load_own(built, _read_tensors(folder / _PARTS_FILE), str(folder / _PARTS_FILE))
    return built.to(device=device, dtype=dtype).eval()


def read_model_config(model: str) -> PsReidConfig:
    """The config of a saved model, without its weights. Raises WeightsError where there is none."""
    return _read_config(model_folder(model))


def load_segmentation(model: str, *, device: str = "cpu") -> SegmentationModule:
    """Only SAM and its trained mask decoder, without the language model."""
    folder = model_folder(model)
    module = build_segmentation(_with_local_sources(_read_config(folder), folder).segmentation)
    tensors = _read_tensors(folder / _PARTS_FILE)
    decoder = {k.removeprefix(_MASK_DECODER): v for k, v in tensors.items() if k.startswith(_MASK_DECODER)}
    if decoder:
        module.sam.mask_decoder.load_state_dict(decoder)
    return module.to(device).eval()


def _own_state(model: PsReid) -> dict[str, Tensor]:
    """Everything that is not a backbone, and the mask decoder where SAM is a published file."""
    keeps_decoder = model.config.segmentation.source is not None
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict().items()
        if not name.startswith(_BACKBONES) or (keeps_decoder and name.startswith(_MASK_DECODER))
    }


def _stored(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors as the file keeps them; counters stay whole numbers."""
    return {k: (v.to(dtype) if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def _load_own(model: PsReid, tensors: dict[str, Tensor], source: str) -> None:
    expected = set(_own_state(model))
    if missing := sorted(expected - set(tensors)) + sorted(set(tensors) - expected):
        raise WeightsError(f"{source} does not fit its config.json; the first names at odds are {missing[:4]}")
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{source} does not fit its config.json: {error}") from error


def _save_clip(model: PsReid, folder: Path, dtype: torch.dtype) -> None:
    tower = model.vision.model
    deepcopy(tower).to(dtype).save_pretrained(folder)
    mean, std = model.vision.config.image_mean, model.vision.config.image_std
    CLIPImageProcessor(image_mean=list(mean), image_std=list(std)).save_pretrained(folder)


def _save_llama(model: PsReid, folder: Path, dtype: torch.dtype) -> None:
    """The base language model without LoRA, as Hugging Face writes it, with the tokenizer."""
    state = {
        name.replace(".base_layer.", "."): tensor.to(dtype)
        for name, tensor in model.language.state_dict().items()
        if "lora_" not in name
    }
    plain = LlamaForCausalLM(model.language.config).to(dtype)
    plain.load_state_dict(state)
    plain.save_pretrained(folder)
    model.template.tokenizer.save_pretrained(folder)


def _with_local_sources(config: PsReidConfig, folder: Path) -> PsReidConfig:
    """The config with the parts inside the folder as sources."""

    def located(part: str, name: str) -> dict[str, object]:
        section = getattr(config, part)
        return {part: section if section.source else section.model_copy(update={"source": str(folder / name)})}

    update = located("vision", "clip") | located("language", "llama") | located("segmentation", "sam.safetensors")
    update["metric_source"] = metric_of(folder, config.metric_source)
    return config.model_copy(update=update)


def _read_config(folder: Path) -> PsReidConfig:
    if (family := model_family(folder)) is not None:
        raise WeightsError(
            f"{folder} holds an {family} model, which makes an index (psreid index --model) but judges no pairs and "
            "draws no masks; a PS-ReID model is needed here"
        )
    text = (folder / CONFIG_FILE).read_text()
    try:
        version = json.loads(text).get("version")
        if version != CONFIG_VERSION:
            raise WeightsError(f"{folder / CONFIG_FILE} has version {version}; this psreid reads {CONFIG_VERSION}")
        return PsReidConfig.model_validate_json(text)
    except (ValidationError, json.JSONDecodeError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG_FILE} is not a psreid model's config: {error}") from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(f"{file} is missing: the model folder is incomplete; copy it again as a whole")
    try:
        return load_file(file)
    except Exception as error:
        raise WeightsError(f"{file} cannot be read as safetensors ({error}); copy it again") from error
