"""`psreid bench train`: training through Ray Train and DeepSpeed beside the same model in a plain torch loop.

Both train the second stage on the same batches, on the same cores, one after the other: ours with one worker per core,
the plain loop in one process with as many threads. What counts is the median step after the first few, with the making
of batches in it.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from workflows.bench.config import BenchConfig
from workflows.progress import Progress
from workflows.ray_cluster import ensure_ray
from workflows.train.config import AdapterStage, FineTuningStage, PsReidTrainConfig
from workflows.train.listener import TrainingListener

WARM_UP_STEPS = 3
TARGET = 0.9


class _Stopwatch(TrainingListener):
    """Seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.seconds.append(metrics["seconds"])


def bench_train(config: BenchConfig, progress: Progress) -> dict[str, Any]:
    """Targets per second of both ways, and their ratio."""
    ensure_ray()
    with tempfile.TemporaryDirectory(prefix="psreid-bench-") as out:
        settings = bench_settings(config, out)
        progress.start("bench train", total=2 * settings.stage2.steps, unit="step")
        plain = _time_plain(settings)
        progress.advance(settings.stage2.steps)
        ours = _time_ours(settings)
        progress.advance(settings.stage2.steps)
        progress.finish()
    targets = settings.targets * settings.accumulation
    return {
        "workers": settings.workers,
        "zero_stage": settings.zero_stage,
        "targets_per_step": targets,
        "pairs_per_step": targets * settings.identities_per_step * settings.query_variants,
        "plain_targets_per_s": targets / plain,
        "ours_targets_per_s": targets / ours,
        "ratio": plain / ours,
        "target_ratio": TARGET,
    }


def bench_settings(config: BenchConfig, out: str) -> PsReidTrainConfig:
    """The run that is timed."""
    assert config.source is not None
    return PsReidTrainConfig(
        frames=[config.source],
        out=out,
        start_from=config.model,
        workers=config.workers,
        zero_stage=config.zero_stage,
        stage1=AdapterStage(steps=0),
        stage2=FineTuningStage(steps=WARM_UP_STEPS + config.steps),
        identities_per_step=6,
        checkpoint_every=10**6,
        eval_queries=0,
    )


def _time_ours(settings: PsReidTrainConfig) -> float:
    from workflows.train.psreid import run_psreid

    watch = _Stopwatch()
    run_psreid(settings, Progress(), listeners=[watch])
    return statistics.median(watch.seconds[WARM_UP_STEPS:])


def _time_plain(settings: PsReidTrainConfig) -> float:
    """In a process of its own, which is gone before ours start."""
    import ray

    from workflows.train.catalogue import read_frames

    tables = read_frames(settings.frames)
    timed = ray.remote(num_cpus=settings.workers, max_calls=1)(plain_seconds)
    seconds: list[float] = ray.get(timed.remote(settings, tables))
    return statistics.median(seconds[WARM_UP_STEPS:])


def plain_seconds(settings: PsReidTrainConfig, tables: Any) -> list[float]:
    """Seconds of every step of the plain loop: forward, backward, clip, AdamW, the next batch made in a thread."""
    import torch

    from modeling.ps_reid.losses import LossWeights
    from modeling.ps_reid.shares import WholeBatch
    from workflows.train.catalogue import FrameStore
    from workflows.train.draws import PairSampler, held_out_identities
    from workflows.train.engine import TrainingModule
    from workflows.train.grid import GridMaker
    from workflows.train.pacing import prefetched
    from workflows.train.parts import DTYPES, prepare_for_training, select_trainable, start_model
    from workflows.train.worker import draw_plan

    torch.set_num_threads(settings.workers)
    dtype, stage = DTYPES[settings.precision], settings.stage2
    model = start_model(settings, published_dtype=dtype)
    select_trainable(model, stage.trains)
    prepare_for_training(model, frozen_dtype=dtype, lora_dropout=settings.lora_dropout)
    parameters = [p for p in model.parameters() if p.requires_grad]
    module = TrainingModule(model, LossWeights(), WholeBatch(), settings.precision)
    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate)
    held_out = held_out_identities(tables.catalogue, settings.held_out_share, settings.seed)
    sampler = PairSampler(tables.catalogue, draw_plan(settings), held_out)
    grid = GridMaker(FrameStore(tables), model, seed=settings.seed)
    seconds, started = [], time.monotonic()
    for _, pairs in prefetched(lambda step: grid.share(sampler.draw(step), step, 0, 1), 0, stage.steps):
        optimizer.zero_grad(set_to_none=True)
        module(pairs).terms.total(LossWeights()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        optimizer.step()
        seconds.append(time.monotonic() - started)
        started = time.monotonic()
    return seconds
