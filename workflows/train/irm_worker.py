"""What each Ray Train worker runs to train IRM or IRM++, from its newest checkpoint to its last step.

All workers do the same task in a step, each on its share of the step's identities; DeepSpeed averages the gradients,
and the memory banks store what all of them saw. Losses within a batch are within each worker's share.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.errors import JobError
from modeling.instruct_reid.checkpoint import save_irm
from modeling.instruct_reid.objective import IrmBatch, IrmLossTerms, IrmObjective
from workflows.storage import Folder
from workflows.train.engine import MOMENTS, Engine, EngineSettings
from workflows.train.group import run_in_group
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.irm_heldout import evaluate_held_out, split_held_out
from workflows.train.irm_run import (
    CLIP_NORM,
    EXPORT_DTYPES,
    MODEL_FOLDER,
    figures_of,
    learning_rate,
    make_batcher,
    make_objective,
)
from workflows.train.irm_sampler import TaskSampler
from workflows.train.irm_samples import load_reid_samples
from workflows.train.mailbox import Message, report
from workflows.train.pacing import prefetched
from workflows.train.state import StateStore, save_state

STAGE = 1  # of the checkpoints: there is only one


@dataclass(frozen=True)
class IrmTask:
    """What a worker is told."""

    config: IrmTrainConfig
    mailbox: Any


class IrmModule(nn.Module):
    """The objective as DeepSpeed calls it."""

    def __init__(self, objective: IrmObjective, precision: str) -> None:
        super().__init__()
        self.objective, self._is_bf16 = objective, precision == "bf16"

    def forward(self, batch: IrmBatch) -> IrmLossTerms:
        with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16, enabled=self._is_bf16):
            terms: IrmLossTerms = self.objective(batch, gather_from_workers)
        return terms


def gather_from_workers(features_BD: Tensor, identity_B: Tensor) -> tuple[Tensor, Tensor]:
    """The features and identities of all workers, in the order of their ranks, equal on each."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return features_BD, identity_B
    gathered: list[list[Tensor]] = []
    for tensor in (features_BD.contiguous(), identity_B.contiguous()):
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        gathered.append(parts)
    return torch.cat(gathered[0]), torch.cat(gathered[1])


def train_irm_worker(told: Mapping[str, Any]) -> None:
    """Ray Train's `train_loop_per_worker`."""
    task: IrmTask = told["task"]
    run_in_group(task, lambda rank, workers, device: IrmWorker(task, rank, workers, device).run())


