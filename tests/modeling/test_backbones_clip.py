"""CLIP's vision tower: published folders give the reference's tokens, at any input size."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from modeling.backbones.clip import CLIP_MEAN, VisionConfig, VisionEncoder, load_clip, resize_image
from modeling.errors import ConfigError, DataError, WeightsError
from tests.modeling.checkpoint_files import (
    CLIP_VISION,
    LLAMA,
    clip_names,
    half,
    make_clip,
    make_llama,
    write_folder,
    write_json,
)

torch.set_num_threads(1)
TINY = VisionConfig(image_size=64, patch_size=16, width=32, num_layers=3, num_heads=4, mlp_width=64)
WHOLE = {"model_type": "clip", "vision_config": CLIP_VISION, "text_config": {}}


def reference_tokens(model: CLIPModel, pixels: Tensor, layer: int = -2) -> Tensor:
    size = pixels.shape[-2:]
    with torch.no_grad():
        output = model.vision_model(pixels, output_hidden_states=True, interpolate_pos_encoding=tuple(size) != (64, 64))
    return output.hidden_states[layer][:, 1:]


def llava_state(model: CLIPModel, *, prefix: str) -> dict[str, Tensor]:
    tower = {name: tensor for name, tensor in clip_names(model).items() if name.startswith("vision_model.")}
    language = {f"language_model.{name}": tensor for name, tensor in half(make_llama()).items()}
    return language | {prefix + name: tensor for name, tensor in tower.items()}


def layouts() -> list[tuple[str, dict, dict[str, Tensor]]]:
    model = make_clip()
    vision = {name: tensor for name, tensor in clip_names(model).items() if name.startswith("vision_model.")}
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in vision.items()}
    llava = {"model_type": "llava", "vision_config": CLIP_VISION, "text_config": LLAMA, "vision_feature_layer": -2}
    return [
        ("clip", WHOLE, clip_names(model)),
        ("clip_vision_model", CLIP_VISION, vision),
        ("clip_vision_model_without_prefix", CLIP_VISION, bare),
        ("llava", llava, llava_state(model, prefix="vision_tower.")),
        ("llava_later_names", llava, llava_state(model, prefix="model.vision_tower.")),
    ]


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin", "model*.safetensors"])
@pytest.mark.parametrize(("config", "state"), [pytest.param(*rest, id=name) for name, *rest in layouts()])
def test_every_published_layout_gives_the_references_tokens(
    tmp_path: Path, config: dict, state: dict[str, Tensor], form: str
) -> None:
    encoder = load_clip(str(write_folder(tmp_path, config, state, form=form)))
    pixels = torch.randn(2, 3, 64, 64)
    assert torch.equal(encoder(pixels), reference_tokens(make_clip(), pixels))
    assert encoder.config == TINY
    assert not encoder.training


def test_what_transformers_saves_today_loads(tmp_path: Path) -> None:
    model = make_clip()
    model.vision_model.save_pretrained(tmp_path / "tower")
    model.save_pretrained(tmp_path / "whole")
    pixels = torch.randn(1, 3, 64, 64)
    for name in ("tower", "whole"):
        assert torch.equal(load_clip(str(tmp_path / name))(pixels), reference_tokens(model, pixels))


@pytest.mark.parametrize("layer", [-1, -2, -3, -4, 0, 1, 3])
def test_the_feature_layer_is_the_references(tmp_path: Path, layer: int) -> None:
    folder = write_folder(tmp_path, WHOLE, clip_names(make_clip()))
    pixels = torch.randn(1, 3, 64, 64)
    encoder = load_clip(str(folder), feature_layer=layer)
    assert torch.allclose(encoder(pixels), reference_tokens(make_clip(), pixels, layer), atol=1e-6)
    assert len(encoder.model.encoder.layers) == (layer if layer >= 0 else 4 + layer)


@pytest.mark.parametrize("size", [(128, 64), (224, 384), (16, 16), (64, 128), (32, 128)])
def test_other_sizes_interpolate_the_positions(tmp_path: Path, size: tuple[int, int]) -> None:
    encoder = load_clip(str(write_folder(tmp_path, WHOLE, clip_names(make_clip()))))
    pixels = torch.randn(2, 3, *size)
    rows, columns = encoder.grid(*size)
    assert encoder(pixels).shape == (2, rows * columns, 32)
    assert torch.allclose(encoder(pixels), reference_tokens(make_clip(), pixels), atol=1e-6)


def test_tokens_come_row_by_row() -> None:
    encoder = VisionEncoder.build(replace(TINY, feature_layer=0)).eval()
    dark = torch.zeros(1, 3, 32, 64)
    lit = dark.clone()
    lit[..., 16:32, 32:48] = 1.0  # row 1, column 2 of 2 x 4
    moved = (encoder(dark) - encoder(lit)).abs().sum(-1)[0]
    assert moved.nonzero().tolist() == [[1 * 4 + 2]]


def test_an_image_does_not_depend_on_its_batch() -> None:
    encoder = VisionEncoder.build(TINY).eval()
    pixels = torch.randn(5, 3, 64, 32)
    assert torch.allclose(encoder(pixels)[3], encoder(pixels[3:4])[0], atol=1e-5)


def test_a_layer_or_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="allows -4 to 3"):
        VisionEncoder.build(replace(TINY, feature_layer=-5))
    with pytest.raises(ConfigError, match="multiple of num_heads"):
        VisionEncoder.build(replace(TINY, num_heads=5))
    with pytest.raises(ConfigError, match="multiples of the patch size 16"):
        VisionEncoder.build(TINY)(torch.randn(1, 3, 60, 64))


def test_preprocess_equals_clips_own_processor() -> None:
    encoder = VisionEncoder.build(TINY)
    image = np.asarray(Image.effect_noise((200, 120), 80).convert("RGB"))
    own = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    expected = own(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    found = encoder.preprocess([image], height=64, width=64)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1.5 / 255 / min(encoder.config.image_std)


def test_preprocess_takes_images_of_different_sizes() -> None:
    encoder = VisionEncoder.build(TINY)
    images = [np.full((height, width, 3), 128, dtype=np.uint8) for height, width in ((9, 300), (64, 32), (1, 1))]
    pixels = encoder.preprocess(images, height=64, width=32)
    assert pixels.shape == (3, 3, 64, 32)
    expected = (128 / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(encoder.config.image_std)
    assert torch.allclose(pixels, expected.view(1, 3, 1, 1).expand_as(pixels), atol=1e-6)
    assert encoder.preprocess([], height=64, width=32).shape == (0, 3, 64, 32)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(24, 38), (300, 41), (128, 64)])
def test_resize_equals_pil(mode: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (160, 90, 3), dtype=np.uint8)
    image.flags.writeable = False
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], resample)).astype(int)
    found = resize_image(image, height=size[0], width=size[1], mode=mode).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_an_image_of_another_form_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="must be RGB"):
        VisionEncoder.build(TINY).preprocess([image], height=64, width=64)


def test_the_checkpoints_own_normalisation_is_used(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, WHOLE, clip_names(make_clip()))
    write_json(folder / "preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.25]})
    encoder = load_clip(str(folder))
    black = encoder.preprocess([np.zeros((5, 5, 3), np.uint8)], height=64, width=64)
    assert black[0, :, 0, 0].tolist() == pytest.approx([-0.2, -0.4, -1.2])
    write_json(folder / "preprocessor_config.json", {"image_mean": 0.5})
    with pytest.raises(WeightsError, match="three numbers"):
        load_clip(str(folder))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = clip_names(make_clip())
    wider = {**WHOLE, "vision_config": {**CLIP_VISION, "hidden_size": 64}}
    with pytest.raises(WeightsError, match="does not fit the model"):
        load_clip(str(write_folder(tmp_path / "wider", wider, state)))
    deeper = {**WHOLE, "vision_config": {**CLIP_VISION, "num_hidden_layers": 8}}
    with pytest.raises(WeightsError, match=r"lacks .* tensors"):
        load_clip(str(write_folder(tmp_path / "deeper", deeper, state)))
    with pytest.raises(WeightsError, match="without a CLIP vision tower"):
        load_clip(str(write_folder(tmp_path / "llama", LLAMA, half(make_llama()))))
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_clip(str(tmp_path))
    with pytest.raises(WeightsError, match="single file"):
        load_clip(str(tmp_path / "wider" / "model.safetensors"))
    layers = {**WHOLE, "vision_feature_layer": [-2, -5]}
    with pytest.raises(WeightsError, match="one whole number"):
        load_clip(str(write_folder(tmp_path / "layers", layers, state)))


def test_dtype_and_config_survive() -> None:
    encoder = VisionEncoder.build(TINY).to(torch.bfloat16)
    assert encoder(torch.randn(1, 3, 64, 64)).dtype == torch.bfloat16
    assert VisionConfig(**asdict(TINY)) == TINY
