"""Editing, fusion, instruction encoder, and the two ways to make features."""

import pytest
import torch
import torch.nn.functional as F

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.checkpoint import for_retrieval
from modeling.instruct_reid.config import PRESETS, ImageConfig, IrmConfig, named_preset
from modeling.instruct_reid.editing import EditingAttention, EditingTransformer, InstructionTokens
from modeling.instruct_reid.instructions import Instruction
from modeling.instruct_reid.irm import IrmPlusPlus, QueryPixels
from tests.modeling.instruct_reid.small_irm import IMAGE, WORDS, small_irm, some_instructions, some_pixels

torch.set_num_threads(1)


def _instruction(batch: int = 3, tokens: int = 5, width: int = 16) -> InstructionTokens:
    states = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([tokens, tokens - 2, 1])[:batch]
    return InstructionTokens(states, torch.arange(tokens)[None] < lengths[:, None])


def test_attention_is_equations_4_to_6() -> None:
    torch.manual_seed(0)
    attention = EditingAttention(8, 1, instruction_width=16).double()
    assert attention.gate is not None and attention.instruction_kv is not None
    torch.nn.init.constant_(attention.gate, 0.7)
    tokens = torch.randn(1, 4, 8, dtype=torch.float64)
    words = torch.randn(1, 3, 16, dtype=torch.float64)
    instruction = InstructionTokens(words, torch.ones(1, 3, dtype=torch.bool))
    query, key, value = attention.qkv(tokens)[0].chunk(3, dim=-1)
    key_i, value_i = attention.instruction_kv(words)[0].chunk(2, dim=-1)
    first, second = query @ key.t() / 8**0.5, query @ key_i.t() / 8**0.5  # eq. 5
    mixture = torch.cat([first.softmax(-1), 0.7 * second.softmax(-1)], dim=-1)  # eq. 4
    expected = attention.proj(mixture @ torch.cat([value, value_i]))  # eq. 6
    torch.testing.assert_close(attention(tokens, instruction)[0], expected)


def test_an_untrained_gate_changes_nothing() -> None:
    torch.manual_seed(0)
    editing = EditingTransformer(IMAGE, instruction_width=16)
    plain = EditingTransformer(IMAGE, instruction_width=None)
    plain.load_state_dict({k: v for k, v in editing.state_dict().items() if k in plain.state_dict()})
    pixels = some_pixels(3)
    torch.testing.assert_close(editing(pixels, _instruction()), plain(pixels))
    torch.testing.assert_close(editing(pixels), plain(pixels))


def test_the_gate_learns_and_then_edits() -> None:
    torch.manual_seed(0)
    editing = EditingTransformer(IMAGE, instruction_width=16)
    pixels, instruction = some_pixels(3), _instruction()
    editing(pixels, instruction)[:, 0, :4].square().sum().backward()
    gates = [block.attn.gate for block in editing.blocks]
    assert all(gate.grad is not None and gate.grad.abs() > 0 for gate in gates)
    for gate in gates:
        torch.nn.init.constant_(gate, 0.5)
    assert not torch.allclose(editing(pixels, instruction), editing(pixels), atol=1e-3)


def test_padding_of_an_instruction_is_never_read() -> None:
    irm = small_irm("irm", edits=True)
    for block in irm.image.blocks:
        torch.nn.init.constant_(block.attn.gate, 0.5)
    for layer in irm.fusion.layers:
        torch.nn.init.normal_(layer.proj.weight, std=0.2)
    pixels, instruction = some_pixels(3), _instruction()
    other = InstructionTokens(
        torch.where(instruction.is_token_BT[..., None], instruction.tokens_BTI, 9.0), instruction.is_token_BT
    )
    torch.testing.assert_close(irm.instructed(pixels, instruction), irm.instructed(pixels, other))


def test_fusion_starts_as_the_image_alone() -> None:
    irm = small_irm()
    tokens = irm.image_tokens(some_pixels(3))
    torch.testing.assert_close(irm.fuse(tokens, _instruction()), tokens[:, 0], atol=1e-4, rtol=1e-3)


def test_a_feature_of_stripes() -> None:
    irm = small_irm(stripes=2)
    tokens = irm.image_tokens(some_pixels(3))
    rows, columns = IMAGE.grid
    half = rows * columns // 2
    stripes_BDS = torch.stack([tokens[:, 1 : 1 + half].mean(1), tokens[:, 1 + half :].mean(1)], dim=2)
    expected = irm.image.pool(torch.cat([tokens[:, 0], stripes_BDS.flatten(1)], dim=1))
    torch.testing.assert_close(irm.image.feature(tokens), expected)
    torch.testing.assert_close(irm.fuse(tokens, _instruction()), expected, atol=1e-4, rtol=1e-3)


