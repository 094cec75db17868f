"""What each Ray Train worker runs: one stage of training, from its newest checkpoint to its last step.

Every worker makes its own share of each batch, ahead of time in a thread; DeepSpeed adds the gradients up. A worker
that dies takes its group down, Ray Train starts another, and that goes on from the newest complete checkpoint.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modeling.errors import JobError
from modeling.ps_reid.losses import LossTerms, LossWeights
from modeling.ps_reid.objective import COUPLED_TERMS, StepOutput
from modeling.ps_reid.shares import ProcessShares
from workflows.storage import Folder
from workflows.train.batching import Pairs
from workflows.train.catalogue import FrameStore, FrameTables
from workflows.train.config import PsReidTrainConfig, StageConfig
from workflows.train.draws import DrawPlan, PairSampler, held_out_identities
from workflows.train.engine import Engine, EngineSettings, TrainingModule
from workflows.train.finish import finish_run, look_at_held_out
from workflows.train.grid import GridMaker
from workflows.train.group import run_in_group
from workflows.train.mailbox import Message, report
from workflows.train.pacing import learning_rate, pair_figures, prefetched
from workflows.train.parts import DTYPES, load_trained, prepare_for_training, select_trainable, start_model
from workflows.train.state import StateStore, save_state

TERMS = tuple(field.name for field in fields(LossTerms))
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a worker is told."""

    config: PsReidTrainConfig
    stage: int
    """1 or 2."""
    tables: FrameTables
    mailbox: Any

    @property
    def settings(self) -> StageConfig:
        return self.config.stage1 if self.stage == 1 else self.config.stage2

    @property
    def is_last(self) -> bool:
        return self.stage == 2 or not self.config.stage2.steps

    @property
    def steps_before(self) -> int:
        """Optimizer steps of the stages before this one."""
        return self.config.stage1.steps if self.stage == 2 else 0


def train_worker(told: Mapping[str, Any]) -> None:
    """Ray Train's `train_loop_per_worker`."""
    task: Task = told["task"]
    run_in_group(task, lambda rank, workers, device: StageRun(task, rank, workers, device).run())


