"""Published ViT, PASS and ALBEF files give the numbers that their own classes give; saved models come back."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from modeling.backbones.row_bytes import from_row_bytes, to_row_bytes
from modeling.errors import ConfigError, WeightsError
from modeling.instruct_reid.checkpoint import (
    build_irm,
    for_retrieval,
    load_instruction_encoder,
    load_irm,
    load_vit,
    save_irm,
    with_instructions_of,
    with_kind,
)
from modeling.instruct_reid.config import IrmConfig
from modeling.instruct_reid.editing import EditingTransformer
from modeling.instruct_reid.instruction_encoder import InstructionEncoder
from modeling.instruct_reid.instructions import Instruction
from modeling.instruct_reid.irm import QueryPixels
from modeling.ps_reid.folder import model_family
from tests.modeling.instruct_reid.small_irm import IMAGE, WORDS, small_irm, some_instructions, some_pixels

torch.set_num_threads(1)
SQUARE = IMAGE.model_copy(update={"height_px": 16, "width_px": 16, "layer_norm_eps": 1e-12})


def _vit() -> ViTModel:
    torch.manual_seed(3)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=16, patch_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    vit = ViTModel(config, add_pooling_layer=False).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit


def test_a_hugging_face_vit_computes_the_same(tmp_path: Path) -> None:
    vit = _vit()
    vit.save_pretrained(tmp_path)
    image = EditingTransformer(SQUARE, instruction_width=16)
    load_vit(image, str(tmp_path))
    pixels = torch.randn(2, 3, 16, 16)
    expected = vit(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(image(pixels), expected, atol=1e-5, rtol=1e-4)


def test_timm_names_and_another_grid(tmp_path: Path) -> None:
    source = EditingTransformer(SQUARE, instruction_width=None)
    state = {k: v for k, v in source.state_dict().items()} | {"head.weight": torch.zeros(5, 24)}
    torch.save({"state_dict": state}, tmp_path / "vit.pth")
    image = EditingTransformer(IMAGE, instruction_width=16)
    load_vit(image, str(tmp_path / "vit.pth"))
    assert image.pos_embed.shape == (1, 1 + 4 * 2, 24)
    torch.testing.assert_close(image.pos_embed[:, 0], source.pos_embed[:, 0])
    torch.testing.assert_close(image.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)


def test_pass_weights_bring_three_part_tokens(tmp_path: Path) -> None:
    source = EditingTransformer(IMAGE, instruction_width=None)
    generator = torch.Generator().manual_seed(1)
    state = {k: v for k, v in source.state_dict().items() if k not in ("part_tokens", "pos_embed")}
    for n in (1, 2, 3):
        state |= {f"part_token{n}": torch.full((1, 1, 24), float(n)), f"part{n}_pos": torch.full((1, 1, 24), n / 10)}
    state |= {"cls_pos": torch.full((1, 1, 24), 7.0), "pos_embed": torch.randn(1, 8, 24, generator=generator)}
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in state.items()}}, tmp_path / "pass.pth")
    image = EditingTransformer(IMAGE.model_copy(update={"num_parts": 3}), instruction_width=None)
    load_vit(image, str(tmp_path / "pass.pth"))
    assert image.part_tokens is not None
    assert image.part_tokens[0, :, 0].tolist() == [1, 2, 3]
    assert image.pos_embed[0, :4, 0].tolist() == pytest.approx([7, 0.1, 0.2, 0.3])
    torch.testing.assert_close(image.pos_embed[:, 4:], state["pos_embed"])
    with pytest.raises(WeightsError, match="num_parts"):
        load_vit(EditingTransformer(IMAGE.model_copy(update={"num_parts": 4}), instruction_width=None),
                 str(tmp_path / "pass.pth"))  # fmt: skip


def test_an_instruction_encoder_of_another_model() -> None:
    irm, other = small_irm(), small_irm(seed=3)
    asked = some_instructions(4)
    features = other.encode_instructions(other.instruction.prepare(asked)).feature_BI
    image = irm.image_tokens(some_pixels(2))
    joined = with_instructions_of(irm, other)
    told = joined.encode_instructions(joined.instruction.prepare(asked)).feature_BI
    torch.testing.assert_close(told, features)
    torch.testing.assert_close(joined.image_tokens(some_pixels(2)), image)
    wider = other.config.instruction.model_copy(update={"mlp_width": 64})
    other.config = other.config.model_copy(update={"instruction": wider})
    with pytest.raises(ConfigError, match="differ in mlp_width"):
        with_instructions_of(irm, other)


def test_an_albef_checkpoint_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(4)
    numbers = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 400}
    bert = BertModel(BertConfig(**numbers, num_hidden_layers=3), add_pooling_layer=False).eval()
    picture_config = IMAGE.model_copy(
        update={"height_px": 16, "width_px": 16, "width": 16, "num_layers": 1, "mlp_width": 32}
    )
    picture = EditingTransformer(picture_config, instruction_width=None)
    for parameter in [*bert.parameters(), *picture.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    state = {f"text_encoder.bert.{k}": v for k, v in bert.state_dict().items()}
    state |= {f"visual_encoder.{k}": v for k, v in picture.state_dict().items()}
    state |= {"temp": torch.tensor(0.07), "visual_encoder_m.cls_token": torch.zeros(1, 1, 16)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "ALBEF.pth")

    encoder = InstructionEncoder(WORDS, small_irm().instruction.tokenizer).eval()
    load_instruction_encoder(encoder, str(tmp_path / "ALBEF.pth"))
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    bert.encoder.layer = bert.encoder.layer[:2]  # ALBEF's text mode ends before the layers that fuse
    expected = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    got = encoder.text(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4)
    pixels = torch.randn(2, 3, 16, 16)
    got = encoder.picture(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(got, picture(pixels), atol=1e-5, rtol=1e-4)


def test_sources_in_a_config_are_loaded(tmp_path: Path) -> None:
    _vit().save_pretrained(tmp_path)
    config = IrmConfig(image=SQUARE.model_copy(update={"source": str(tmp_path)}), instruction=WORDS)
    irm = build_irm(config, tokenizer=small_irm().instruction.tokenizer)
    torch.testing.assert_close(irm.image.cls_token, _vit().embeddings.cls_token)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = EditingTransformer(IMAGE, instruction_width=None)
    state = {k: v for k, v in source.state_dict().items() if "blocks.1" not in k}
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(WeightsError, match=r"lacks .* of"):
        load_vit(EditingTransformer(IMAGE, instruction_width=None), str(tmp_path / "half.pth"))


@pytest.mark.parametrize("kind", ["irm", "irm++"])
def test_a_saved_model_comes_back(tmp_path: Path, kind: str) -> None:
    irm = small_irm(kind, edits=kind == "irm")  # type: ignore[arg-type]
    save_irm(irm, tmp_path / "model")
    again = load_irm(str(tmp_path / "model"))
    assert model_family(tmp_path / "model") == "instruct_reid" and model_family(tmp_path) is None
    assert again.config == irm.config
    pixels = some_pixels(2)
    torch.testing.assert_close(
        for_retrieval(again).gallery_features(pixels), for_retrieval(irm).gallery_features(pixels)
    )
    text = "Find the person in black."
    assert again.instruction.tokenizer(text)["input_ids"] == irm.instruction.tokenizer(text)["input_ids"]


def test_a_model_stored_in_bytes_is_nearly_the_same(tmp_path: Path) -> None:
    irm = small_irm(has_neck=True, stripes=2)
    irm.fused_neck.running_var.fill_(1e6)
    save_irm(irm, tmp_path / "bytes", dtype=torch.int8)
    save_irm(irm, tmp_path / "whole")
    sizes = [(tmp_path / name / "irm.safetensors").stat().st_size for name in ("bytes", "whole")]
    assert sizes[0] < 0.4 * sizes[1]
    again = load_irm(str(tmp_path / "bytes"))
    pixels = some_pixels(8)
    before, after = (for_retrieval(model).gallery_features(pixels) for model in (irm, again))
    assert (before * after).sum(1).min() > 0.999
    assert torch.equal(again.fused_neck.running_var, irm.fused_neck.running_var)


def test_rows_of_bytes_by_hand() -> None:
    state = {"w": torch.tensor([[127.0, -63.5], [0.0, 0.0]]), "b": torch.tensor([0.3]), "n": torch.tensor(7)}
    stored = to_row_bytes(state)
    assert stored["w"].dtype == torch.int8 and stored["w"].tolist() == [[127, -64], [0, 0]]
    assert stored["w.row_scale"][0] == 1.0 and stored["b"] is state["b"] and stored["n"] is state["n"]
    again = from_row_bytes(stored)
    assert again.keys() == state.keys() and again["w"].tolist() == [[127.0, -64.0], [0.0, 0.0]]
    assert from_row_bytes(state).keys() == state.keys()


def test_a_model_becomes_the_other_kind_and_at_first_gives_what_it_gave() -> None:
    irm = small_irm("irm++")
    listening = with_kind(irm, "irm", edits=True)
    assert (listening.config.kind, listening.config.edits) == ("irm", True)
    assert with_kind(irm, "irm++", edits=False) is irm
    pixels = some_pixels(3)
    instructions = irm.instruction.prepare([Instruction(text="Ignore the clothes.")] * 3)
    queries = QueryPixels(pixels, instructions)
    torch.testing.assert_close(listening.query_features(queries), irm.query_features(queries))
    back = with_kind(listening, "irm++", edits=False)
    assert back.state_dict().keys() == irm.state_dict().keys()
