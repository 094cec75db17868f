"""`psreid train irm` and `psreid train irmpp`: reads frames tables into memory and trains in this process."""

import time
from pathlib import Path

from modeling.instruct_reid.config import named_preset
from workflows.ledger import Ledger
from workflows.progress import Plan, Progress, Summary
from workflows.storage import Folder
from workflows.train.irm_config import IrmTrainConfig

NAMES = {"irm": "IRM", "irmpp": "IRM++"}


def run_irm(config: IrmTrainConfig, progress: Progress) -> Summary:
    """Trains, or continues, and leaves the model at OUT/model."""
    from workflows.train.irm_run import MODEL_FOLDER, IrmRun
    from workflows.train.irm_samples import load_reid_samples

    started = time.monotonic()
    named_preset(config.preset, "irm" if config.what == "irm" else "irm++")
    samples = load_reid_samples(config.frames, gap_s=config.gap_s)
    progress.start("train", total=config.steps, unit="step")
    run = IrmRun(config, samples, on_step=progress.advance)
    run.run()
    progress.finish()
    model = Path(config.out).expanduser().resolve() / MODEL_FOLDER
    headline = (
        f"Trained {NAMES[config.what]} for {config.steps} steps on {len(samples.crops)} pictures of "
        f"{samples.num_identities} identities, tasks {', '.join(run.tasks)}; the model is at {model}"
    )
    return Summary(headline, str(model), {"steps": config.steps, "seconds": round(time.monotonic() - started, 1)})


def plan_irm(config: IrmTrainConfig) -> Plan:
    """How much there is to train on."""
    rows = sum(part.rows for uri in config.frames for part in Ledger.read(Folder(uri)).parts())
    return Plan({"frames": rows, "steps": config.steps, "tasks": ", ".join(config.tasks)}, None)
