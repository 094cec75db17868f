"""CLIP's vision tower: pictures of any size in, patch tokens of one layer out.

Wraps `transformers`' CLIPVisionModel. The layers above the feature layer are never built: LLaVA and its kin read the
last layer but one, so the last one would only cost time. Knows nothing of what the tokens are used for.

Shapes: B = images; C = 3 colour channels; H, W = input height and width in pixels; V = patch tokens, row by row;
D = width of the tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig, CLIPVisionModel

from modeling.backbones.checkpoint import (
    State,
    load_checked,
    read_json,
    read_state,
    resolve_checkpoint,
    strip_prefix,
)
from modeling.errors import ConfigError, DataError, WeightsError
from modeling.regions import ByteArray

Rgb = tuple[float, float, float]

CLIP_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)
_PREFIXES = ("model.vision_tower.vision_model.", "vision_tower.vision_model.", "model.vision_tower.", "vision_tower.")
_POSITIONS = "embeddings.position_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The numbers of a CLIP vision tower; defaults are those of every published OpenAI CLIP."""

    image_size: int
    """Side of the square, in pixels, that the position table was made for; other sizes interpolate it."""
    patch_size: int
    """Side of a patch, pixels."""
    width: int
    """Channels of a token."""
    num_layers: int
    """Transformer layers of the whole tower, also those above the feature layer."""
    num_heads: int
    """Attention heads; must divide the width."""
    mlp_width: int
    """Hidden channels of the feed-forward parts."""
    feature_layer: int = -2
    """Where tokens come from: 0 = before the first layer, k = after the k-th, negative = from the end (LLaVA: -2)."""
    activation: str = "quick_gelu"
    """Name of the non-linearity, as `transformers` knows it."""
    layer_norm_eps: float = 1e-5
    """Added to the variance in every layer norm."""
    image_mean: Rgb = CLIP_MEAN
    """Subtracted from RGB values in [0, 1]."""
    image_std: Rgb = CLIP_STD
    """Divides RGB values in [0, 1] after the mean is subtracted."""

    @property
    def num_built_layers(self) -> int:
        """Transformer layers up to the feature layer."""
        depth = self.feature_layer if self.feature_layer >= 0 else self.num_layers + 1 + self.feature_layer
        if not 0 <= depth <= self.num_layers:
            raise ConfigError(
                f"feature_layer is {self.feature_layer}; a tower of {self.num_layers} layers allows "
                f"{-self.num_layers - 1} to {self.num_layers}"
            )
        return depth


class VisionEncoder(nn.Module):
    """Normalised pictures -> the patch tokens of the feature layer, without the class token."""

    def __init__(self, model: CLIPVisionModel, config: VisionConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    @classmethod
    def build(cls, config: VisionConfig) -> "VisionEncoder":
        """A tower with random weights."""
        if config.width % config.num_heads:
            raise ConfigError(f"width is {config.width}: it must be a multiple of num_heads = {config.num_heads}")
        tower = CLIPVisionConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_size=config.width,
            num_hidden_layers=config.num_built_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            hidden_act=config.activation,
            layer_norm_eps=config.layer_norm_eps,
        )
        return cls(CLIPVisionModel(tower), config)

    @property
    def width(self) -> int:
        """D, the channels of a token."""
        return self.config.width

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patch tokens for an input of this many pixels; tokens come row by row."""
        patch = self.config.patch_size
        if height % patch or width % patch or height <= 0 or width <= 0:
            raise ConfigError(
                f"the vision encoder's input is {height} x {width} pixels (height x width): both must be positive "
                f"multiples of the patch size {patch}"
            )
        return height // patch, width // patch

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Patch tokens (B, V, D), V = rows x columns of `grid`; an input that is not the table's own square gets
        interpolated position encodings."""
        height, width = pixels_BCHW.shape[-2:]
        self.grid(height, width)
        is_other_size = (height, width) != (self.config.image_size, self.config.image_size)
        # fused attention is slow to differentiate on CPUs (`ps_reid/attention.py`)
        is_plain = self.training and pixels_BCHW.device.type == "cpu" and torch.is_grad_enabled()
        self.model.config._attn_implementation = "eager" if is_plain else "sdpa"
        states = self.model(pixel_values=pixels_BCHW, interpolate_pos_encoding=is_other_size).last_hidden_state
        return states[:, 1:]

    def preprocess(self, images: Sequence[ByteArray], *, height: int, width: int) -> Tensor:
        """Pixels (B, C, height, width) float32 on the CPU, in CLIP's normalisation, from RGB images (H, W, C) uint8.

        Each image is stretched to the size asked for, bicubic with antialiasing as PIL does it.
        """
        self.grid(height, width)
        pixels_BCHW = torch.empty(len(images), 3, height, width)
        for row, image in enumerate(images):
            pixels_BCHW[row] = resize_image(image, height=height, width=width)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.config.image_mean, self.config.image_std))
        return (pixels_BCHW / 255 - mean) / std


