"""SAM from `segment_anything`'s own modules: sizes, weights, and the way from a frame to its input and back.

Knows nothing of how prompts are made. SAM's input is square: the frame is scaled so that its longest side fills it and
padded with zeros at the right and the bottom (after normalisation, as SAM does it).

Shapes: B = frames; N = masks; C = 3 colour channels; H, W = frame height and width in pixels; S = side of SAM's input.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from modeling.backbones.checkpoint import State, load_checked, read_state, resolve_checkpoint
from modeling.backbones.clip import resize_image
from modeling.errors import ConfigError, DataError, WeightsError
from modeling.regions import ByteArray

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
_METADATA_KEY = "sam_config"


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """The numbers of a SAM. The defaults below the encoder's are those of all three published sizes."""

    encoder_width: int
    """Channels of the image encoder."""
    encoder_depth: int
    """Blocks of the image encoder."""
    encoder_num_heads: int
    """Attention heads of the image encoder; must divide its width."""
    global_attention_blocks: tuple[int, ...]
    """Numbers (from 0) of the blocks that attend over the whole frame; the others attend within windows."""
    image_size: int = 1024
    """Side of the square input, pixels; a multiple of the patch size."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    window_size: int = 14
    """Side of an attention window, patches."""
    encoder_mlp_ratio: float = 4.0
    """Hidden channels of the encoder's feed-forward parts, in widths."""
    prompt_width: int = 256
    """Channels of prompts, of the image embedding and of the mask decoder; a multiple of 8."""
    mask_prompt_width: int = 16
    """Hidden channels of the mask prompt's encoder; a multiple of 4."""
    decoder_depth: int = 2
    """Two-way blocks of the mask decoder."""
    decoder_num_heads: int = 8
    """Attention heads of the mask decoder; must divide half the prompt width."""
    decoder_mlp_width: int = 2048
    """Hidden channels of the mask decoder's feed-forward parts."""
    num_multimask_outputs: int = 3
    """Alternative masks for an ambiguous prompt, beside the single one."""
    iou_head_depth: int = 3
    """Linear layers of the head that predicts a mask's quality."""
    iou_head_width: int = 256
    """Hidden channels of that head."""

    def __post_init__(self) -> None:
        for value, divisor, rule in (
            (self.image_size, self.patch_size, "image_size must be a multiple of patch_size"),
            (self.encoder_width, self.encoder_num_heads, "encoder_width must be a multiple of encoder_num_heads"),
            (self.prompt_width, 8, "prompt_width must be a multiple of 8"),
            (self.mask_prompt_width, 4, "mask_prompt_width must be a multiple of 4"),
            (self.prompt_width // 2, self.decoder_num_heads, "decoder_num_heads must divide prompt_width / 2"),
        ):
            if divisor <= 0 or value <= 0 or value % divisor:
                raise ConfigError(f"SAM: {rule}, got {value} and {divisor}")

    @property
    def grid_size(self) -> int:
        """Rows, and columns, of the image embedding."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class FrameGeometry:
    """How one frame lies in SAM's square input: scaled from (height, width) to (scaled_height, scaled_width)."""

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    image_size: int

    @classmethod
    def of(cls, height: int, width: int, *, image_size: int) -> "FrameGeometry":
        """SAM's own rounding; a side never shrinks below one pixel."""
        if height <= 0 or width <= 0:
            raise DataError(f"a frame must have pixels, got {width} x {height}")
        scale = image_size / max(height, width)
        return cls(height, width, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)), image_size)

    def boxes_to_input(self, boxes_xyxy_px: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(..., 4) boxes in frame pixels -> in pixels of SAM's input."""
        return (np.asarray(boxes_xyxy_px, dtype=np.float64) * self._scale()).astype(np.float32)

    def boxes_to_frame(self, boxes_xyxy_px: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(..., 4) boxes in pixels of SAM's input -> in frame pixels."""
        return (np.asarray(boxes_xyxy_px, dtype=np.float64) / self._scale()).astype(np.float32)

    def masks_to_input(self, masks_NHW: Tensor) -> Tensor:
        """Masks of the frame -> float (N, S, S) coverage in [0, 1] on SAM's input, 0 on the padding."""
        size = (self.scaled_height, self.scaled_width)
        scaled = interpolate(masks_NHW[:, None].float(), size, mode="bilinear", antialias=True)[:, 0]
        return pad(scaled, (0, self.image_size - self.scaled_width, 0, self.image_size - self.scaled_height))

    def masks_to_frame(self, logits_Nhw: Tensor) -> Tensor:
        """The decoder's mask logits (N, h, w) at its own size -> (N, H, W) on the frame, the padding cut off."""
        size = (self.image_size, self.image_size)
        whole = interpolate(logits_Nhw[:, None].float(), size, mode="bilinear", align_corners=False)
        inside = whole[..., : self.scaled_height, : self.scaled_width]
        return interpolate(inside, (self.height, self.width), mode="bilinear", align_corners=False)[:, 0]

    def _scale(self) -> npt.NDArray[np.float64]:
        return np.array([self.scaled_width / self.width, self.scaled_height / self.height] * 2)


class SamPreprocess:
    """Frames (H, W, C) uint8 RGB of any size -> SAM's normalised square input."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self._mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
        self._std = torch.tensor(PIXEL_STD).view(3, 1, 1)

    def __call__(self, images: Sequence[ByteArray]) -> tuple[Tensor, list[FrameGeometry]]:
        """Pixels (B, C, S, S) float32 on the CPU, and where each frame lies in them."""
        pixels_BCSS = torch.zeros(len(images), 3, self.image_size, self.image_size)
        geometries = []
        for row, image in enumerate(images):
            place = FrameGeometry.of(*image.shape[:2], image_size=self.image_size)
            scaled = resize_image(image, height=place.scaled_height, width=place.scaled_width, mode="bilinear")
            pixels_BCSS[row, :, : place.scaled_height, : place.scaled_width] = (scaled - self._mean) / self._std
            geometries.append(place)
        return pixels_BCSS, geometries


def build_sam(config: SamConfig) -> Sam:
    """A SAM of `segment_anything`'s own modules with random weights, in evaluation mode."""
    grid = (config.grid_size, config.grid_size)
    sam = Sam(
        image_encoder=_build_image_encoder(config),
        prompt_encoder=PromptEncoder(
            embed_dim=config.prompt_width,
            image_embedding_size=grid,
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_prompt_width,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=config.num_multimask_outputs,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_width,
                mlp_dim=config.decoder_mlp_width,
                num_heads=config.decoder_num_heads,
            ),
            transformer_dim=config.prompt_width,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_width,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()


def load_sam(
    path: str, *, config: SamConfig | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Sam, SamConfig]:
    """A SAM and its numbers from SAM's published `.pth` (opened safely) or from a file of `save_sam`.

    Without `config`, the numbers come from the file's own note or else from the tensors' shapes; shapes cannot tell
    the decoder's heads, which are then the published 8. A `config` with another image size than the file's gets the
    file's tables of positions interpolated to its own grid, as is usual before fine-tuning at another size.
    """
    file = resolve_checkpoint(path)
    state = read_state(file)
    config = config or _noted_config(file) or _infer_config(state, str(file))
    state = _at_grid(state, config)
    sam = build_sam(config)
    load_checked(sam.to(dtype), state, source=str(file))
    return sam, config


def save_sam(sam: Sam, config: SamConfig, path: Path) -> None:
    """Writes the weights as safetensors, with the numbers noted in the file."""
    state = {name: tensor.contiguous() for name, tensor in sam.state_dict().items()}
    save_file(state, path, metadata={_METADATA_KEY: json.dumps(asdict(config))})


def _build_image_encoder(config: SamConfig) -> ImageEncoderViT:
    return ImageEncoderViT(
        depth=config.encoder_depth,
        embed_dim=config.encoder_width,
        img_size=config.image_size,
        mlp_ratio=config.encoder_mlp_ratio,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=config.encoder_num_heads,
        patch_size=config.patch_size,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=config.global_attention_blocks,
        window_size=config.window_size,
        out_chans=config.prompt_width,
    )


def _at_grid(state: State, config: SamConfig) -> State:
    """The state with its tables of absolute and, where attention is global, relative positions at the config's grid."""
    found = dict(state)
    absolute = state.get("image_encoder.pos_embed")
    grid = config.grid_size
    if absolute is None or absolute.dim() != 4 or absolute.shape[1] == grid:
        return found
    channels_first = absolute.float().permute(0, 3, 1, 2)
    scaled = interpolate(channels_first, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    found["image_encoder.pos_embed"] = scaled.permute(0, 2, 3, 1).to(absolute.dtype)
    for block in config.global_attention_blocks:
        for name in (f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for axis in "hw"):
            if name in state:
                scaled = interpolate(state[name].float().t()[None], 2 * grid - 1, mode="linear", align_corners=False)
                found[name] = scaled[0].t().to(state[name].dtype)
    return found


def _noted_config(file: Path) -> SamConfig | None:
    """The numbers that `save_sam` noted in the file, if it is such a file."""
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as content:
        note = (content.metadata() or {}).get(_METADATA_KEY)
    if note is None:
        return None
    try:
        values = json.loads(note)
        return SamConfig(**{**values, "global_attention_blocks": tuple(values["global_attention_blocks"])})
    except (TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{file} notes SAM numbers that cannot be read ({error}): {note:.200}") from error


def _infer_config(state: State, source: str) -> SamConfig:
    """The numbers that a SAM state dict's shapes imply."""
    try:
        return _config_of_shapes({name: tuple(tensor.shape) for name, tensor in state.items()})
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{source} is not a SAM checkpoint: it has no {error}. Give one of SAM's own .pth files (vit_b, vit_l, "
            f"vit_h) or a file written by save_sam"
        ) from error


def _config_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> SamConfig:
    width, _, _, patch_size = shapes["image_encoder.patch_embed.proj.weight"]
    grid = shapes["image_encoder.pos_embed"][1]
    depth = _count(shapes, "image_encoder.blocks.{}.attn.qkv.weight")
    tables = [shapes[f"image_encoder.blocks.{block}.attn.rel_pos_h"] for block in range(depth)]
    spans = [(rows + 1) // 2 for rows, _ in tables]
    decoder = "mask_decoder.transformer.layers"
    return SamConfig(
        encoder_width=width,
        encoder_depth=depth,
        encoder_num_heads=width // tables[0][1],
        global_attention_blocks=tuple(block for block, span in enumerate(spans) if span == grid),
        image_size=grid * patch_size,
        patch_size=patch_size,
        window_size=next((span for span in spans if span != grid), grid),
        encoder_mlp_ratio=shapes["image_encoder.blocks.0.mlp.lin1.weight"][0] / width,
        prompt_width=shapes["image_encoder.neck.0.weight"][0],
        mask_prompt_width=shapes["prompt_encoder.mask_downscaling.3.weight"][0],
        decoder_depth=_count(shapes, decoder + ".{}.norm1.weight"),
        decoder_mlp_width=shapes[f"{decoder}.0.mlp.lin1.weight"][0],
        num_multimask_outputs=shapes["mask_decoder.mask_tokens.weight"][0] - 1,
        iou_head_depth=_count(shapes, "mask_decoder.iou_prediction_head.layers.{}.weight"),
        iou_head_width=shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0],
    )


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many numbers 0, 1, 2, ... the pattern has."""
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


PRESETS = {
    "vit_b": SamConfig(
        encoder_width=768, encoder_depth=12, encoder_num_heads=12, global_attention_blocks=(2, 5, 8, 11)
    ),
    "vit_l": SamConfig(
        encoder_width=1024, encoder_depth=24, encoder_num_heads=16, global_attention_blocks=(5, 11, 17, 23)
    ),
    "vit_h": SamConfig(
        encoder_width=1280, encoder_depth=32, encoder_num_heads=16, global_attention_blocks=(7, 15, 23, 31)
    ),
}
