"""`psreid bench attention`: `joint` against `separated`, each trained equally long in wall time, then measured.

`separated` trains with the given settings. A few steps of `joint` tell its pace; it then trains as many as fit the time
that each stage of `separated` took. Both are measured on the same gallery, each under the attention it learned.

OUT/separated, OUT/pace, OUT/joint   the trainings
OUT/scores/NAME                      the evaluations
A run that was killed continues.
"""

import json
import statistics
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from modeling.ps_reid.config import Attention
from workflows.bench.config import BenchConfig
from workflows.config import load_config
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.measure import measure
from workflows.evaluate.step import open_evaluation
from workflows.progress import Progress
from workflows.storage import Folder
from workflows.train.config import PsReidTrainConfig

WARM_UP_STEPS, PACE_STEPS = 2, 8
"""Of each stage, in which `joint` shows its pace."""
FIGURES_FILE = "figures.jsonl"


@dataclass(frozen=True)
class Trained:
    """One attention, trained and measured."""

    attention: Attention
    steps: int
    train_s: float
    """Wall time of the steps, with the making of batches in it."""
    train_pairs_per_s: float
    judged_pairs_per_s: float
    """Of one worker, masks included."""
    scores: dict[str, float | None]
    """top1, mAP, giou and the best giou of any threshold, fractions of 1."""


def bench_attention(config: BenchConfig, progress: Progress) -> list[Trained]:
    """`separated`, then `joint`."""
    assert config.source is not None and config.training is not None, "the config asks for both"
    shared = load_config(PsReidTrainConfig, config.training, {"out": "set for each run"})
    with _folder(config.out) as out:
        separated = _train(shared, "separated", _steps_of(shared), Folder(out).child("separated"), progress)
        pace = _train(shared, "joint", _pace_steps(shared), Folder(out).child("pace"), progress)
        fitting = {stage: max(1, round(sum(separated[stage]) / _pace_of(pace[stage]))) for stage in separated}
        joint = _train(shared, "joint", fitting, Folder(out).child("joint"), progress)
        return [
            _measured(config, shared, "separated", separated, Folder(out), progress),
            _measured(config, shared, "joint", joint, Folder(out), progress),
        ]


def _folder(out: str | None) -> AbstractContextManager[str]:
    return nullcontext(Folder(out).uri) if out else tempfile.TemporaryDirectory(prefix="psreid-bench-")


def _steps_of(config: PsReidTrainConfig) -> dict[int, int]:
    """stage -> its steps."""
    return {stage: each.steps for stage, each in ((1, config.stage1), (2, config.stage2)) if each.steps}


def _pace_steps(config: PsReidTrainConfig) -> dict[int, int]:
    return dict.fromkeys(_steps_of(config), WARM_UP_STEPS + PACE_STEPS)


def _pace_of(seconds: list[float]) -> float:
    """Seconds of a step."""
    return statistics.mean(seconds[WARM_UP_STEPS:])


def _train(
    shared: PsReidTrainConfig, attention: Attention, steps: dict[int, int], out: Folder, progress: Progress
) -> dict[int, list[float]]:
    """stage -> seconds of its steps."""
    from workflows.train.psreid import run_psreid

    stages = {f"stage{stage}": {**getattr(shared, f"stage{stage}").model_dump(), "steps": steps.get(stage, 0)}
              for stage in (1, 2)}  # fmt: skip
    values = shared.model_dump(mode="json") | stages | {"attention": attention, "out": out.uri, "eval_queries": 0}
    progress.say(f"bench attention: {attention}, {sum(steps.values())} steps: {out.uri}")
    run_psreid(PsReidTrainConfig.model_validate(values), progress)
    rows = [json.loads(line) for line in out.read_bytes(FIGURES_FILE).splitlines()]
    return {stage: [row["seconds"] for row in rows if row["stage"] == stage] for stage in steps}


def _measured(
    config: BenchConfig,
    shared: PsReidTrainConfig,
    attention: Attention,
    seconds: dict[int, list[float]],
    out: Folder,
    progress: Progress,
) -> Trained:
    settings = EvaluateConfig(
        data=config.source,
        models=(out.child(attention, "model").uri,),
        gallery=(config.gallery,),
        out=out.child("scores", attention).uri,
        worst=0,
    )
    measurement = measure(open_evaluation(settings, progress))
    assert measurement.measured is not None, "the judge measures"
    key = next(iter(measurement.scores))
    record, best = measurement.scores[key].record(), measurement.thresholds[key]
    steps, total = sum(map(len, seconds.values())), sum(map(sum, seconds.values()))
    pairs_per_step = shared.targets * shared.identities_per_step * shared.query_variants * shared.accumulation
    scores: dict[str, float | None] = {name: record[name] for name in ("top1", "mAP", "giou")}
    return Trained(
        attention,
        steps,
        train_s=total,
        train_pairs_per_s=steps * pairs_per_step / total,
        judged_pairs_per_s=measurement.pairs.manifest.rows / measurement.measured.manifest.seconds,
        scores=scores | {"best giou": best.giou if best else None},
    )