def test_a_stem_of_residual_convolutions() -> None:
    config = IMAGE.model_copy(update={"stem": (4, 8, 8, 12), "stripes": 2})
    torch.manual_seed(0)
    image = EditingTransformer(config, instruction_width=None).eval()
    pixels = some_pixels(3)
    tokens = image(pixels)
    assert tokens.shape == (3, 1 + 8, 24)
    # At first the layers above pass on what the convolutions see.
    patches = image.patch_embed(pixels) + image.pos_embed[:, 1:]
    torch.testing.assert_close(tokens[:, 1:], image.norm(patches))
    one = image.patch_embed.blocks[1]
    assert one.first.conv.stride == (1, 1) and isinstance(one.short, torch.nn.Identity)
    with pytest.raises(ValueError, match=r"halves the picture 2 times.*not patch_size = 8"):
        ImageConfig(**(IMAGE.model_dump() | {"stem": (4, 8, 8)}))


def test_necks_normalise_pictures_queries_and_texts_apart() -> None:
    irm = small_irm(has_neck=True).train()
    pixels, batch = some_pixels(8), irm.instruction.prepare(some_instructions(8))
    for features in (
        irm.picture_neck(irm.image.feature(irm.image_tokens(pixels))),
        irm.instructed(pixels, irm.encode_instructions(batch)),
        irm.text_features(irm.encode_instructions(batch)),
    ):
        torch.testing.assert_close(features.mean(0), torch.zeros(IMAGE.width), atol=1e-4, rtol=0)  # of a first batch
    means = [neck.running_mean for neck in (irm.picture_neck, irm.fused_neck, irm.text_neck)]
    assert all(mean.abs().sum() > 0 for mean in means) and not torch.equal(means[0], means[2])
    irm.eval()
    alone = irm.query_features(QueryPixels(pixels[:1], irm.instruction.prepare(some_instructions(8)[:1])))
    torch.testing.assert_close(alone, irm.query_features(QueryPixels(pixels, batch))[:1], atol=1e-5, rtol=1e-4)


def test_instructions_of_both_kinds_keep_their_rows() -> None:
    encoder = small_irm().instruction
    instructions = some_instructions(5)
    together = encoder(encoder.prepare(instructions))
    for row, one in enumerate(instructions):
        alone = encoder(encoder.prepare([one]))
        torch.testing.assert_close(together.feature_BI[row], alone.feature_BI[0], atol=1e-5, rtol=1e-4)
        assert together.is_token_BT[row].sum() == alone.is_token_BT[0].sum()


def test_long_sentences_are_cut() -> None:
    encoder = small_irm().instruction
    batch = encoder.prepare([Instruction(text="black trousers " * 200)])
    assert batch.token_ids.shape == (1, WORDS.max_tokens)
    assert batch.token_ids[0, -1] == encoder.tokenizer.eos_token_id


def test_an_instruction_is_one_thing() -> None:
    with pytest.raises(DataError, match="exactly one"):
        Instruction()
    with pytest.raises(DataError, match="no instruction"):
        small_irm().instruction.prepare([])


def test_irm_plus_plus_gallery_is_task_free() -> None:
    irm = small_irm("irm++")
    model = for_retrieval(irm)
    assert isinstance(model, IrmPlusPlus)
    pixels, batch = some_pixels(4), irm.instruction.prepare(some_instructions(4))
    free = model.gallery_features(pixels)
    torch.testing.assert_close(model.gallery_features(pixels, batch), free)
    torch.testing.assert_close(free.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(free, F.normalize(irm.image(pixels)[:, 0], dim=1))


def test_irm_gallery_listens_to_its_instruction() -> None:
    irm = small_irm("irm", edits=True)
    for block in irm.image.blocks:
        torch.nn.init.constant_(block.attn.gate, 1.0)
    pixels = some_pixels(2)
    one, other = (irm.instruction.prepare(some_instructions(2, seed)) for seed in (1, 2))
    assert not torch.allclose(irm.gallery_features(pixels, one), irm.gallery_features(pixels, other), atol=1e-4)
    query = irm.query_features(QueryPixels(pixels, one))
    torch.testing.assert_close(query, irm.gallery_features(pixels, one))


def test_a_query_without_a_picture_is_its_text() -> None:
    irm = small_irm()
    batch = irm.instruction.prepare([Instruction(text="a man in a black coat")])
    features = for_retrieval(irm).query_features(QueryPixels(None, batch))
    assert features.shape == (1, IMAGE.width)
    with pytest.raises(DataError, match="2 pictures but 1 instructions"):
        irm.query_features(QueryPixels(some_pixels(2), batch))


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="built for"):
        small_irm().image_tokens(torch.zeros(1, 3, 16, 16))


def test_presets() -> None:
    assert named_preset("tiny", "irm").edits and not named_preset("tiny", "irm++").edits
    base = PRESETS["base"].image
    assert (base.height_px, base.width_px, base.patch_size, base.num_layers, base.width) == (256, 128, 16, 12, 768)
    with pytest.raises(ConfigError, match="tiny, base"):
        named_preset("huge", "irm")
    with pytest.raises(ValueError, match="is_fixed needs"):
        IrmConfig(image=IMAGE, instruction=WORDS.model_copy(update={"is_fixed": True}))