def resize_image(
    image_HWC: ByteArray, *, height: int, width: int, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> Tensor:
    """The image as (C, height, width) uint8, stretched with antialiasing (equals PIL's to one grey level)."""
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8 or 0 in image_HWC.shape:
        raise DataError(
            f"an image must be RGB of shape (height, width, 3) in uint8, got {image_HWC.dtype} of {image_HWC.shape}"
        )
    pixels_CHW = torch.from_numpy(np.require(image_HWC, requirements=["C", "W"])).permute(2, 0, 1)
    if image_HWC.shape[:2] == (height, width):
        return pixels_CHW
    return interpolate(pixels_CHW[None], (height, width), mode=mode, antialias=True, align_corners=False)[0]


def load_clip(
    path_or_hub_id: str, *, feature_layer: int | None = None, dtype: torch.dtype = torch.float32
) -> VisionEncoder:
    """The vision tower of a Hugging Face folder or hub id: a CLIPModel, a CLIPVisionModel, or a LLaVA model's tower.

    `feature_layer` defaults to what a LLaVA's config says, else to -2. The normalisation is that of the checkpoint's
    `preprocessor_config.json`, CLIP's own where there is none.
    """
    folder = resolve_checkpoint(path_or_hub_id)
    if not folder.is_dir():
        raise WeightsError(f"{folder} must be a Hugging Face folder with config.json and weights, not a single file")
    config = _read_config(folder)
    encoder = VisionEncoder.build(config if feature_layer is None else replace(config, feature_layer=feature_layer))
    load_checked(encoder.model.to(dtype), _tower_state(folder), source=str(folder))
    return encoder.eval()


def _read_config(folder: Path) -> VisionConfig:
    """Of config.json (a whole CLIP's or LLaVA's vision_config, or a tower's own) and preprocessor_config.json."""
    whole = read_json(folder / "config.json")
    nested = whole.get("vision_config", whole)
    if not isinstance(nested, dict) or nested.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise WeightsError(
            f"{folder / 'config.json'} describes a {whole.get('model_type')!r} model without a CLIP vision tower; "
            f"give the folder of a CLIPModel, a CLIPVisionModel or a LLaVA with a CLIP tower"
        )
    feature_layer = whole.get("vision_feature_layer", -2)
    if not isinstance(feature_layer, int):
        raise WeightsError(
            f"{folder / 'config.json'}: vision_feature_layer must be one whole number, got {feature_layer!r}"
        )
    tower = CLIPVisionConfig.from_dict(nested)
    mean, std = _read_normalisation(folder / "preprocessor_config.json")
    return VisionConfig(
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        width=tower.hidden_size,
        num_layers=tower.num_hidden_layers,
        num_heads=tower.num_attention_heads,
        mlp_width=tower.intermediate_size,
        feature_layer=feature_layer,
        activation=tower.hidden_act,
        layer_norm_eps=tower.layer_norm_eps,
        image_mean=mean,
        image_std=std,
    )


def _read_normalisation(path: Path) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation of RGB values in [0, 1]; CLIP's own where the file or the entry is missing."""
    content = read_json(path) if path.exists() else {}
    chosen: list[Rgb] = []
    for name, default in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)):
        values = content.get(name, list(default))
        if not isinstance(values, list) or len(values) != 3:
            raise WeightsError(f"{path}: {name} must be three numbers (red, green, blue), got {values!r}")
        chosen.append((float(values[0]), float(values[1]), float(values[2])))
    return chosen[0], chosen[1]


def _tower_state(folder: Path) -> State:
    """The tower's tensors under the names that the installed CLIPVisionModel uses."""
    state = read_state(folder)
    tower = strip_prefix(state, *_PREFIXES) or state
    return strip_prefix(tower, "vision_model.") or tower
