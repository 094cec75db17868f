"""A PS-ReID model small enough for unit tests, and pairs that differ in every way a pair can."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from modeling.backbones.clip import VisionConfig as TowerConfig
from modeling.backbones.clip import VisionEncoder
from modeling.backbones.sam import SamConfig
from modeling.ps_reid.build import build_model, build_segmentation, with_lora
from modeling.ps_reid.config import (
    LanguageConfig,
    PromptConfig,
    PsReidConfig,
    SegmentationConfig,
    VisionConfig,
)
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.prompt import PromptTemplate
from modeling.ps_reid.vocabulary import train_tokenizer
from modeling.types import QueryInput, TargetInput

SENTENCES = ("a man in a red coat with a black backpack", "Find the person. Is this person there?")
FRAME_HEIGHT, FRAME_WIDTH = 90, 160
TEXTS = (
    "a man in a red coat",
    "a woman with a black backpack, a hat, blue jeans and a very long green scarf that reaches down to her knees",
    "red",
)


def small_config(
    *,
    close_ups: int = 4,
    has_grounding: bool = True,
    joins_found: bool = False,
    adds_evidence: bool = True,
    prompts_box: bool = True,
    zoom: float | None = None,
) -> PsReidConfig:
    """Two layers of width 64; a scene of 4 x 6 tokens, close-ups of 4 x 2."""
    tower = TowerConfig(
        image_size=32, patch_size=8, width=32, num_layers=2, num_heads=2, mlp_width=64, feature_layer=-1
    )
    sam = SamConfig(
        image_size=64, patch_size=8, encoder_width=32, encoder_depth=1, encoder_num_heads=2,
        global_attention_blocks=(0,), window_size=4, prompt_width=32, decoder_num_heads=2, decoder_mlp_width=32,
        iou_head_width=32,
    )  # fmt: skip
    return PsReidConfig(
        close_ups=close_ups,
        has_grounding=has_grounding,
        joins_found=joins_found,
        adds_evidence=adds_evidence,
        metric_dim=16,
        adapter_hidden=48,
        vision=VisionConfig(tower=tower, query_height_px=32, query_width_px=16, scene_height_px=32, scene_width_px=48),
        language=LanguageConfig(hidden_size=64, num_layers=2, num_heads=4, mlp_size=96),
        segmentation=SegmentationConfig(sam=sam, prompts_box=prompts_box, zoom=zoom),
        prompt=PromptConfig(max_text_tokens=20),
    )


def paper_config() -> PsReidConfig:
    """As `small_config`, but with the scene alone, no grounding, and SAM prompted by [SEG] alone."""
    return small_config(close_ups=0, has_grounding=False, prompts_box=False)


def small_model(config: PsReidConfig | None = None, *, seed: int = 0) -> PsReid:
    """The model with random weights and an active LoRA; weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    return enliven(build_model(config or small_config(), tokenizer=small_tokenizer()))


def small_tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(SENTENCES, vocabulary_size=300)


def grouped_query_model(num_kv_heads: int, *, seed: int = 0) -> PsReid:
    """As `small_model`, with fewer key-value heads than heads, as later LLaMA models have."""
    torch.manual_seed(seed)
    config, tokenizer = small_config(), small_tokenizer()
    numbers = config.language
    language = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=numbers.hidden_size, num_hidden_layers=numbers.num_layers,
            num_attention_heads=numbers.num_heads, num_key_value_heads=num_kv_heads,
            intermediate_size=numbers.mlp_size,
        )
    )  # fmt: skip
    model = PsReid(
        config,
        vision=VisionEncoder.build(config.vision.tower),
        language=with_lora(language, numbers),
        template=PromptTemplate.build(tokenizer, config.prompt),
        segmentation=build_segmentation(config.segmentation),
    )
    return enliven(model.eval())


def enliven(model: PsReid) -> PsReid:
    """Makes every part matter: some layers start at zero, as LoRA's B does, and fresh weights hardly attend."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(layer in name for layer in ("lora_B", "refine.2", "finding.join", "finding.lean")):
                parameter.normal_(std=0.3)
            elif name.startswith("language.") and parameter.dim() == 2:
                parameter.mul_(4)
        model.control.head.normal_(std=0.5)
    return model


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """An RGB picture of soft random blobs."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 6, 6))).float()
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return fine[0].permute(1, 2, 0).numpy().astype(np.uint8)


def ragged_queries() -> dict[str, QueryInput]:
    """Image, text, both, and texts of different lengths (one beyond the model's limit)."""
    queries = [
        QueryInput("image", picture(1, 60, 20), None),
        QueryInput("text", None, TEXTS[0]),
        QueryInput("long text", None, TEXTS[1]),
        QueryInput("both", picture(2, 41, 33), TEXTS[2]),
        QueryInput("both, long", picture(3, 50, 25), TEXTS[1]),
    ]
    return {q.query_id: q for q in queries}


def ragged_targets() -> list[TargetInput]:
    """Frames with no, one, several and too many detected persons."""
    targets = []
    for number, num_persons in enumerate((2, 0, 6, 1, 4)):
        rng = np.random.default_rng(number)
        corner = rng.uniform(0, 60, (num_persons, 2)) * (FRAME_WIDTH / FRAME_HEIGHT, 1)
        boxes = np.concatenate([corner, corner + rng.uniform(10, 30, (num_persons, 2))], axis=1).astype(np.float32)
        targets.append(TargetInput(f"frame-{number}", picture(100 + number, FRAME_HEIGHT, FRAME_WIDTH), boxes))
    return targets


def all_pairs(queries: dict[str, QueryInput], targets: list[TargetInput]) -> list[tuple[str, int]]:
    """Every query on every target, targets in the outer loop."""
    return [(query_id, number) for number in range(len(targets)) for query_id in queries]
