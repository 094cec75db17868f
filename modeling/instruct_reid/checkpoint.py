"""Instruct-ReID weights: models saved whole, and published ViT, PASS and ALBEF weights read into their parts.

A saved model is one folder: config.json (IrmConfig), irm.safetensors (every weight), tokenizer/. Published files are
opened as `backbones/checkpoint.py` does: tensors only, anything else is refused.
"""

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling.backbones.checkpoint import (
    State,
    load_checked,
    read_state,
    read_weight_file,
    resolve_checkpoint,
    strip_prefix,
)
from modeling.backbones.row_bytes import from_row_bytes, to_row_bytes
from modeling.errors import ConfigError, WeightsError
from modeling.instruct_reid.config import CONFIG_VERSION, FAMILY, IrmConfig, Kind
from modeling.instruct_reid.editing import EditingTransformer
from modeling.instruct_reid.instruction_encoder import InstructionEncoder
from modeling.instruct_reid.irm import Irm, IrmPlusPlus
from modeling.ps_reid.folder import CONFIG_FILE, model_folder

_WEIGHTS_FILE, _TOKENIZER_FOLDER = "irm.safetensors", "tokenizer"


def build_irm(config: IrmConfig, *, tokenizer: PreTrainedTokenizerBase | None = None) -> Irm:
    """The model of a config, in evaluation mode: published parts where it names sources, random ones elsewhere.

    `tokenizer` is needed where the config names none. Raises WeightsError when a source is missing or does not fit.
    """
    if config.instruction.tokenizer is not None:
        tokenizer = load_tokenizer(config.instruction.tokenizer)
    if tokenizer is None:
        raise ConfigError("the instruction encoder needs a tokenizer: give one, or name instruction.tokenizer")
    model = Irm(config, InstructionEncoder(config.instruction, tokenizer))
    if config.image.source is not None:
        load_vit(model.image, config.image.source)
    if config.instruction.source is not None:
        load_instruction_encoder(model.instruction, config.instruction.source)
    return model.eval()


def for_retrieval(irm: Irm) -> Irm | IrmPlusPlus:
    """The model as its kind makes features."""
    return IrmPlusPlus(irm) if irm.config.kind == "irm++" else irm


