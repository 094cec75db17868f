"""SAM: published checkpoints load exactly, frames go in and masks come back as SAM's own code does it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from modeling.backbones.sam import (
    PRESETS,
    FrameGeometry,
    SamConfig,
    SamPreprocess,
    build_sam,
    load_sam,
    save_sam,
)
from modeling.errors import ConfigError, DataError, WeightsError
from tests.modeling.checkpoint_files import write_weights

torch.set_num_threads(1)
TINY = SamConfig(
    encoder_width=32,
    encoder_depth=3,
    encoder_num_heads=2,
    global_attention_blocks=(0, 2),
    image_size=128,
    window_size=4,
    prompt_width=32,
    mask_prompt_width=8,
    decoder_depth=1,
    decoder_num_heads=8,
    decoder_mlp_width=64,
    iou_head_width=24,
)


def make_sam(config: SamConfig = TINY) -> Sam:
    torch.manual_seed(0)
    sam = build_sam(config)
    with torch.no_grad():
        for parameter in sam.parameters():  # SAM starts position tables at zero, which would hide their loading
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return sam


def reference(size: str) -> Sam:
    with torch.device("meta"):
        return sam_model_registry[size]()


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_presets_are_the_published_sizes(size: str) -> None:
    with torch.device("meta"):
        ours = build_sam(PRESETS[size])
    expected = {name: tensor.shape for name, tensor in reference(size).state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    for block, other in zip(ours.image_encoder.blocks, reference(size).image_encoder.blocks, strict=True):
        for side in (block, other):
            assert side.norm1.eps == side.norm2.eps == 1e-6
        assert (block.window_size, block.attn.num_heads) == (other.window_size, other.attn.num_heads)


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_a_published_file_tells_its_size(tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: torch.empty(1).expand(tensor.shape) for name, tensor in reference(size).state_dict().items()}
    torch.save(state, tmp_path / "sam.pth")  # one number stands for each tensor: small, yet in the very layout
    built = []

    def stop(config: SamConfig) -> Sam:
        built.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling.backbones.sam.build_sam", stop)
    with pytest.raises(KeyboardInterrupt):
        load_sam(str(tmp_path / "sam.pth"))
    assert built == [PRESETS[size]]


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
def test_weights_come_back_tensor_by_tensor(tmp_path: Path, name: str) -> None:
    sam = make_sam()
    write_weights(tmp_path / name, {key: tensor.clone() for key, tensor in sam.state_dict().items()})
    loaded, config = load_sam(str(tmp_path / name))
    assert config == TINY
    assert not loaded.training
    for key, tensor in sam.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    pixels, _ = SamPreprocess(128)([np.random.default_rng(0).integers(0, 256, (90, 128, 3), dtype=np.uint8)])
    with torch.no_grad():
        assert torch.equal(loaded.image_encoder(pixels), sam.image_encoder(pixels))


def test_saving_keeps_what_shapes_cannot_tell(tmp_path: Path) -> None:
    config = replace(TINY, decoder_num_heads=2, global_attention_blocks=(1,))
    sam = make_sam(config)
    save_sam(sam, config, tmp_path / "sam.safetensors")
    loaded, found = load_sam(str(tmp_path / "sam.safetensors"))
    assert found == config
    embedding, prompt = torch.randn(1, 32, 8, 8), torch.randn(3, 1, 32)
    assert torch.equal(decode(loaded, embedding, prompt), decode(sam, embedding, prompt))


def decode(sam: Sam, embedding: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    with torch.no_grad():
        logits, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompt,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
    return logits


def test_given_numbers_win(tmp_path: Path) -> None:
    write_weights(tmp_path / "sam.pth", make_sam().state_dict())
    config = replace(TINY, decoder_num_heads=4)
    _, found = load_sam(str(tmp_path / "sam.pth"), config=config, dtype=torch.float64)
    assert found == config


def test_another_image_size_gets_position_tables_of_its_grid(tmp_path: Path) -> None:
    """A smooth table keeps its values where they were; all else, and the same size, is untouched."""
    sam = make_sam()
    ramp = torch.linspace(-1, 1, 8)[None, :, None, None].expand(1, 8, 8, 32)
    sam.image_encoder.pos_embed.data.copy_(ramp)
    sam.image_encoder.blocks[2].attn.rel_pos_h.data.copy_(torch.linspace(-1, 1, 15)[:, None].expand(15, 16))
    save_sam(sam, TINY, tmp_path / "sam.safetensors")
    same, _ = load_sam(str(tmp_path / "sam.safetensors"), config=TINY)
    assert all(torch.equal(tensor, sam.state_dict()[name]) for name, tensor in same.state_dict().items())
    larger, config = load_sam(str(tmp_path / "sam.safetensors"), config=replace(TINY, image_size=256))
    assert config.grid_size == 16
    state = larger.state_dict()
    changed = {name for name, tensor in state.items() if tensor.shape != sam.state_dict()[name].shape}
    blocks = [f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (0, 2) for axis in "hw"]
    assert changed == {"image_encoder.pos_embed", *blocks}
    assert all(torch.equal(state[name], sam.state_dict()[name]) for name in set(state) - changed)
    places = (torch.arange(16) + 0.5) / 2 - 0.5  # of the new rows among the old ones
    expected = (places * 2 / 7 - 1)[2:-2]
    torch.testing.assert_close(state["image_encoder.pos_embed"][0, 2:-2, 5, 3], expected, atol=0.02, rtol=0)
    places = (torch.arange(31) + 0.5) * 15 / 31 - 0.5
    expected = (places * 2 / 14 - 1)[2:-2]
    torch.testing.assert_close(state[blocks[2]][2:-2, 7], expected, atol=0.02, rtol=0)


def test_unfit_files_are_refused(tmp_path: Path) -> None:
    state = make_sam().state_dict()
    write_weights(tmp_path / "other.pth", {"weight": torch.ones(2, 2)})
    with pytest.raises(WeightsError, match="is not a SAM checkpoint"):
        load_sam(str(tmp_path / "other.pth"))
    write_weights(tmp_path / "part.pth", {key: value for key, value in state.items() if "iou_token" not in key})
    with pytest.raises(WeightsError, match=r"mask_decoder\.iou_token\.weight"):
        load_sam(str(tmp_path / "part.pth"))
    write_weights(tmp_path / "whole.pth", state)
    with pytest.raises(WeightsError, match="does not fit the model"):
        load_sam(str(tmp_path / "whole.pth"), config=replace(TINY, prompt_width=64))
    torch.save({**state, "hook": print}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match="refused"):
        load_sam(str(tmp_path / "code.pth"))


@pytest.mark.parametrize(
    "change", [{"image_size": 100}, {"encoder_num_heads": 5}, {"prompt_width": 36}, {"decoder_num_heads": 3}]
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="SAM: "):
        replace(TINY, **change)


FRAMES = [(90, 160), (160, 90), (128, 128), (45, 100), (33, 500), (1080, 7), (1, 1)]


@pytest.mark.parametrize("shape", FRAMES)
def test_preprocessing_equals_sams_own(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    sam = build_sam(TINY)
    scaled = torch.as_tensor(np.maximum(ResizeLongestSide(128).apply_image(image), 0)).permute(2, 0, 1)
    expected = sam.preprocess(scaled.float())
    found, (place,) = SamPreprocess(128)([image])
    assert (place.scaled_height, place.scaled_width) == tuple(scaled.shape[1:])
    assert found.shape == (1, 3, 128, 128)
    assert (found[0] - expected).abs().max() < 1.5 / 57  # one grey level


def test_frames_of_different_sizes_share_a_batch() -> None:
    images = [np.full((*shape, 3), 200, dtype=np.uint8) for shape in FRAMES]
    pixels, places = SamPreprocess(128)(images)
    for row, place in enumerate(places):
        inside = pixels[row, :, : place.scaled_height, : place.scaled_width]
        assert (inside > 0).all()
        assert pixels[row].abs().sum() == pytest.approx(inside.abs().sum().item())


@pytest.mark.parametrize("shape", FRAMES)
def test_masks_return_to_the_frame_as_sams_own(shape: tuple[int, int]) -> None:
    place = FrameGeometry.of(*shape, image_size=128)
    logits = torch.randn(3, 32, 32)
    expected = build_sam(TINY).postprocess_masks(logits[None], (place.scaled_height, place.scaled_width), shape)[0]
    assert torch.allclose(place.masks_to_frame(logits), expected, atol=1e-5)
    assert place.masks_to_frame(logits[:0]).shape == (0, *shape)
    assert place.masks_to_input(torch.zeros(0, *shape)).shape == (0, 128, 128)


def test_boxes_map_exactly_both_ways() -> None:
    place = FrameGeometry.of(1080, 1920, image_size=1024)
    assert (place.scaled_height, place.scaled_width) == (576, 1024)
    boxes = np.array([[0, 0, 1920, 1080], [100, 50, 300, 700]], dtype=np.float32)
    scaled = place.boxes_to_input(boxes)
    assert scaled[0].tolist() == [0, 0, 1024, 576]
    np.testing.assert_allclose(scaled, ResizeLongestSide(1024).apply_boxes(boxes, (1080, 1920)), rtol=1e-6)
    np.testing.assert_allclose(place.boxes_to_frame(scaled), boxes, rtol=1e-6)


def test_a_mask_survives_the_way_in_and_back() -> None:
    place = FrameGeometry.of(300, 500, image_size=512)
    mask = torch.zeros(2, 300, 500, dtype=torch.bool)
    mask[0, 40:250, 120:220] = True
    mask[1, :, 400:] = True
    inside = place.masks_to_input(mask)
    assert inside.shape == (2, 512, 512)
    assert inside[:, place.scaled_height :].sum() == 0
    back = place.masks_to_frame(inside - 0.5) > 0
    for found, expected in zip(back, mask, strict=True):
        assert (found & expected).sum() / (found | expected).sum() > 0.98


def test_a_frame_without_pixels_or_colour_is_refused() -> None:
    with pytest.raises(DataError, match="pixels"):
        SamPreprocess(128)([np.zeros((0, 4, 3), dtype=np.uint8)])
    with pytest.raises(DataError, match="must be RGB"):
        SamPreprocess(128)([np.zeros((4, 4), dtype=np.uint8)])
