"""A PS-ReID model from its config: published parts where the config names a source, random ones where it does not."""

from collections.abc import Collection

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from modeling.backbones.clip import VisionEncoder, load_clip
from modeling.backbones.llama import load_llama
from modeling.backbones.sam import build_sam, load_sam
from modeling.errors import ConfigError
from modeling.instruct_reid.checkpoint import load_irm
from modeling.ps_reid.config import PRESETS, LanguageConfig, PsReidConfig, SegmentationConfig, VisionConfig
from modeling.ps_reid.grounding import Finding
from modeling.ps_reid.instruct_metric import InstructMetric
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.prompt import PromptTemplate
from modeling.ps_reid.segmentation import SegmentationModule

LORA_TARGETS = ["q_proj", "v_proj"]


def named_preset(name: str) -> PsReidConfig:
    """The preset of this name. Raises ConfigError naming the presets there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def build_model(
    config: PsReidConfig,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype = torch.float32,
    segmentation_dtype: torch.dtype | None = None,
) -> PsReid:
    """The model of a config, in evaluation mode; `segmentation_dtype` keeps SAM in another precision than the rest.

    `tokenizer` is needed when the language model is built with random weights. Raises WeightsError when a source is
    missing or does not fit, ConfigError when the parts contradict each other.
    """
    language, own_tokenizer = _build_language(config.language, tokenizer, dtype)
    vision = _build_vision(config.vision, dtype)
    model = PsReid(
        config,
        vision=vision,
        language=with_lora(language, config.language),
        template=PromptTemplate.build(own_tokenizer, config.prompt),
        segmentation=build_segmentation(config.segmentation, segmentation_dtype or dtype),
        metric=_build_metric(config, vision),
    )
    model.control.start_from(language.get_input_embeddings().weight, language.get_output_embeddings().weight)
    return model.eval()


def _build_vision(config: VisionConfig, dtype: torch.dtype) -> VisionEncoder:
    if config.source is None:
        return VisionEncoder.build(config.tower).to(dtype)
    return load_clip(config.source, feature_layer=config.tower.feature_layer, dtype=dtype)


def _build_metric(config: PsReidConfig, vision: VisionEncoder) -> InstructMetric | None:
    return load_metric(config.metric_source, vision) if config.metric_source else None


def load_metric(source: str, vision: VisionEncoder) -> InstructMetric:
    """An instruct-ReID model as the metric of a PS-ReID with this vision encoder. Raises WeightsError as `load_irm`."""
    pixels = vision.config
    return InstructMetric(load_irm(source), source=source, mean=pixels.image_mean, std=pixels.image_std)


def with_metric(model: PsReid, source: str) -> PsReid:
    """The model with an instruct-ReID metric in place of its own; what reads the metric has to be trained anew."""
    model.metric = load_metric(source, model.vision).to(model.device)
    model.config = model.config.model_copy(update={"metric_source": source})
    return model


def with_finding(model: PsReid) -> PsReid:
    """The model with states that what they point to joins (`joins_found`); it gives the same as before until trained.

    Raises ConfigError where nothing points.
    """
    if model.grounding is None:
        raise ConfigError(
            "this model has no grounding (has_grounding: false), so nothing is found that could be joined"
        )
    if model.grounding.finding is None:
        model.grounding.finding = Finding(model.language.config.hidden_size).to(model.device)
    model.config = model.config.model_copy(update={"joins_found": True})
    return model


def with_segmentation(model: PsReid, module: SegmentationModule, config: SegmentationConfig) -> PsReid:
    """The model with another one's SAM. Raises ConfigError when the widths of their prompts differ."""
    if module.prompt_dim != model.segmentation.prompt_dim:
        raise ConfigError(
            f"this SAM takes prompts of width {module.prompt_dim}, the model gives {model.segmentation.prompt_dim}; "
            "take one of the same preset"
        )
    model.segmentation = module.to(model.device)
    model.config = model.config.model_copy(update={"segmentation": config})
    return model


