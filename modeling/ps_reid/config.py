"""The numbers of a PS-ReID model: one frozen config, saved beside the weights, and the presets.

The paper's own sizes are the presets `7b` and `13b` (§V-A.3). `tiny` and `small` are the same code with small numbers
plus additions of ours that make up for small encoders: close-ups of the detected persons beside the scene, a metric
shared by query and close-ups (`grounding.py`), and in `tiny` masks drawn in a window around the box (`windows.py`). All
are plain settings, off in the paper's presets.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modeling.backbones.clip import VisionConfig as TowerConfig
from modeling.backbones.sam import SamConfig

Attention = Literal["joint", "separated"]

CONTROL_TOKENS = ("[SEG]", "[REJ]", "[QRY]")
CONFIG_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class VisionConfig(_Frozen):
    """The CLIP vision encoder and the sizes of what it sees."""

    source: str | None = None
    """Folder or hub id of published weights; None builds `tower` with random weights."""
    tower: TowerConfig
    """The encoder's own numbers; a `source` brings its own and only `feature_layer` is taken from here."""
    query_height_px: int
    """Height a query picture, or a close-up, is scaled to; a multiple of the patch size, as are the next three."""
    query_width_px: int
    scene_height_px: int
    scene_width_px: int


class LanguageConfig(_Frozen):
    """The LLaMA language model, its tokenizer and its LoRA."""

    source: str | None = None
    """Folder or hub id of a published LLaMA or LLaVA checkpoint; None builds a random one from the numbers below."""
    base: str | None = None
    """The base LLaMA that delta weights in `source` are added to."""
    weight_bits: Literal[4, 8] | None = None
    """Quantizes the published weights to this many bits while loading; None keeps them."""
    device_map: str | None = None
    """Spreads the layers over several GPUs as accelerate does ("auto", "balanced"); None keeps them together."""
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05


class SegmentationConfig(_Frozen):
    """The SAM encoder and mask decoder."""

    source: str | None = None
    """A SAM `.pth` or safetensors file; None builds `sam` with random weights."""
    sam: SamConfig | None = None
    """SAM's numbers; a `source` brings its own."""
    prompts_box: bool = True
    """Whether the box read from the decision state joins the [SEG] prompt (ours; the paper prompts by [SEG] alone)."""
    zoom: float | None = Field(default=None, gt=1.0)
    """Side of the square window around the decision's box that SAM is shown, in the box's longer sides (ours); None
    shows the whole frame, once for all pairs, as the paper does."""


class PromptConfig(_Frozen):
    """The fixed words of the prompt template, and its bounds."""

    system: str = "Find the person."
    question: str = "Is this person there?"
    max_text_tokens: int = 96
    """Longer query texts are cut here (the paper's descriptions stay under 150 words)."""


class PsReidConfig(_Frozen):
    """A whole PS-ReID model (Fig. 6)."""

    version: int = CONFIG_VERSION
    attention: Attention = "separated"
    """The mask that the weights were trained with; both can be run."""
    close_ups: int = Field(default=16, ge=0)
    """Detected persons shown beside the scene as close-ups, best first; 0 is the paper's scene alone."""
    has_grounding: bool = True
    """Whether query and close-ups share a metric that helps the decision and places the box (ours)."""
    joins_found: bool = False
    """Whether what the decision points to joins the decision state, before the answer, eq. 9 and the mask prompt read
    it (ours): a small language model's own few tokens hardly see the target."""
    adds_evidence: bool = True
    """Whether the metric's evidence is added to the [SEG] logit (ours); else the decision state alone decides, as in
    the paper, and the metric has to reach it through what it points to (`joins_found`)."""
    metric_dim: int = 256
    """Width of the person embedding used by recall and by the grounding."""
    metric_source: str | None = None
    """An instruct-ReID model (shipped weights by name, or a folder) whose features are the metric, in place of one of
    `metric_dim` that is learned along: then recall and judgment compare the same features."""
    metric_weight: float = Field(default=1.0, gt=0)
    """How much the metric counts against what the language model says, in the choice of a person and in the score;
    above 1 for pictures unlike those of the training, where the metric carries over better."""
    score_bias: float = 0.0
    """Taken off logit[SEG] - logit[REJ], so that matches lie above 0 (`psreid evaluate --calibrated` sets it)."""
    adapter_hidden: int = 384
    vision: VisionConfig
    language: LanguageConfig
    segmentation: SegmentationConfig
    prompt: PromptConfig = PromptConfig()

    @model_validator(mode="after")
    def _grounding_needs_close_ups(self) -> "PsReidConfig":
        if self.has_grounding and self.close_ups == 0:
            raise ValueError("has_grounding needs close_ups > 0; set has_grounding: false for the scene alone")
        if self.joins_found and not self.has_grounding:
            raise ValueError("joins_found needs has_grounding: without it nothing points to a person")
        if self.has_grounding and not (self.adds_evidence or self.joins_found):
            raise ValueError("adds_evidence: false needs joins_found: true, or the metric would reach no score")
        return self


