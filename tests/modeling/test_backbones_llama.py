"""LLaMA, its tokenizer and LLaVA's connector, from every published layout, against the model that was written out."""

import importlib.util
import os
from pathlib import Path

import pytest
import sentencepiece
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from modeling.backbones.llama import add_control_tokens, load_llama, load_tokenizer
from modeling.errors import ConfigError, WeightsError
from tests.modeling.checkpoint_files import (
    CLIP_VISION,
    IDS,
    LLAMA,
    NUM_WORDS,
    half,
    make_llama,
    write_byte_level,
    write_folder,
    write_json,
    write_sentencepiece,
)

torch.set_num_threads(1)
TOKENS = ["[SEG]", "[REJ]", "[QRY]"]
LINEAR = {"weight": torch.randn(32, 32).half(), "bias": torch.randn(32).half()}
MLP = {f"{place}.{kind}": torch.randn_like(LINEAR[kind]) for place in (0, 2) for kind in ("weight", "bias")}
HF_LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "vision_config": CLIP_VISION,
    "text_config": LLAMA,
    "vision_feature_layer": -2,
    "image_token_index": 299,
}
OWN_LLAVA = {
    **LLAMA,
    "model_type": "llava",
    "architectures": ["LlavaLlamaForCausalLM"],
    "mm_vision_tower": "openai/clip-vit-large-patch14",
    "mm_hidden_size": 1024,
    "mm_use_im_start_end": False,
    "mm_vision_select_layer": -2,
    "tune_mm_mlp_adapter": False,
    "use_mm_proj": True,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LLaMA's tokenizer files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_sentencepiece(folder)
    return folder


def with_words(folder: Path, words: Path) -> str:
    for file in words.iterdir():
        if file.suffix != ".vocab":
            (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_equals(model: LlamaForCausalLM, reference: LlamaForCausalLM) -> None:
    expected = reference.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, reference(IDS).logits)
    assert not model.training


@pytest.mark.parametrize("form", ["model.safetensors", "model*.safetensors", "pytorch_model.bin", "pytorch_model*.bin"])
def test_hugging_face_llama(tmp_path: Path, words: Path, form: str) -> None:
    reference = make_llama()
    loaded = load_llama(with_words(write_folder(tmp_path, LLAMA, half(reference), form=form), words))
    assert_equals(loaded.model, reference)
    assert (loaded.projector, loaded.vision_tower) == ({}, None)


@pytest.mark.parametrize("names", ["published", "later"])
def test_hugging_face_llava(tmp_path: Path, words: Path, names: str) -> None:
    reference = make_llama()
    connector = {name.replace("0.", "linear_1.").replace("2.", "linear_2."): tensor for name, tensor in MLP.items()}
    tower = {"vision_model.embeddings.class_embedding": torch.ones(32)}
    if names == "published":
        parts = {"language_model.": half(reference), "multi_modal_projector.": connector, "vision_tower.": tower}
        state = {name: tensor for prefix, part in parts.items() for name, tensor in prefixed(part, prefix).items()}
    else:
        language = {
            name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name: tensor
            for name, tensor in half(reference).items()
        }
        rest = {**prefixed(connector, "multi_modal_projector."), **prefixed(tower, "vision_tower.")}
        state = language | prefixed(rest, "model.")
    loaded = load_llama(with_words(write_folder(tmp_path, HF_LLAVA, state, form="model*.safetensors"), words))
    assert_equals(loaded.model, reference)
    assert loaded.projector.keys() == connector.keys()
    assert all(torch.equal(loaded.projector[name], tensor) for name, tensor in connector.items())


@pytest.mark.parametrize("connector", [LINEAR, MLP], ids=["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("place", ["inside", "mm_projector.bin", "mm_projector.bin without model."])
def test_llavas_own_layout(tmp_path: Path, words: Path, connector: dict[str, Tensor], place: str) -> None:
    reference = make_llama()
    state = half(reference)
    named = prefixed(connector, "mm_projector." if "without" in place else "model.mm_projector.")
    if place == "inside":
        state |= named
        state["model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"] = torch.ones(32)
    folder = write_folder(tmp_path, OWN_LLAVA, state, form="pytorch_model*.bin")
    if place != "inside":
        torch.save(named, folder / "mm_projector.bin")
    loaded = load_llama(with_words(folder, words))
    assert_equals(loaded.model, reference)
    assert loaded.vision_tower == "openai/clip-vit-large-patch14"
    as_linear = {"weight": "linear_1.weight", "bias": "linear_1.bias"}
    as_mlp = {name: name.replace("0.", "linear_1.").replace("2.", "linear_2.") for name in MLP}
    for name, new_name in (as_linear if connector is LINEAR else as_mlp).items():
        assert torch.equal(loaded.projector[new_name], connector[name])
    assert len(loaded.projector) == len(connector)


def write_delta(folder: Path, target: LlamaForCausalLM, base: LlamaForCausalLM) -> Path:
    """What LLaVA's make_delta writes: target - base on the base's rows, all else as it is."""
    start, delta = base.state_dict(), {}
    for name, tensor in target.state_dict().items():
        delta[name] = tensor.half().clone()
        delta[name][: len(start[name])] -= start[name].half()
    config = {**OWN_LLAVA, "vocab_size": target.config.vocab_size}
    return write_folder(folder, config, delta | prefixed(LINEAR, "model.mm_projector."), form="pytorch_model*.bin")


@pytest.mark.parametrize("num_new", [0, 3])
def test_llavas_delta_over_a_base(tmp_path: Path, words: Path, num_new: int) -> None:
    base, target = make_llama(0), make_llama(1, vocab_size=NUM_WORDS + num_new)
    base_folder = write_folder(tmp_path / "base", LLAMA, half(base), form="pytorch_model*.bin")
    delta = with_words(write_delta(tmp_path / "delta", target, base), words)
    loaded = load_llama(delta, base=str(base_folder))
    expected = target.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=2e-3), name  # float16 differences
        if num_new and name in ("lm_head.weight", "model.embed_tokens.weight"):
            assert torch.equal(tensor[-num_new:], expected[name][-num_new:])
    assert torch.equal(loaded.projector["linear_1.weight"], LINEAR["weight"])


def test_a_delta_without_its_base_is_noticed(tmp_path: Path, words: Path) -> None:
    base = make_llama(0)
    delta = with_words(write_delta(tmp_path / "delta", base, base), words)
    with pytest.raises(WeightsError, match="looks like delta weights"):
        load_llama(delta)


def test_a_delta_over_the_wrong_base_is_refused(tmp_path: Path, words: Path) -> None:
    delta = with_words(write_delta(tmp_path / "delta", make_llama(1), make_llama(0)), words)
    wider = make_llama(0, hidden_size=64)
    folder = write_folder(tmp_path / "wider", LLAMA, half(wider))
    with pytest.raises(
        WeightsError, match=r"does not fit this base: lm_head\.weight is \(300, 32\) in the delta and \(300, 64\)"
    ):
        load_llama(delta, base=str(folder))
    larger = write_folder(tmp_path / "larger", LLAMA, half(make_llama(0, vocab_size=NUM_WORDS + 9)))
    with pytest.raises(WeightsError, match="does not fit this base"):
        load_llama(delta, base=str(larger))
    shallow = write_folder(tmp_path / "shallow", LLAMA, half(make_llama(0, num_hidden_layers=1)))
    with pytest.raises(WeightsError, match=r"the base lacks model\.layers\.1"):
        load_llama(delta, base=str(shallow))


def test_shapes_and_keys_that_do_not_fit_the_config(tmp_path: Path, words: Path) -> None:
    state = half(make_llama())
    wider = with_words(write_folder(tmp_path / "wider", {**LLAMA, "intermediate_size": 64}, state), words)
    with pytest.raises(WeightsError, match=r"does not fit the model in 6 tensors: model\.layers\.0\.mlp\.gate_proj"):
        load_llama(wider)
    deeper = with_words(write_folder(tmp_path / "deeper", {**LLAMA, "num_hidden_layers": 3}, state), words)
    with pytest.raises(WeightsError, match=r"lacks 9 of 30 tensors of this model: model\.layers\.2.*and 4 more"):
        load_llama(deeper)
    headless = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        load_llama(with_words(write_folder(tmp_path / "headless", LLAMA, headless), words))


def test_other_kinds_and_incomplete_folders_are_refused(tmp_path: Path, words: Path) -> None:
    state = half(make_llama())
    with pytest.raises(WeightsError, match="only LLaMA can be loaded"):
        load_llama(str(write_folder(tmp_path / "other", {**LLAMA, "model_type": "mistral"}, state)))
    with pytest.raises(WeightsError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_llama(str(write_folder(tmp_path / "mute", LLAMA, state)))
    folder = write_folder(tmp_path / "damaged", LLAMA, state)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_llama(str(folder))
    with pytest.raises(WeightsError, match="single file"):
        load_llama(str(folder / "model.safetensors"))


def test_a_pickle_with_code_is_refused(tmp_path: Path, words: Path) -> None:
    folder = write_folder(tmp_path, LLAMA, half(make_llama()))
    torch.save({"model.mm_projector.weight": os.getcwd}, folder / "mm_projector.bin")
    with pytest.raises(WeightsError, match="refused"):
        load_llama(with_words(folder, words))


def test_tied_weights_need_no_output_layer(tmp_path: Path, words: Path) -> None:
    reference = make_llama(tie_word_embeddings=True)
    state = {name: tensor for name, tensor in half(reference).items() if name != "lm_head.weight"}
    config = {**LLAMA, "tie_word_embeddings": True}
    loaded = load_llama(with_words(write_folder(tmp_path, config, state), words))
    assert_equals(loaded.model, reference)
    add_control_tokens(loaded.tokenizer, loaded.model, TOKENS)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert torch.allclose(loaded.model.lm_head.weight[-1], reference.lm_head.weight.mean(0))


def test_older_and_newer_rope_settings_reach_the_model(tmp_path: Path, words: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0}
    config = {**LLAMA, "rope_theta": 500000.0, "rope_scaling": scaling}
    reference = make_llama(rope_theta=500000.0, rope_scaling=scaling)
    assert reference.model.rotary_emb.inv_freq[1] != make_llama().model.rotary_emb.inv_freq[1]
    loaded = load_llama(with_words(write_folder(tmp_path, config, half(reference)), words))
    assert torch.equal(loaded.model.model.rotary_emb.inv_freq, reference.model.rotary_emb.inv_freq)
    assert_equals(loaded.model, reference)


@pytest.mark.parametrize("device_map", [None, "cpu", {"": "cpu"}])
def test_dtype_and_device_map(tmp_path: Path, words: Path, device_map: str | dict | None) -> None:
    folder = with_words(write_folder(tmp_path, LLAMA, half(make_llama())), words)
    loaded = load_llama(folder, dtype=torch.bfloat16, device_map=device_map)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.isfinite(loaded.model(IDS).logits).all()


def test_quantized_weights_need_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        load_llama("anywhere", weight_bits=8)
    with pytest.raises(ConfigError, match="must be 4, 8"):
        load_llama("anywhere", weight_bits=3)


def test_the_tokenizer_splits_as_sentencepiece_does(words: Path) -> None:
    tokenizer = load_tokenizer(words)
    own = sentencepiece.SentencePieceProcessor(str(words / "tokenizer.model"))
    for text in ("the person in a red coat", "is this", "café 東"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


@pytest.mark.parametrize("kind", ["sentencepiece", "legacy sentencepiece", "byte_level"])
def test_control_tokens_are_single_ids_with_mean_rows(tmp_path: Path, words: Path, kind: str) -> None:
    folder = write_folder(tmp_path, LLAMA, half(make_llama()))
    if kind == "byte_level":
        write_byte_level(folder)
    else:
        with_words(folder, words)
    if kind.startswith("legacy"):
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": True})
    loaded = load_llama(str(folder))
    num_before = len(loaded.tokenizer)
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}

    ids = add_control_tokens(loaded.tokenizer, loaded.model, TOKENS)

    assert ids == [num_before, num_before + 1, num_before + 2]
    for token, index in zip(TOKENS, ids, strict=True):
        for text in (token, f"person {token}", f"person{token}.", f"{token}\n{token}"):
            encoded = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert encoded.count(index) == text.count(token)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        after = loaded.model.state_dict()[name]
        assert torch.equal(after[:num_before], before[name][:num_before])
        assert torch.allclose(after[ids], before[name][:num_before].mean(0).expand(3, -1), atol=1e-6)
    logits = loaded.model(torch.tensor([[1, *ids]])).logits
    assert logits.shape[-1] == max(NUM_WORDS, num_before + 3)


def test_spare_rows_of_a_checkpoint_are_used_and_filled(tmp_path: Path, words: Path) -> None:
    spare = make_llama(vocab_size=NUM_WORDS + 64)
    config = {**LLAMA, "vocab_size": NUM_WORDS + 64}
    loaded = load_llama(with_words(write_folder(tmp_path, config, half(spare)), words))
    mean = loaded.model.lm_head.weight[:NUM_WORDS].mean(0)
    ids = add_control_tokens(loaded.tokenizer, loaded.model, TOKENS)
    assert ids == [NUM_WORDS, NUM_WORDS + 1, NUM_WORDS + 2]
    assert loaded.model.lm_head.weight.shape[0] == NUM_WORDS + 64
    assert torch.allclose(loaded.model.lm_head.weight[ids], mean.expand(3, -1), atol=1e-6)


def test_tokens_that_are_known_keep_their_trained_rows(tmp_path: Path, words: Path) -> None:
    loaded = load_llama(with_words(write_folder(tmp_path, LLAMA, half(make_llama())), words))
    ids = add_control_tokens(loaded.tokenizer, loaded.model, TOKENS[:2])
    with torch.no_grad():
        loaded.model.lm_head.weight[ids] = 7.0
    again = add_control_tokens(loaded.tokenizer, loaded.model, TOKENS)
    assert again[:2] == ids
    assert (loaded.model.lm_head.weight[ids] == 7.0).all()
    assert loaded.model.lm_head.weight[again[2]].mean() != 7.0
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").convert_tokens_to_ids(TOKENS) == again
