"""The numbers of an instruct-ReID model: one frozen config, saved beside the weights, and the presets.

`base` has the paper's sizes (§V-B): ViT-B/16 on 256 x 128 pictures and an ALBEF instruction encoder. `tiny` is the
same code with small numbers, trained from random weights, so its instruction encoder learns along.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modeling.errors import ConfigError

FAMILY: Literal["instruct_reid"] = "instruct_reid"
CONFIG_VERSION = 1

Kind = Literal["irm", "irm++"]
Rgb = tuple[float, float, float]

IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def halvings(stem: tuple[int, ...]) -> list[int]:
    """Places in the stem that halve the picture."""
    return [place for place, channels in enumerate(stem) if not place or channels != stem[place - 1]]


class ImageConfig(_Frozen):
    """The editing transformer: a ViT whose layers may attend to the instruction."""

    source: str | None = None
    """Published ViT weights (timm, DINO, PASS or Hugging Face names); None starts from random ones."""
    height_px: int
    """Height that a person's crop is scaled to; a multiple of the patch size, as is the width."""
    width_px: int
    patch_size: int = 16
    width: int
    """D: channels of a token, and length of a retrieval feature."""
    num_layers: int
    num_heads: int
    mlp_width: int
    num_parts: int = 0
    """Learned tokens beside [CLS], as PASS has three; they take part in attention, retrieval uses [CLS] alone."""
    stripes: int = 0
    """Rows of patches, head to feet, whose means join [CLS] in the feature; 0 leaves [CLS] alone, as the paper does.
    Random weights learn many times faster with them: at the start [CLS] knows next to nothing of colours and places."""
    stem: tuple[int, ...] = ()
    """Channels of a convolution and of the residual blocks after it, in place of the linear patches: the hybrid of the
    first ViT paper. Each halves the picture where the number of channels changes. Random weights learn
    faster with them; empty for published ViT weights."""
    layer_norm_eps: float = 1e-6
    mean: Rgb = IMAGENET_MEAN
    """Subtracted from RGB values in [0, 1]."""
    std: Rgb = IMAGENET_STD
    """Divides them after that."""

    @model_validator(mode="after")
    def _divides(self) -> "ImageConfig":
        if self.height_px % self.patch_size or self.width_px % self.patch_size:
            raise ValueError(
                f"pictures of {self.height_px} x {self.width_px} px do not divide into patches of {self.patch_size} px"
            )
        if self.stem and 2 ** len(halvings(self.stem)) != self.patch_size:
            raise ValueError(
                f"stem {self.stem} halves the picture {len(halvings(self.stem))} times: its patches are of "
                f"{2 ** len(halvings(self.stem))} px, not patch_size = {self.patch_size}"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width is {self.width}: it must be a multiple of num_heads = {self.num_heads}")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.height_px // self.patch_size, self.width_px // self.patch_size


class InstructionConfig(_Frozen):
    """The instruction encoder: a vision-language model that reads sentences and pictures of clothes."""

    source: str | None = None
    """An ALBEF checkpoint file, or a Hugging Face BLIP folder or hub id; None starts from random weights."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer that the source was trained with; None: one is given at building."""
    vocabulary_size: int = 30522
    width: int
    num_heads: int
    mlp_width: int
    text_layers: int
    picture_layers: int
    picture_px: int = 128
    """Side of the square that a picture of clothes is scaled to."""
    patch_size: int = 16
    max_tokens: int = 72
    """Longer sentences are cut here, [CLS] and [SEP] included."""
    is_fixed: bool
    """Whether its weights stay as they are in training (the paper: fixed suffices); random ones must learn."""
    mean: Rgb = (0.48145466, 0.4578275, 0.40821073)
    std: Rgb = (0.26862954, 0.26130258, 0.27577711)


class IrmConfig(_Frozen):
    """A whole IRM (Fig. 5) or IRM++ (Fig. 7)."""

    family: Literal["instruct_reid"] = FAMILY
    version: int = CONFIG_VERSION
    kind: Kind = "irm++"
    """irm: query and gallery features are both fused with an instruction. irm++: the gallery's is the image alone."""
    edits: bool = False
    """Whether the image encoder's layers attend to the instruction (eq. 3-6). The paper: IRM yes, IRM++ no."""
    fusion_layers: int = Field(default=2, ge=1)
    """Transformer layers of the attention module."""
    has_neck: bool = False
    """Whether a batch-norm neck lies between features and their cosine, as re-identification baselines have it (ours:
    the paper does not speak of one). Without it features of random weights are nearly parallel, and learn slowly."""
    image: ImageConfig
    instruction: InstructionConfig

    @model_validator(mode="after")
    def _random_encoder_learns(self) -> "IrmConfig":
        if self.instruction.is_fixed and self.instruction.source is None:
            raise ValueError("instruction.is_fixed needs instruction.source: random weights would stay meaningless")
        return self


def named_preset(name: str, kind: Kind) -> IrmConfig:
    """The preset of this name for IRM or IRM++. Raises ConfigError naming the presets there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no instruct-ReID preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name].model_copy(update={"kind": kind, "edits": kind == "irm"})


PRESETS: dict[str, IrmConfig] = {
    "tiny": IrmConfig(
        has_neck=True,
        image=ImageConfig(
            height_px=128, width_px=64, patch_size=16, width=192, num_layers=2, num_heads=3, mlp_width=768, stripes=4,
            stem=(32, 64, 128, 128, 192),
        ),
        instruction=InstructionConfig(
            vocabulary_size=1024, width=128, num_heads=2, mlp_width=512, text_layers=3, picture_layers=3,
            picture_px=64, is_fixed=False,
        ),
    ),
    "base": IrmConfig(
        image=ImageConfig(
            source="pass_vit_base_full.pth", height_px=256, width_px=128, width=768, num_layers=12, num_heads=12,
            mlp_width=3072, num_parts=3,
        ),
        instruction=InstructionConfig(
            source="ALBEF.pth", tokenizer="google-bert/bert-base-uncased", width=768, num_heads=12, mlp_width=3072,
            text_layers=6, picture_layers=12, is_fixed=True,
        ),
    ),
}  # fmt: skip