def _tower(width: int, num_layers: int, num_heads: int) -> TowerConfig:
    return TowerConfig(
        image_size=128, patch_size=16, width=width, num_layers=num_layers, num_heads=num_heads,
        mlp_width=4 * width, feature_layer=-1,
    )  # fmt: skip


def _tiny() -> PsReidConfig:
    sam = SamConfig(
        image_size=160, patch_size=8, encoder_width=96, encoder_depth=4, encoder_num_heads=3,
        global_attention_blocks=(3,), window_size=10, prompt_width=96, decoder_num_heads=4, decoder_mlp_width=192,
        iou_head_width=96,
    )  # fmt: skip
    return PsReidConfig(
        joins_found=True,
        vision=VisionConfig(
            tower=_tower(192, 6, 3), query_height_px=128, query_width_px=64, scene_height_px=144, scene_width_px=256
        ),
        language=LanguageConfig(hidden_size=192, num_layers=4, num_heads=3, mlp_size=512),
        segmentation=SegmentationConfig(sam=sam, zoom=1.5),
    )


def _small() -> PsReidConfig:
    sam = SamConfig(
        image_size=512, patch_size=8, encoder_width=192, encoder_depth=6, encoder_num_heads=6,
        global_attention_blocks=(2, 5), window_size=8, prompt_width=192, decoder_num_heads=6, decoder_mlp_width=768,
    )  # fmt: skip
    return PsReidConfig(
        joins_found=True,
        vision=VisionConfig(
            tower=_tower(384, 12, 6), query_height_px=256, query_width_px=128, scene_height_px=288, scene_width_px=512
        ),
        language=LanguageConfig(hidden_size=512, num_layers=8, num_heads=8, mlp_size=1408),
        segmentation=SegmentationConfig(sam=sam),
        adapter_hidden=1024,
    )


def _paper(language: LanguageConfig) -> PsReidConfig:
    tower = TowerConfig(
        image_size=336, patch_size=14, width=1024, num_layers=24, num_heads=16, mlp_width=4096, feature_layer=-2
    )
    sam = SamConfig(encoder_width=1280, encoder_depth=32, encoder_num_heads=16, global_attention_blocks=(7, 15, 23, 31))
    return PsReidConfig(
        attention="joint",
        close_ups=0,
        has_grounding=False,
        adapter_hidden=language.hidden_size,
        vision=VisionConfig(
            source="openai/clip-vit-large-patch14-336", tower=tower, query_height_px=336, query_width_px=336,
            scene_height_px=336, scene_width_px=336,
        ),
        language=language,
        segmentation=SegmentationConfig(source="sam_vit_h_4b8939.pth", sam=sam, prompts_box=False),
        prompt=PromptConfig(
            system="A chat between a curious human and an artificial intelligence assistant.",
            question="Is the queried person in this image? If so, segment the person. ASSISTANT:",
            max_text_tokens=256,
        ),
    )  # fmt: skip


def preset(name: str) -> PsReidConfig:
    """The named preset: tiny, small, 7b or 13b. Raises KeyError for another name."""
    return PRESETS[name]


PRESETS: dict[str, PsReidConfig] = {
    "tiny": _tiny(),
    "small": _small(),
    "7b": _paper(
        LanguageConfig(
            source="liuhaotian/LLaVA-Lightning-7B-delta-v1-1", base="huggyllama/llama-7b", hidden_size=4096,
            num_layers=32, num_heads=32, mlp_size=11008,
        )
    ),
    "13b": _paper(
        LanguageConfig(
            source="liuhaotian/llava-llama-2-13b-chat-lightning-preview", hidden_size=5120, num_layers=40,
            num_heads=40, mlp_size=13824,
        )
    ),
}  # fmt: skip
