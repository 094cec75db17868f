"""Which parameters of PS-ReID a stage trains, and how the frozen ones are kept."""

from collections.abc import Collection, Iterable, Mapping

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from modeling.errors import ConfigError, WeightsError
from modeling.neck import Neck
from modeling.ps_reid.build import build_model, named_preset, trainable_parts, with_finding, with_fresh_parts
from modeling.ps_reid.checkpoint import load_model
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.folder import SHIPPED_FOLDER
from modeling.ps_reid.model import PsReid
from workflows.tracking.registry import local_model
from workflows.train.config import PsReidTrainConfig

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def start_model(config: PsReidTrainConfig, *, published_dtype: torch.dtype = torch.float32) -> PsReid:
    """The model that training starts from: a saved one, a shipped one, or a preset's published weights.

    What the settings call fresh has random weights, the same at every call. `published_dtype` is that of the published
    language model and vision encoder, which are large.

    Raises ConfigError for a preset that has neither shipped nor published weights, and for settings that the start
    model cannot have.
    """
    model = _stored_model(config.start_from, config.preset, published_dtype)
    if config.joins_found:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = with_finding(model)
    asked = {"attention": config.attention, "adds_evidence": config.adds_evidence}
    changes = {name: value for name, value in asked.items() if value is not None}
    try:
        model.config = PsReidConfig.model_validate(model.config.model_dump() | changes)
    except ValidationError as error:
        raise ConfigError(f"the start model cannot learn so: {error.errors()[0]['msg']}") from error
    return with_fresh_parts(model, config.fresh, seed=config.seed) if config.fresh else model


def _stored_model(start_from: str | None, preset: str, published_dtype: torch.dtype) -> PsReid:
    if start_from is not None:
        return load_model(local_model(start_from))
    if (SHIPPED_FOLDER / preset).is_dir():
        return load_model(preset)
    config = named_preset(preset)
    if config.language.source is None or config.vision.source is None:
        raise ConfigError(
            f"preset {preset!r} has neither shipped nor published weights to start from; make some by "
            "`psreid train foundation` and give that folder as start_from"
        )
    return build_model(config, dtype=published_dtype, segmentation_dtype=torch.float32)


def select_trainable(model: PsReid, trains: Collection[str]) -> dict[str, nn.Parameter]:
    """Freezes everything but the named parts; the parameters that learn, by name.

    Raises ConfigError when the model has none of the parts.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for part in trains:
        for parameter in parameters_of(model, part):
            parameter.requires_grad_(True)
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not chosen:
        raise ConfigError(f"this model has none of the parts to train ({', '.join(sorted(trains))})")
    return chosen


def parameters_of(model: PsReid, part: str) -> Iterable[nn.Parameter]:
    """The parameters of a part by the name that training settings use; none where the model lacks it."""
    if part in ("lora", "language"):
        is_lora = part == "lora"
        return [p for name, p in model.language.named_parameters() if ("lora_" in name) == is_lora]
    if part == "vision":
        return model.vision.parameters()
    if part == "sam_encoder":
        return model.segmentation.sam.image_encoder.parameters()
    parts = trainable_parts(model)
    return parts[part].parameters() if part in parts else []


def prepare_for_training(model: PsReid, *, frozen_dtype: torch.dtype, lora_dropout: float) -> None:
    """Training mode, but batch norms keep their stored statistics; frozen weights of the large parts in `frozen_dtype`.

    Statistics over a batch of nine pictures say little, and they would tie targets of different processes together
    (`modeling/ps_reid/shares.py`). SAM stays in the precision it was published in. Scalars become vectors of one
    number, which is what DeepSpeed can spread.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, Neck):
            module.eval()
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                setattr(module, name, nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad))
    for name, module in model.language.named_modules():
        if isinstance(module, nn.Dropout) and "lora_dropout" in name:
            module.p = lora_dropout
    for part in (model.vision, model.language):
        for parameter in part.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(frozen_dtype)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_trained(model: PsReid, tensors: Mapping[str, Tensor]) -> None:
    """Puts trained values in place, whatever shape their scalars have."""
    known = dict(model.named_parameters())
    if unknown := sorted(set(tensors) - set(known)):
        raise WeightsError(f"the checkpoint holds {unknown[:3]}, which this model lacks; it is of another model")
    with torch.no_grad():
        for name, value in tensors.items():
            known[name].copy_(value.reshape(known[name].shape))
