"""`psreid train foundation`: reads frames tables into memory and trains a small model whole."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from modeling.errors import ConfigError
from modeling.ps_reid.build import named_preset
from modeling.ps_reid.checkpoint import load_segmentation
from modeling.ps_reid.config import PsReidConfig
from workflows.ledger import Ledger
from workflows.progress import Plan, Progress, Summary
from workflows.storage import Folder
from workflows.train.config import FoundationConfig
from workflows.train.foundation import FoundationPlan, FoundationRun
from workflows.train.samples import Samples, load_samples

COLUMNS = ["camera_id", "image", "persons"]
RUN_SETTINGS = {"what", "frames", "out", "preset", "start_from", "sam_from"}


def run_foundation(config: FoundationConfig, progress: Progress) -> Summary:
    """Trains, or continues, and leaves the model at OUT/model."""
    started = time.monotonic()
    model_config = named_preset(config.preset)
    samples = _samples(config, model_config)
    plan = FoundationPlan(**config.model_dump(exclude=RUN_SETTINGS))
    out = Path(config.out).expanduser().resolve()
    progress.start("train", total=plan.steps, unit="step")
    run = FoundationRun(out, model_config, samples, plan, start_from=config.start_from, on_step=progress.advance)
    if config.sam_from:
        run.model.segmentation.load_state_dict(load_segmentation(config.sam_from).state_dict())
    run.run()
    progress.finish()
    headline = (
        f"Trained {config.preset} for {plan.steps} steps on {len(samples.scenes)} frames with "
        f"{len(set(samples.identity.tolist()))} identities; the model is at {out / 'model'}"
    )
    return Summary(headline, str(out / "model"), {"steps": plan.steps, "seconds": round(time.monotonic() - started, 1)})


def plan_foundation(config: FoundationConfig) -> Plan:
    """How much there is to train on."""
    rows = sum(part.rows for uri in config.frames for part in Ledger.read(Folder(uri)).parts())
    return Plan({"frames": rows, "steps": config.steps}, None)


def _samples(config: FoundationConfig, model_config: PsReidConfig) -> Samples:
    sam = model_config.segmentation.sam
    if sam is None or model_config.vision.source or model_config.language.source:
        raise ConfigError(f"preset {config.preset!r} takes published weights; the foundation trains tiny and small")
    vision = model_config.vision
    return load_samples(
        _tables(config.frames), scene_hw=(vision.scene_height_px, vision.scene_width_px), sam=sam, identities=None
    )


def _tables(uris: list[str]) -> Iterator[pa.Table]:
    """Every committed part, with identities told apart by archive."""
    for number, uri in enumerate(uris):
        folder = Folder(uri)
        for part in Ledger.read(folder).parts():
            yield folder.read_table(part.name, columns=COLUMNS).append_column(
                "archive", pa.repeat(pa.scalar(number), part.rows)
            )
