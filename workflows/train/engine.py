"""DeepSpeed around a model in training: one engine for ZeRO 0 to 3, and its optimizer's state as whole tensors.

The state is taken out and put back as one tensor per parameter, so a checkpoint knows neither the ZeRO stage nor the
number of workers it was written with.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.ps_reid.losses import LossWeights
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import StepOutput, training_step
from modeling.ps_reid.shares import Shares
from workflows.train.batching import Pairs

BUCKET_ELEMENTS = 50_000_000
BETAS = (0.9, 0.98)
MOMENTS = ("exp_avg", "exp_avg_sq")
NEVER = 10**9
COMPILED_ALL_REDUCE = "deepspeed_shm_comm"
"""DeepSpeed's all-reduce for CPUs of one machine: it wants a C++ compiler at the first start, and a process that is
killed while compiling leaves a lock behind that all later ones wait for. Gloo does without."""


class TrainingModule(nn.Module):
    """The model as DeepSpeed calls it: a share of a batch in, loss terms and decisions out."""

    def __init__(self, model: PsReid, weights: LossWeights, shares: Shares, precision: str) -> None:
        super().__init__()
        self.model = model
        self._weights, self._shares, self._is_bf16 = weights, shares, precision == "bf16"

    def forward(self, pairs: Pairs) -> StepOutput:
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self._is_bf16):
            return training_step(self.model, pairs.queries, pairs.targets, pairs.truth, self._weights, self._shares)


@dataclass(frozen=True)
class EngineSettings:
    """What DeepSpeed is told."""

    zero_stage: int
    accumulation: int
    gradient_clip: float
    learning_rate: float
    weight_decay: float


class Engine:
    """A DeepSpeed engine whose gradients are summed over processes."""

    def __init__(self, module: nn.Module, settings: EngineSettings, *, workers: int) -> None:
        import deepspeed

        _quieten()
        deepspeed.ops.__compatible_ops__[COMPILED_ALL_REDUCE] = False
        self._settings, self._workers = settings, workers
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters.values(), settings.weight_decay), lr=settings.learning_rate, betas=BETAS
        )
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=self.optimizer, config=_config(settings, self.parameters), dist_init_required=False
        )
        if settings.zero_stage == 3:
            _keep_small_parameters_gathered(self._engine)
        self._fill_moments(0)

    def forward(self, batch: Any) -> Any:
        """What the module gives for this process's share of a batch."""
        return self._engine(batch)

    def backward_and_step(self, loss: Tensor) -> float | None:
        """The backward pass of one batch, and the optimizer's step after the last of an accumulation.

        Gradients are averaged by DeepSpeed, and the shares' gradients have to be added: hence the factor. Returns the
        norm of the whole gradient at a step.
        """
        self._engine.backward(loss * self._workers)
        is_step = self._engine.is_gradient_accumulation_boundary()
        norm = None
        if is_step and self._settings.zero_stage == 0:
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(gradients))
        self._engine.step()
        if is_step and norm is None:
            norm = float(self._engine.get_global_grad_norm())
        return norm

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def optimizer_bytes(self) -> int:
        """Bytes of optimizer state and master weights that this process holds."""
        states = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        masters = [] if self._settings.zero_stage == 0 else list(self.optimizer.state)
        return sum(t.numel() * t.element_size() for t in (*states, *masters))

    # ---- state

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Every trained parameter with its value and moments, whole; all processes must go through it together."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, parameter in self.parameters.items():
            if self._settings.zero_stage == 0:
                moments = self.optimizer.state[parameter]
                found = {"value": parameter.detach()} | {m: moments[m] for m in MOMENTS}
            else:
                found = {"value": safe_get_full_fp32_param(parameter)}
                found |= {m: safe_get_full_optimizer_state(parameter, m) for m in MOMENTS}
            yield name.removeprefix("model."), {key: tensor.float().cpu().clone() for key, tensor in found.items()}

    def restore(self, moments: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Puts the optimizer's moments back; values are loaded into the model before the engine is made."""
        self._fill_moments(step)
        for name, parameter in self.parameters.items():
            for moment in MOMENTS:
                stored = moments[name.removeprefix("model.")][moment]
                self._put(parameter, moment, stored.to(parameter.device))

    def _fill_moments(self, step: int) -> None:
        """Moments of zero, as AdamW begins with.

        It would make them by itself at its first step, but DeepSpeed notes where they are as soon as the first of the
        parameter groups has taken that step, and then never finds those of the others.
        """
        for flat in self._flat_parameters():
            self.optimizer.state[flat] = {
                "step": torch.tensor(float(step)),
                **{name: torch.zeros_like(flat, memory_format=torch.preserve_format) for name in MOMENTS},
            }

    def _flat_parameters(self) -> list[Tensor]:
        """What the AdamW inside really updates on this process."""
        zero = self._engine.optimizer
        if self._settings.zero_stage == 0:
            return list(self.parameters.values())
        if self._settings.zero_stage == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(zero.single_partition_of_fp32_groups)

    def _put(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        if self._settings.zero_stage == 0:
            self.optimizer.state[parameter][moment].copy_(value.reshape(parameter.shape))
        elif self._settings.zero_stage == 3:
            self._put_partition(parameter, moment, value)
        elif (place := parameter._hp_mapping) is not None:  # type: ignore[attr-defined]
            source, target = place.lp_fragment_address, place.hp_fragment_address
            flat = self._engine.optimizer.single_partition_of_fp32_groups[place.param_group_index]
            own = value.flatten().narrow(0, source.start, source.numel)
            self.optimizer.state[flat][moment].narrow(0, target.start, target.numel).copy_(own)

    def _put_partition(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        """ZeRO 3 cuts every parameter into equal pieces, the last one filled up."""
        from deepspeed.utils import safe_get_local_optimizer_state, safe_set_local_optimizer_state

        length = safe_get_local_optimizer_state(parameter, moment).numel()
        filled = F.pad(value.flatten(), (0, length * self._workers - value.numel()))
        rank = torch.distributed.get_rank()
        safe_set_local_optimizer_state(parameter, filled.narrow(0, length * rank, length), moment)

    def close(self) -> None:
        """Takes DeepSpeed's hooks off the model."""
        self._engine.destroy()


def _groups(parameters: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors and scales do not."""
    listed = list(parameters)
    decayed, plain = [p for p in listed if p.ndim >= 2], [p for p in listed if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _config(settings: EngineSettings, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    bucket = min(BUCKET_ELEMENTS, sum(p.numel() for p in parameters.values()))
    bucket += bucket % 2  # DeepSpeed aligns its buckets
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": {
            "stage": settings.zero_stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket,
            "overlap_comm": False,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": NEVER,
    }  # fmt: skip


def _keep_small_parameters_gathered(engine: Any) -> None:
    """ZeRO 3 gathers a parameter when its module is called; small ones that are read directly must stay gathered.

    Such are the control tokens' rows, learned scales, and the token embeddings that SAM's decoder concatenates.
    DeepSpeed keeps parameters below a threshold once a first step is through; here they are from the start on.
    """
    persistent = engine.optimizer.persistent_parameters
    if persistent:
        persistent[0].all_gather(persistent)
    for parameter in persistent:
        parameter.is_external_param = True


def _quieten() -> None:
    """DeepSpeed logs its start at length, and warns of outputs that are not plain tensors (they are dataclasses)."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