class IrmWorker:
    """One worker's run."""

    def __init__(self, task: IrmTask, rank: int, workers: int, device: torch.device) -> None:
        self._task, self._config, self._rank, self._workers, self._device = task, task.config, rank, workers, device
        config = task.config
        self._store = StateStore(Folder(config.out))
        samples, self._held_out = split_held_out(
            load_reid_samples(config.frames, gap_s=config.gap_s), config.held_out_share, config.seed, config.tasks
        )
        self._objective = make_objective(config, samples).to(device).train()
        self._sampler = TaskSampler(
            samples, config.tasks, identities_per_step=config.identities_per_step,
            pictures_per_identity=config.pictures_per_identity, seed=config.seed, shares=config.task_shares,
            worker=rank, num_workers=workers,
        )  # fmt: skip
        self._batcher = make_batcher(config, samples, self._objective.irm)
        self._rows: list[dict[str, Any]] = []
        self._step, self._engine = self._start()

    def run(self) -> None:
        """Trains to the last step and leaves the model in OUT/model."""
        started = time.monotonic()
        for step, batch in prefetched(self._make, self._step, self._config.steps):
            figures = self._train_step(step, batch)
            self._step = step + 1
            self._note(figures, time.monotonic() - started)
            is_last = self._step == self._config.steps
            if is_last or self._step % self._config.checkpoint_every == 0:
                self._checkpoint()
            if self._config.evaluate_every and self._step % self._config.evaluate_every == 0 and not is_last:
                self._evaluate()
            elif self._step % self._config.report_every == 0:
                report({"step": self._step, **figures})
            started = time.monotonic()
        self._engine.close()
        if self._rank == 0:
            _export(self._objective, self._config, self._store)
        self._evaluate()
        dist.barrier()

    def _evaluate(self) -> None:
        """On held-out identities, by one worker; all workers report what came out."""
        found: dict[str, float] = {}
        if self._rank == 0 and self._held_out is not None:
            irm = self._objective.irm.eval()
            found = evaluate_held_out(irm, self._held_out, self._config.tasks, seed=self._config.seed)
            irm.train()
            import ray

            ray.get(self._task.mailbox.post.remote(Message("evaluation", self._step, found)))
        report({"step": self._step, **found})

    def _start(self) -> tuple[int, Engine]:
        """The engine, at the newest checkpoint or at the start; weights at the start follow from the seed alone."""
        saved = self._store.newest(STAGE)
        stored = self._store.read(saved) if saved else {}
        load_values(self._objective, stored)
        config = self._config
        settings = EngineSettings(config.zero_stage, 1, CLIP_NORM, config.learning_rate, config.weight_decay)
        engine = Engine(IrmModule(self._objective, config.precision), settings, workers=self._workers)
        if saved is not None:
            engine.restore(_moments(engine.parameters, stored), saved.step)
        if self._rank == 0:
            self._store.drop_incomplete(STAGE)
        dist.barrier()
        return (saved.step if saved else 0), engine

    def _make(self, step: int) -> IrmBatch:
        return self._batcher.batch(self._sampler.draw(step), step, self._rank)

    def _train_step(self, step: int, batch: IrmBatch) -> dict[str, float]:
        rate = learning_rate(step, self._config)
        self._engine.set_learning_rate(rate)
        if step >= self._config.settles_at:
            self._objective.settle()
        terms = self._engine.forward(batch.to(self._device))
        norm = self._engine.backward_and_step(terms.total / self._workers)  # the engine adds up, a mean is wanted
        figures = figures_of(batch.task, terms)
        if not (math.isfinite(figures["loss"]) and norm is not None and math.isfinite(norm)):
            raise JobError(
                f"the loss is {figures['loss']} and the gradient's norm {norm} at step {step + 1}. Lower learning_rate "
                "or raise warmup_steps, in a new output folder."
            )
        return figures | {"learning_rate": rate, "gradient_norm": norm}

    def _note(self, figures: Mapping[str, float], seconds: float) -> None:
        if self._rank:
            return
        row = {"step": self._step, **{name: float(f"{value:.7g}") for name, value in figures.items()}}
        self._rows.append(row | {"seconds": round(seconds, 3)})
        self._task.mailbox.post.remote(Message("step", self._step, dict(figures)))

    def _checkpoint(self) -> None:
        """Figures first, then the state: a complete checkpoint has the whole curve up to it."""
        if self._rank == 0 and self._rows:
            name = f"figures/{STAGE}-{self._rows[0]['step'] - 1:08d}.jsonl"
            Folder(self._config.out).write_bytes(name, "".join(json.dumps(row) + "\n" for row in self._rows).encode())
        self._rows = []
        save_state(
            self._store, chain(self._engine.state(), self._banks()), stage=STAGE, step=self._step, rank=self._rank,
            workers=self._workers, barrier=dist.barrier,
        )  # fmt: skip

    def _banks(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Memory banks, equal on all workers, and the necks' statistics, under the engine's kind of names."""
        own = dict(self._objective.named_parameters())
        for name, tensor in self._objective.state_dict().items():
            if name in own:
                continue
            value = tensor.clone()
            if ".running_" in name and self._workers > 1:  # each worker saw its own share
                dist.all_reduce(value)
                value /= self._workers
            yield f"objective.{name}", {"value": value.cpu()}


def load_values(objective: IrmObjective, stored: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Puts weights and memory banks of a checkpoint into the objective; an empty checkpoint changes nothing."""
    values = {name.removeprefix("objective."): tensors["value"] for name, tensors in stored.items()}
    objective.load_state_dict(values, strict=False)


def _moments(
    parameters: Mapping[str, nn.Parameter], stored: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """The optimizer's moments; zero for a weight that no step has reached yet."""
    return {
        name: {m: stored.get(name, {}).get(m, torch.zeros(parameter.shape)) for m in MOMENTS}
        for name, parameter in parameters.items()
    }


def _export(objective: IrmObjective, config: IrmTrainConfig, store: StateStore) -> None:
    """Writes the trained model from the last checkpoint."""
    import tempfile
    from pathlib import Path

    saved = store.newest(STAGE)
    assert saved is not None
    load_values(objective, store.read(saved))
    with tempfile.TemporaryDirectory(prefix="psreid-irm-") as folder:
        save_irm(objective.irm, Path(folder), dtype=EXPORT_DTYPES[config.export_dtype])
        for file in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            Folder(config.out).write_bytes(f"{MODEL_FOLDER}/{file.relative_to(folder)}", file.read_bytes())