def with_vision(model: PsReid, encoder: VisionEncoder, config: VisionConfig) -> PsReid:
    """The model with another one's vision encoder. Raises ConfigError when their settings differ."""
    if config != model.config.vision:
        raise ConfigError(
            f"this vision encoder is {config}, the model's {model.config.vision}; take one of the same preset"
        )
    model.vision = encoder.to(model.device)
    return model


def with_fresh_parts(model: PsReid, parts: Collection[str], *, seed: int) -> PsReid:
    """The model with random weights, decided by `seed`, in these parts (`trainable_parts`, or "lora").

    Raises ConfigError for a part that comes with published weights, or that the model has not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = PsReid(
            model.config,
            vision=model.vision,
            language=model.language,
            template=model.template,
            segmentation=model.segmentation,
            metric=model.metric if isinstance(model.metric, InstructMetric) else None,
        )
        words = model.language
        new.control.start_from(words.get_input_embeddings().weight.cpu(), words.get_output_embeddings().weight.cpu())
        own, drawn = trainable_parts(model), trainable_parts(new)
        can_be_drawn = sorted({"lora"} | {name for name in drawn if drawn[name] is not own[name]})
        if others := sorted(set(parts) - set(can_be_drawn)):
            raise ConfigError(f"{', '.join(others)} cannot begin anew; what can: {', '.join(can_be_drawn)}")
        for name in own:
            if name in parts:
                own[name].load_state_dict(drawn[name].state_dict())
        for module in model.language.modules():
            if "lora" in parts and isinstance(module, LoraLayer):
                module.reset_lora_parameters("default", init_lora_weights=True)
    return model


def build_segmentation(config: SegmentationConfig, dtype: torch.dtype = torch.float32) -> SegmentationModule:
    """SAM alone, as one config asks for it."""
    if config.source is not None:
        sam, _ = load_sam(config.source, config=config.sam, dtype=dtype)
    elif config.sam is not None:
        sam = build_sam(config.sam).to(dtype)
    else:
        raise ConfigError(
            "segmentation needs either a source (a SAM checkpoint) or sam (its numbers); both are missing"
        )
    return SegmentationModule(sam, prompts_box=config.prompts_box, zoom=config.zoom)


def _build_language(
    config: LanguageConfig, tokenizer: PreTrainedTokenizerBase | None, dtype: torch.dtype
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    if config.source is not None:
        loaded = load_llama(
            config.source, base=config.base, dtype=dtype, device_map=config.device_map, weight_bits=config.weight_bits
        )
        return loaded.model, loaded.tokenizer
    if tokenizer is None:
        raise ConfigError("a language model with random weights needs a tokenizer; give one, or a source that has one")
    numbers = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_size,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(numbers).to(dtype), tokenizer


def with_lora(language: LlamaForCausalLM, config: LanguageConfig) -> LlamaForCausalLM:
    """The same model with LoRA modules in place on the query and value projections (peft; §V-A.3: rank 8)."""
    inject_adapter_in_model(lora_config(config), language)
    return language


def lora_config(config: LanguageConfig) -> LoraConfig:
    """peft's view of the LoRA settings."""
    return LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=LORA_TARGETS
    )


def trainable_parts(model: PsReid) -> dict[str, nn.Module]:
    """What a stage may train, by the names used in training configs; CLIP and SAM's encoder stay frozen (§V-A.3)."""
    parts: dict[str, nn.Module | None] = {
        "query_adapter": model.query_adapter,
        "target_adapter": model.target_adapter,
        "place": model.place,
        "control_tokens": model.control,
        "metric": model.metric,
        "hint": model.hint,
        "grounding": model.grounding,
        "box_head": model.box_head,
        "mask_prompt": model.mask_prompt,
        "mask_decoder": model.segmentation.sam.mask_decoder,
    }
    return {name: part for name, part in parts.items() if part is not None}
