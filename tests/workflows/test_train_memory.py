"""The memory plan: parameter counts of the large presets, and bytes against DeepSpeed's own estimators."""

import os

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from modeling.ps_reid.build import named_preset
from tests.modeling.ps_reid.small_model import small_model
from workflows.train.config import ADAPTERS, FINE_TUNED, PsReidTrainConfig
from workflows.train.memory import (
    Sizes,
    activation_bytes,
    build_on_meta,
    memory_plan,
    plan_lines,
    sizes_of,
    trained_parameters,
)

LLAMA = {"7b": 6_738_415_616, "13b": 13_015_864_320}
LORA = {"7b": 32 * 2 * 2 * 8 * 4096, "13b": 40 * 2 * 2 * 8 * 5120}  # layers, projections, matrices, rank, width
SAM_VIT_H = 641_090_608
CLIP_L_336 = 303_507_456
CLIP_LAYER = 12_596_224  # above the layer that LLaVA reads, so never built
CONFIG = PsReidTrainConfig(frames=["unused"], out="unused")


@pytest.mark.parametrize("name", ["7b", "13b"])
def test_the_papers_presets_have_the_published_sizes(name: str) -> None:
    model = build_on_meta(named_preset(name))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(p.numel() for p in model.language.parameters()) == LLAMA[name] + LORA[name]
    assert sum(p.numel() for p in model.segmentation.parameters()) == SAM_VIT_H
    assert sum(p.numel() for p in model.vision.parameters()) == CLIP_L_336 - CLIP_LAYER


def test_only_the_new_tokens_rows_are_trained() -> None:
    model = build_on_meta(named_preset("7b"))
    sizes = sizes_of(model, FINE_TUNED)
    counts = trained_parameters(model)
    assert counts["control"] == 2 * 3 * 4096
    assert counts["language (LoRA)"] == LORA["7b"]
    assert not model.language.get_input_embeddings().weight.requires_grad
    assert sizes.trained == sum(counts.values()) and sizes.trained < 0.01 * sizes.total
    assert sizes_of(model, ADAPTERS).trained == 2 * (1024 * 4096 + 4096 + 4096 * 4096 + 4096) + 48 * 4096 + 4096


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_the_plan_agrees_with_deepspeeds_estimators(gpus: int) -> None:
    """DeepSpeed takes every weight as trained, in 16 bits with a float32 master.

    Ours are float32: 2 bytes more for every weight that a GPU holds, and no gradients in 16 bits beside those in 32.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    count, largest = 8_000_000, 1_000_000
    sizes = Sizes(trained=count, frozen_large=0, frozen_float32=0, largest_layer=largest)
    zero2, zero3 = (memory_plan(sizes, zero_stage=stage, gpus=gpus, precision="bf16") for stage in (2, 3))
    _, theirs2 = estimate_zero2_model_states_mem_needs(count, gpus, 1, cpu_offload=False)
    _, theirs3, _ = estimate_zero3_model_states_mem_needs(
        count, largest, gpus, 1, cpu_offload=False, cpu_offload_params=False
    )
    assert zero2.total == theirs2 + 2 * count - 2 * count // gpus
    assert zero3.total == theirs3 + 2 * count // gpus


def test_frozen_weights_cost_their_own_bytes_and_are_shared_by_zero_3_alone() -> None:
    sizes = Sizes(trained=0, frozen_large=1_000, frozen_float32=100, largest_layer=0)
    weights = [memory_plan(sizes, zero_stage=z, gpus=4, precision="bf16").weights for z in range(4)]
    assert weights == [2400, 2400, 2400, 600]
    assert memory_plan(sizes, zero_stage=0, gpus=4, precision="fp32").weights == 4400


def test_recomputation_and_workers_lower_activations() -> None:
    config = named_preset("13b")
    kept = activation_bytes(config, CONFIG, workers=1)
    assert activation_bytes(config, CONFIG, workers=2) < kept
    recomputed = CONFIG.model_copy(update={"recompute_activations": True})
    assert activation_bytes(config, recomputed, workers=1) < kept / 5


def test_the_printed_plan_names_every_zero_stage() -> None:
    lines = plan_lines(CONFIG, named_preset("7b"), (1, 2, 4))
    assert "stage 1, ZeRO 0, 1 GPU" in lines and "stage 2, ZeRO 3, 4 GPUs" in lines
    assert "control 24,576" in str(lines["stage 2 trains"])
    small = small_model()
    assert sizes_of(small, ADAPTERS).total == sum(p.numel() for p in small.parameters())
