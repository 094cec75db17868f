"""`psreid train foundation`: reads frames tables into memory and trains a small model whole."""

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from modeling.errors import ConfigError, PsreidError
from modeling.ps_reid.build import named_preset
from modeling.ps_reid.checkpoint import read_model_config
from modeling.ps_reid.config import PsReidConfig
from workflows.ledger import Ledger
from workflows.plan.shapes import this_machine
from workflows.plan.words import describe_bytes
from workflows.plan.work import StageWork, StepWork, seconds_on
from workflows.progress import Plan, Progress, Summary
from workflows.storage import Folder
from workflows.tracking.registry import local_model
from workflows.train.config import FoundationConfig
from workflows.train.foundation import FoundationPlan, FoundationRun, Start
from workflows.train.samples import Samples, load_samples

COLUMNS = ["camera_id", "image", "persons"]
STEPS_SAMPLED = 6  # a round of all tasks; as many are run before, which find everything ready
PARTS_SAMPLED = 4  # of each table
RUN_SETTINGS = {
    "what",
    "frames",
    "out",
    "preset",
    "start_from",
    "sam_from",
    "vision_from",
    "metric_source",
    "joins_found",
}

logger = logging.getLogger(__name__)


def run_foundation(config: FoundationConfig, progress: Progress) -> Summary:
    """Trains, or continues, and leaves the model at OUT/model."""
    started = time.monotonic()
    model_config = _model_config(config)
    samples = _samples(config, model_config)
    plan = FoundationPlan(**config.model_dump(exclude=RUN_SETTINGS))
    out = Path(config.out).expanduser().resolve()
    run = FoundationRun(
        out,
        model_config,
        samples,
        plan,
        start=Start(
            model=config.start_from,
            metric=config.metric_source,
            sam=config.sam_from,
            vision=config.vision_from,
            joins_found=config.joins_found,
        ),
        on_step=progress.advance,
    )
    progress.start("train", total=plan.steps, done=run.step, unit="step")
    run.run()
    progress.finish()
    headline = (
        f"Trained {config.preset} for {plan.steps} steps on {len(samples.scenes)} frames with "
        f"{len(set(samples.identity.tolist()))} identities; the model is at {out / 'model'}"
    )
    return Summary(headline, str(out / "model"), {"steps": plan.steps, "seconds": round(time.monotonic() - started, 1)})


def plan_foundation(config: FoundationConfig) -> Plan:
    """How much there is to train on, and how long it should take, measured on a few steps in a folder that goes."""
    folders = [Folder(uri) for uri in config.frames]
    parts = [(folder, part) for folder in folders for part in Ledger.read(folder).parts()]
    lines: dict[str, int | float | str] = {
        "frames": sum(part.rows for _, part in parts),
        "parts": len(parts),
        "bytes to read": describe_bytes(sum(folder.size_bytes(part.name) for folder, part in parts)),
        "steps": config.steps,
    }
    step_s = _seconds_per_step(config)
    if step_s is None:
        return Plan(lines, None)
    stage = StageWork("FoundationRun", step_s * config.steps, cpus=config.threads, workers=(1, 1))
    work = [StepWork("train", 1, (stage,), on_ray=False)]
    return Plan(lines, seconds_on(work, this_machine()), work=work)


def _seconds_per_step(config: FoundationConfig) -> float | None:
    """Of the real run on the first part of each table; None where that holds too few identities to train on."""
    model_config = _model_config(config)
    settings = config.model_dump(exclude=RUN_SETTINGS) | {"steps": 2 * STEPS_SAMPLED, "pairs_from_step": 0}
    ends: list[float] = []
    with tempfile.TemporaryDirectory(prefix="psreid-plan-") as folder:
        try:
            samples = _samples(config, model_config, most_parts=PARTS_SAMPLED)
            run = FoundationRun(
                Path(folder),
                model_config,
                samples,
                FoundationPlan(**settings),
                on_step=lambda: ends.append(time.monotonic()),
            )
            run.run()
        except (PsreidError, ValueError) as error:
            logger.info("a few steps could not be timed: %s", error)
            return None
    return (ends[-1] - ends[STEPS_SAMPLED - 1]) / STEPS_SAMPLED


def _model_config(config: FoundationConfig) -> PsReidConfig:
    """The start's own numbers, which may be older than the preset's, and those of the SAM that is taken."""
    start, sam = config.start_from, config.sam_from
    found = read_model_config(local_model(start)) if start else named_preset(config.preset)
    if sam is None:
        return found
    return found.model_copy(update={"segmentation": read_model_config(local_model(sam)).segmentation})


def _samples(config: FoundationConfig, model_config: PsReidConfig, *, most_parts: int | None = None) -> Samples:
    if model_config.segmentation.sam is None or model_config.vision.source or model_config.language.source:
        raise ConfigError(f"preset {config.preset!r} takes published weights; the foundation trains tiny and small")
    vision = model_config.vision
    return load_samples(
        _tables(config.frames, most_parts),
        scene_hw=(vision.scene_height_px, vision.scene_width_px),
        segmentation=model_config.segmentation,
        identities=None,
    )


def _tables(uris: list[str], most_parts: int | None = None) -> Iterator[pa.Table]:
    """The committed parts, or so many of each archive, with identities told apart by archive."""
    for number, uri in enumerate(uris):
        folder = Folder(uri)
        for part in Ledger.read(folder).parts()[:most_parts]:
            yield folder.read_table(part.name, columns=COLUMNS).append_column(
                "archive", pa.repeat(pa.scalar(number), part.rows)
            )