def save_irm(model: Irm, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes the model: matrices in `dtype`, int8 as `row_bytes` has it; vectors and statistics in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype == torch.int8:
        state = to_row_bytes(state)
    else:
        state = {name: tensor.to(dtype) if tensor.ndim >= 2 else tensor for name, tensor in state.items()}
    save_file(state, folder / _WEIGHTS_FILE)
    model.instruction.tokenizer.save_pretrained(folder / _TOKENIZER_FOLDER)
    (folder / CONFIG_FILE).write_text(model.config.model_dump_json(indent=2) + "\n")


def load_irm(model: str, *, device: str = "cpu") -> Irm:
    """A saved model, or shipped weights by name, in evaluation mode. Raises WeightsError when it does not fit."""
    folder = model_folder(model)
    config = _read_config(folder)
    tokenizer = load_tokenizer(str(folder / _TOKENIZER_FOLDER))
    irm = Irm(config, InstructionEncoder(config.instruction, tokenizer))
    stored = from_row_bytes(read_weight_file(folder / _WEIGHTS_FILE))
    state = {name: tensor.float() for name, tensor in stored.items()}
    load_checked(irm, state, source=str(folder / _WEIGHTS_FILE))
    return irm.to(device).eval()


def with_kind(irm: Irm, kind: Kind, *, edits: bool) -> Irm:
    """The model as IRM or IRM++, with or without editing, its weights where both have them.

    Editing that is new starts with closed gates: at first the model gives what it gave before.
    """
    if (irm.config.kind, irm.config.edits) == (kind, edits):
        return irm
    changed = Irm(irm.config.model_copy(update={"kind": kind, "edits": edits}), irm.instruction)
    wanted = changed.state_dict()
    shared = {name: tensor for name, tensor in irm.state_dict().items() if name in wanted}
    changed.load_state_dict(wanted | shared)
    return changed.eval()


def with_instructions_of(irm: Irm, other: Irm) -> Irm:
    """The model with the other one's instruction encoder and tokenizer. Raises ConfigError when the sizes differ."""
    sizes, others = (model.config.instruction.model_dump(exclude={"source", "tokenizer"}) for model in (irm, other))
    if sizes != others:
        differing = ", ".join(name for name in sizes if sizes[name] != others[name])
        raise ConfigError(f"the instruction encoders differ in {differing}; take one of the same preset")
    irm.instruction = other.instruction
    return irm


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id."""
    folder = resolve_checkpoint(source)
    try:
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{folder} holds no tokenizer that can be read: {error}") from error


def _read_config(folder: Path) -> IrmConfig:
    try:
        content = json.loads((folder / CONFIG_FILE).read_text())
        if content.get("family") is None:
            raise WeightsError(f"{folder} holds a PS-ReID model; an instruct-ReID model (IRM, IRM++) is needed here")
        if content.get("family") != FAMILY or content.get("version") != CONFIG_VERSION:
            raise WeightsError(
                f"{folder / CONFIG_FILE} is family {content.get('family')!r} version {content.get('version')}; an "
                f"instruct-ReID model of version {CONFIG_VERSION} is needed here"
            )
        return IrmConfig.model_validate(content)
    except (ValidationError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG_FILE} is not an instruct-ReID model's config: {error}") from error


# ---- published weights


def load_vit(image: EditingTransformer, source: str) -> None:
    """Reads ViT weights into the editing transformer; what a ViT lacks (the gates, k' and v') stays as it is.

    Known are timm's and DINO's names, PASS's (three part tokens with positions of their own) and Hugging Face's
    ViTModel. Position encodings of another grid are interpolated, as is usual for 256 x 128 pictures.
    """
    if image.config.stem:
        raise ConfigError("published ViT weights have linear patches: a model with a stem cannot read them")
    path = resolve_checkpoint(source)
    state = _timm_names(read_state(path))
    wanted = image.state_dict()
    grid, parts = image.config.grid, image.config.num_parts
    if "pos_embed" in state:
        if parts:
            state["part_tokens"] = _part_tokens(state, parts, str(path))
        state["pos_embed"] = _positions(state, parts, grid, str(path))
    editing = [name for name in wanted if ".instruction_kv." in name or name.endswith(".gate")]
    load_checked(image, state, source=str(path), optional=editing)


def load_instruction_encoder(encoder: InstructionEncoder, source: str) -> None:
    """Reads an ALBEF checkpoint, or a Hugging Face BLIP, into the instruction encoder.

    ALBEF's text tower is the first `text_layers` of its BERT (the rest fuses). Its token type 0, the only one in use,
    is added to the positions, which gives the same sums.
    """
    path = resolve_checkpoint(source)
    state = read_state(path)
    text = strip_prefix(state, "text_encoder.bert.", "text_encoder.", "text_model.")
    picture = strip_prefix(state, "visual_encoder.", "vision_model.")
    if "embeddings.token_type_embeddings.weight" in text:
        kind = text.pop("embeddings.token_type_embeddings.weight")[:1]
        text["embeddings.position_embeddings.weight"] = text["embeddings.position_embeddings.weight"] + kind
    if "pos_embed" in picture:
        picture = _blip_names(picture)
    positions = picture.get("embeddings.position_embedding")
    side = encoder.config.picture_px // encoder.config.patch_size
    if positions is not None:
        picture["embeddings.position_embedding"] = _resized(positions, 1, (side, side), str(path))
    load_checked(encoder.text, text, source=f"{path} (text)")
    load_checked(encoder.picture, picture, source=f"{path} (pictures)")


def _timm_names(state: State) -> State:
    """A ViT's tensors under timm's names, without heads."""
    for wrapper in ("teacher.", "student.", "module.", "backbone.", "model.", "base.", "vit."):
        if any(name.startswith(wrapper) for name in state):
            state = strip_prefix(state, wrapper)
    if "embeddings.cls_token" not in state:
        return {name: tensor for name, tensor in state.items() if not name.startswith(("head", "fc.", "pre_logits"))}
    named: State = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
    }
    renamed = (
        ("attention.output.dense.", "attn.proj."), ("layernorm_before.", "norm1."), ("layernorm_after.", "norm2."),
        ("intermediate.dense.", "mlp.fc1."), ("output.dense.", "mlp.fc2."),
    )  # fmt: skip
    for name, tensor in state.items():
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
        if name.startswith("layernorm."):
            named[name.replace("layernorm.", "norm.")] = tensor
        if found is None or ".attention.attention." in name:
            continue
        for there, here in renamed:
            if found[2].startswith(there):
                named[f"blocks.{found[1]}.{found[2].replace(there, here, 1)}"] = tensor
                break
    for layer in {found[1] for name in state if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}:
        for kind in ("weight", "bias"):
            place = f"encoder.layer.{layer}.attention.attention"
            parts = [state[f"{place}.{part}.{kind}"] for part in ("query", "key", "value")]
            named[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    return named


def _part_tokens(state: State, parts: int, source: str) -> Tensor:
    """(1, parts, D)."""
    found = [state[name] for n in range(1, parts + 1) if (name := f"part_token{n}") in state]
    if len(found) != parts:
        raise WeightsError(f"{source} has {len(found)} part tokens, the model has num_parts = {parts}; PASS has 3")
    return torch.cat(found, dim=1)


def _positions(state: State, parts: int, grid: tuple[int, int], source: str) -> Tensor:
    """(1, 1 + parts + patches, D) for this grid."""
    if "cls_pos" not in state:  # timm: [CLS] first, then patches
        return _resized(state["pos_embed"], 1, grid, source, parts=parts)
    heads = [state["cls_pos"], *(state[f"part{n}_pos"] for n in range(1, parts + 1))]
    return torch.cat([*heads, _resized(state["pos_embed"], 0, grid, source)], dim=1)


def _resized(positions: Tensor, num_first: int, grid: tuple[int, int], source: str, *, parts: int = 0) -> Tensor:
    """Positions of a patch grid, made for another one bicubically; `num_first` tokens before them are kept.

    Squares are taken for square, others for twice as high as wide, as person crops are.
    """
    first, patches = positions[:, :num_first], positions[:, num_first:]
    count, width = patches.shape[1:]
    side = round(count**0.5)
    old = (side, side) if side * side == count else (2 * round((count / 2) ** 0.5), round((count / 2) ** 0.5))
    if old[0] * old[1] != count:
        raise WeightsError(f"{source}: {count} patch positions are neither a square nor twice as high as wide")
    first = torch.cat([first, first.new_zeros(1, parts, width)], dim=1)
    if old == grid:
        return torch.cat([first, patches], dim=1)
    square = patches.float().transpose(1, 2).unflatten(2, old)
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
    return torch.cat([first, resized.flatten(2).transpose(1, 2).to(patches.dtype)], dim=1)


def _blip_names(state: State) -> State:
    """timm's ViT names (ALBEF's visual encoder) as BLIP's vision model has them."""
    renamed = {
        r"cls_token": "embeddings.class_embedding",
        r"pos_embed": "embeddings.position_embedding",
        r"patch_embed\.proj\.(.+)": r"embeddings.patch_embedding.\1",
        r"norm\.(.+)": r"post_layernorm.\1",
        r"blocks\.(\d+)\.norm([12])\.(.+)": r"encoder.layers.\1.layer_norm\2.\3",
        r"blocks\.(\d+)\.attn\.qkv\.(.+)": r"encoder.layers.\1.self_attn.qkv.\2",
        r"blocks\.(\d+)\.attn\.proj\.(.+)": r"encoder.layers.\1.self_attn.projection.\2",
        r"blocks\.(\d+)\.mlp\.(.+)": r"encoder.layers.\1.mlp.\2",
    }
    named: State = {}
    for name, tensor in state.items():
        for there, here in renamed.items():
            if found := re.fullmatch(there, name):
                named[found.expand(here)] = tensor
                break
    return named
