"""Tiny checkpoints in the very layouts in which CLIP, LLaMA and LLaVA are published, and the models behind them."""

import json
from collections.abc import Mapping
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

TEXTS = ["the person in a red coat walks", "is this the person? yes or no", "a woman with a black backpack"] * 20
NUM_WORDS = 300  # rows of the tiny LLaMA's vocabulary
NUM_SHARDS = 3

CLIP_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": NUM_WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float16",
}
IDS = torch.tensor([[1, 5, 9, 20, 250]])


def make_clip(seed: int = 0) -> CLIPModel:
    """A whole CLIP, picture and text side, with random weights."""
    torch.manual_seed(seed)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    words = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return CLIPModel(CLIPConfig(vision_config=CLIP_VISION, text_config={**text, **words})).eval()


def clip_names(model: CLIPModel) -> dict[str, Tensor]:
    """The published names: `vision_model.embeddings.…`, with the buffers of older versions."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {**state, "vision_model.embeddings.position_ids": torch.arange(17)[None]}


def make_llama(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """A LLaMA with random weights that float16 holds exactly."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05).copy_(parameter.half().float())
    return model


def half(model: torch.nn.Module) -> dict[str, Tensor]:
    """Its tensors in float16, as published, with the rotary buffers that older files carry."""
    state = {name: tensor.half().clone() for name, tensor in model.state_dict().items()}
    return {**state, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_folder(
    folder: Path, config: Mapping[str, object], state: Mapping[str, Tensor], *, form: str = "model.safetensors"
) -> Path:
    """config.json and the weights as one of the two main files; `form` with "*" writes shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    if "*" not in form:
        write_weights(folder / form, state)
        return folder
    stem, suffix = form.split("*")
    names = sorted(state)
    places = {}
    for shard in range(NUM_SHARDS):
        file = f"{stem}-{shard + 1:05d}-of-{NUM_SHARDS:05d}{suffix}"
        write_weights(folder / file, {name: state[name] for name in names[shard::NUM_SHARDS]})
        places.update(dict.fromkeys(names[shard::NUM_SHARDS], file))
    write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {"total_size": 1}, "weight_map": places})
    return folder


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(dict(state), path, metadata={"format": "pt"})
    else:
        torch.save(dict(state), path)


def write_sentencepiece(folder: Path) -> Path:
    """LLaMA's tokenizer as published: sentencepiece BPE with byte fallback in tokenizer.model."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=NUM_WORDS,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    special = {
        name: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False}
        for name, text in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    }
    settings = {"add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizer", **special}
    write_json(folder / "tokenizer_config.json", settings)
    return folder / "tokenizer.model"


def write_byte_level(folder: Path) -> None:
    """A later LLaMA's tokenizer: byte-level BPE in tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=NUM_WORDS - 2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
