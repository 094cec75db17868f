"""How much memory training takes, before anything is loaded: weights, gradients, optimizer and activations per GPU.

The model is built on PyTorch's meta device, so 13 billion parameters cost nothing. Counts are exact; activations are
an estimate from the sizes of the largest tensors that the backward pass keeps.

Bytes per parameter, with w GPUs (bf16; fp32 keeps frozen weights in 4 bytes):

                     frozen          trained
    weights          2 (SAM: 4)      4          over w for ZeRO 3
    gradients                        4          over w for ZeRO 2 and 3
    optimizer                        8 + 4      moments and ZeRO's master copy (none for ZeRO 0), over w for ZeRO 1-3
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from modeling.backbones.clip import VisionEncoder
from modeling.errors import ConfigError
from modeling.ps_reid.build import build_segmentation, with_lora
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.prompt import PromptTemplate
from workflows.train.config import PsReidTrainConfig
from workflows.train.parts import select_trainable

VOCABULARY = 32000  # of LLaMA; a preset that is built from scratch has a tokenizer of its own, much smaller
TRAINED_BYTES, GRADIENT_BYTES, MOMENTS_BYTES, MASTER_BYTES = 4, 4, 8, 4
ANSWER_TOKENS = 16  # words of a question, roughly


@dataclass(frozen=True)
class Sizes:
    """Parameters of a model, by how they are kept."""

    trained: int
    frozen_large: int
    """Of vision encoder and language model: kept in the run's precision."""
    frozen_float32: int
    """Of everything else, SAM above all."""
    largest_layer: int
    """Parameters of the largest module that ZeRO 3 gathers at once."""

    @property
    def total(self) -> int:
        return self.trained + self.frozen_large + self.frozen_float32


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one GPU."""

    zero_stage: int
    gpus: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def build_on_meta(config: PsReidConfig) -> PsReid:
    """The model of a config without any memory for its weights; nothing is downloaded or read.

    Raises ConfigError when the config names a SAM file without SAM's numbers.
    """
    if config.segmentation.sam is None:
        raise ConfigError("the config has no numbers of SAM (segmentation.sam), so its size cannot be told")
    numbers = config.language
    published = numbers.source is not None
    with torch.device("meta"):
        language = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=numbers.hidden_size, num_hidden_layers=numbers.num_layers,
                num_attention_heads=numbers.num_heads, intermediate_size=numbers.mlp_size,
                tie_word_embeddings=not published,
            )
        )  # fmt: skip
        return PsReid(
            config,
            vision=VisionEncoder.build(config.vision.tower),
            language=with_lora(language, numbers),
            template=_EmptyTemplate(),
            segmentation=build_segmentation(config.segmentation.model_copy(update={"source": None})),
        )


class _EmptyTemplate(PromptTemplate):
    """Stands where a tokenizer would be; sizes do not depend on it."""

    def __init__(self) -> None:
        nothing: PreTrainedTokenizerBase | None = None
        object.__setattr__(self, "tokenizer", nothing)


def sizes_of(model: PsReid, trains: Sequence[str]) -> Sizes:
    """The counts of a model of which the named parts are trained."""
    trained = sum(p.numel() for p in select_trainable(model, trains).values())
    large = [p for part in (model.vision, model.language) for p in part.parameters() if not p.requires_grad]
    frozen_large = sum(p.numel() for p in large)
    total = sum(p.numel() for p in model.parameters())
    largest = max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())
    return Sizes(trained, frozen_large, total - trained - frozen_large, largest)


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """Trained parameters by part, in the model's order: how many there are."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "language (LoRA)" if "lora_" in name else _part_of(name)
            counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def memory_plan(sizes: Sizes, *, zero_stage: int, gpus: int, precision: str, activations: int = 0) -> MemoryPlan:
    """What one of the GPUs holds, at its fullest."""
    frozen_bytes = 2 if precision == "bf16" else 4
    weights = sizes.frozen_large * frozen_bytes + sizes.frozen_float32 * 4 + sizes.trained * TRAINED_BYTES
    gradients, moments = sizes.trained * GRADIENT_BYTES, sizes.trained * MOMENTS_BYTES
    master = sizes.trained * MASTER_BYTES if zero_stage else 0
    if zero_stage == 3:
        weights = weights // gpus + sizes.largest_layer * 4
    return MemoryPlan(
        zero_stage=zero_stage,
        gpus=gpus,
        weights=weights,
        gradients=gradients // gpus if zero_stage >= 2 else gradients,
        optimizer=(moments + master) // gpus if zero_stage else moments,
        activations=activations,
    )


def activation_bytes(config: PsReidConfig, settings: PsReidTrainConfig, *, workers: int) -> int:
    """An estimate of what the language model's layers keep for the backward pass on one of `workers`.

    Per token and layer: with recomputation its input, and the keys and values that later spans read; without, about 17
    widths (Korthikanti et al. 2022, eq. 2, without attention scores, which are never kept whole).
    """
    vision, language = config.vision, config.language
    side = vision.tower.patch_size
    scene = (vision.scene_height_px // side) * (vision.scene_width_px // side)
    picture = (vision.query_height_px // side) * (vision.query_width_px // side)
    queries = settings.identities_per_step * settings.query_variants
    targets = -(-settings.targets // workers)
    query_tokens = queries * (picture + config.prompt.max_text_tokens)
    target_tokens = targets * (scene + config.close_ups * picture)
    pair_tokens = targets * queries * ANSWER_TOKENS
    if config.attention == "joint":  # each query runs every target anew
        target_tokens *= queries
    widths = 3 if settings.recompute_activations else 17 + 3 * language.mlp_size // language.hidden_size
    tokens = query_tokens + target_tokens + pair_tokens
    number_bytes = 2 if settings.precision == "bf16" else 4
    return tokens * language.num_layers * language.hidden_size * widths * number_bytes


def plan_lines(
    settings: PsReidTrainConfig, config: PsReidConfig, gpu_counts: Sequence[int]
) -> Mapping[str, str | int | float]:
    """The plan of both stages as lines to print."""
    model, lines = build_on_meta(config), {}
    lines["parameters"] = f"{sum(p.numel() for p in model.parameters()):,}"
    for number, stage in ((1, settings.stage1), (2, settings.stage2)):
        if not stage.steps:
            continue
        sizes = sizes_of(model, stage.trains)
        parts = ", ".join(f"{name} {count:,}" for name, count in trained_parameters(model).items())
        lines[f"stage {number} trains"] = f"{sizes.trained:,} parameters ({parts})"
        for zero_stage in (0, 1, 2, 3):
            for gpus in gpu_counts:
                if gpus > settings.targets or (gpus == 1 and zero_stage):
                    continue
                plan = memory_plan(
                    sizes, zero_stage=zero_stage, gpus=gpus, precision=settings.precision,
                    activations=activation_bytes(config, settings, workers=gpus),
                )  # fmt: skip
                lines[f"stage {number}, ZeRO {zero_stage}, {gpus} GPU{'s' if gpus > 1 else ''}"] = _gigabytes(plan)
    return lines


def _gigabytes(plan: MemoryPlan) -> str:
    parts = ("weights", "gradients", "optimizer", "activations")
    listed = " + ".join(f"{name} {getattr(plan, name) / 2**30:.2f}" for name in parts)
    return f"{plan.total / 2**30:.1f} GiB each = {listed}"


def _part_of(name: str) -> str:
    if name.startswith("segmentation.sam."):
        return name.removeprefix("segmentation.sam.").split(".")[0]
    return name.split(".")[0]