class StageRun:
    """One worker's run of one stage."""

    def __init__(self, task: Task, rank: int, workers: int, device: torch.device) -> None:
        self._task, self._config, self._rank, self._workers, self._device = task, task.config, rank, workers, device
        self._store = StateStore(Folder(self._config.out))
        self._frames = FrameStore(task.tables)
        catalogue = task.tables.catalogue
        self._held_out = held_out_identities(catalogue, self._config.held_out_share, self._config.seed)
        self._sampler = PairSampler(catalogue, draw_plan(self._config), self._held_out)
        self._weights = LossWeights(**self._config.losses.model_dump())
        self._rows: list[dict[str, Any]] = []
        self._step, self._engine = self._start()

    def run(self) -> None:
        """Trains to the stage's last step; after the last stage, exports and evaluates."""
        started = time.monotonic()
        for step, batches in prefetched(self._make, self._step, self._task.settings.steps):
            figures = self._train_step(step, batches)
            self._step = step + 1
            self._note(figures, time.monotonic() - started)
            is_end = self._step == self._task.settings.steps
            if is_end or self._step % self._config.checkpoint_every == 0:
                self._checkpoint()
            if not is_end and self._config.evaluate_every and self._step % self._config.evaluate_every == 0:
                self._evaluate()
            elif self._step % self._config.report_every == 0:
                report(self._rows_metrics(figures))
            started = time.monotonic()
        self._engine.close()
        if self._task.is_last:
            self._finish()

    # ---- start

    def _start(self) -> tuple[int, Engine]:
        """The engine, at the newest checkpoint or the stage's start."""
        config, settings = self._config, self._task.settings
        dtype = DTYPES[config.precision]
        model = start_model(config, published_dtype=dtype)
        saved = self._store.newest(self._task.stage)
        own = self._store.read(saved) if saved else {}
        earlier = earlier_values(self._store, self._task.stage)
        load_trained(model, earlier | {name: tensors["value"] for name, tensors in own.items()})
        select_trainable(model, settings.trains)
        model.recompute_activations = config.recompute_activations
        prepare_for_training(model, frozen_dtype=dtype, lora_dropout=config.lora_dropout)
        model.to(self._device)
        self._grid = GridMaker(self._frames, model, seed=config.seed)
        module = TrainingModule(model, self._weights, ProcessShares(), config.precision)
        engine = Engine(module, engine_settings(config, settings), workers=self._workers)
        if saved is not None:
            engine.restore(own, saved.step)
        if self._rank == 0:
            self._store.drop_incomplete(self._task.stage)
        dist.barrier()
        return (saved.step if saved else 0), engine

    # ---- steps

    def _make(self, step: int) -> list[Pairs]:
        first = (self._task.steps_before + step) * self._config.accumulation
        return [
            self._grid.share(self._sampler.draw(batch), batch, self._rank, self._workers)
            for batch in range(first, first + self._config.accumulation)
        ]

    def _train_step(self, step: int, batches: list[Pairs]) -> dict[str, float]:
        rate = learning_rate(step, self._task.settings)
        self._engine.set_learning_rate(rate)
        torch.manual_seed(hash((self._config.seed, self._task.stage, step, self._rank)) % 2**63)
        total: dict[str, float] = {}
        norm = None
        for batch in batches:
            pairs = to_device(batch, self._device)
            output = self._engine.forward(pairs)
            loss = output.terms.total(self._weights)
            norm = self._engine.backward_and_step(loss)
            for name, value in self._figures(output, pairs).items():
                total[name] = total.get(name, 0.0) + value / len(batches)
        assert norm is not None
        self._check(step, total["loss"], norm)
        return total | {"learning_rate": rate, "gradient_norm": norm, "stage": float(self._task.stage)}

    def _figures(self, output: StepOutput, pairs: Pairs) -> dict[str, float]:
        """Figures of the whole batch, equal on all workers."""
        shares = ProcessShares()
        parts = [
            getattr(output.terms, name).detach().float() / (self._workers if name in COUPLED_TERMS else 1)
            for name in TERMS
        ]
        values = dict(zip(TERMS, shares.total(torch.stack(parts)).tolist(), strict=True))
        scores_NQ = shares.gather(output.decisions.scores_NQ.detach())
        decided = pair_figures(scores_NQ, shares.gather(pairs.truth.is_positive_NQ))
        loss = sum(getattr(self._weights, name) * value for name, value in values.items())
        return {"loss": loss} | values | decided

    def _check(self, step: int, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise JobError(
                f"the loss is {loss} and the gradient's norm {norm} at step {self._task.steps_before + step + 1}. "
                f"Lower stage{self._task.stage}.learning_rate or raise its warmup_steps, in a new output folder."
            )

    # ---- around the steps

    def _note(self, figures: Mapping[str, float], seconds: float) -> None:
        if self._rank:
            return
        number = self._task.steps_before + self._step
        row = {"step": number, **{k: _rounded(v) for k, v in figures.items()}, "seconds": round(seconds, 3)}
        self._rows.append(row)
        self._task.mailbox.post.remote(Message("step", number, {k: v for k, v in row.items() if k != "step"}))

    def _rows_metrics(self, figures: Mapping[str, float]) -> dict[str, float]:
        return {"step": self._task.steps_before + self._step, **figures}

    def _checkpoint(self) -> None:
        """Figures first, then the state: a complete checkpoint has the whole curve up to it."""
        if self._rank == 0 and self._rows:
            before = self._task.steps_before
            name = f"figures/{self._task.stage}-{self._rows[0]['step'] - before - 1:08d}.jsonl"
            lines = "".join(json.dumps(row) + "\n" for row in self._rows)
            Folder(self._config.out).write_bytes(name, lines.encode())
        self._rows = []
        save_state(
            self._store, self._engine.state(), stage=self._task.stage, step=self._step, rank=self._rank,
            workers=self._workers, barrier=dist.barrier,
        )  # fmt: skip

    def _evaluate(self) -> None:
        """On held-out identities, by one worker from the newest checkpoint."""
        if self._step % self._config.checkpoint_every:
            self._checkpoint()
        found: dict[str, float] = {}
        if self._rank == 0:
            found = look_at_held_out(self._config, self._store, self._frames, self._held_out, self._device)
            self._tell_evaluation(found)
        report({"step": self._task.steps_before + self._step, **found})

    def _finish(self) -> None:
        found: dict[str, float] = {}
        if self._rank == 0:
            found = finish_run(self._config, self._store, self._frames, self._held_out, self._device)
            self._tell_evaluation(found)
        dist.barrier()
        report({"step": self._task.steps_before + self._step, **found})

    def _tell_evaluation(self, found: Mapping[str, float]) -> None:
        import ray

        number = self._task.steps_before + self._step
        ray.get(self._task.mailbox.post.remote(Message("evaluation", number, dict(found))))


def draw_plan(config: PsReidTrainConfig) -> DrawPlan:
    """The numbers of a batch."""
    return DrawPlan(
        identities=config.identities_per_step,
        targets_per_identity=config.targets_per_identity,
        other_targets=config.other_targets,
        query_variants=config.query_variants,
        mask_frames=config.mask_frames,
        seed=config.seed,
    )


def engine_settings(config: PsReidTrainConfig, stage: StageConfig) -> EngineSettings:
    """What DeepSpeed is told for a stage."""
    return EngineSettings(
        config.zero_stage, config.accumulation, config.gradient_clip, stage.learning_rate, stage.weight_decay
    )


def earlier_values(store: StateStore, stage: int) -> dict[str, Tensor]:
    """What the stages before this one trained."""
    values: dict[str, Tensor] = {}
    for earlier in range(1, stage):
        saved = store.newest(earlier)
        if saved is not None:
            values |= {name: tensors["value"] for name, tensors in store.read(saved).items()}
    return values


def to_device(pairs: Pairs, device: torch.device) -> Pairs:
    """The share where the model is."""
    moved: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(pairs.truth)
        if isinstance(value := getattr(pairs.truth, field.name), Tensor)
    }
    return Pairs(pairs.queries.to(device), pairs.targets.to(device), replace(pairs.truth, **moved))


def _rounded(value: float) -> float:
    """Enough digits to compare curves."""
    return float(f"{value:.7g}")
