"""The end of a training run: the exported model, its figures on held-out identities, and the run's record."""

import json
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import cv2
import torch

from modeling.ps_reid.checkpoint import save_model
from modeling.ps_reid.folder import CONFIG_FILE
from modeling.ps_reid.model import PsReid
from workflows.storage import Folder
from workflows.train.catalogue import FrameStore
from workflows.train.config import PsReidTrainConfig
from workflows.train.heldout import Evaluation, evaluate_held_out
from workflows.train.parts import load_trained, start_model
from workflows.train.state import StateStore

MODEL_FOLDER, FIGURES_FILE, RECORD_FILE, SAMPLES_FOLDER = "model", "figures.jsonl", "run.json", "samples"
EXPORT_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def trained_model(config: PsReidTrainConfig, store: StateStore) -> PsReid:
    """The model of the newest checkpoints, as the search would load it, on the CPU."""
    model = start_model(config)
    for stage in (1, 2):
        saved = store.newest(stage)
        if saved is not None:
            load_trained(model, {name: tensors["value"] for name, tensors in store.read(saved).items()})
    return model.eval()


def look_at_held_out(
    config: PsReidTrainConfig,
    store: StateStore,
    frames: FrameStore,
    held_out: Collection[int],
    device: torch.device,
) -> dict[str, float]:
    """The evaluation's figures for the newest checkpoint; empty where it is switched off."""
    if not config.eval_queries:
        return {}
    return _evaluate(trained_model(config, store), config, frames, held_out, device).figures


def finish_run(
    config: PsReidTrainConfig,
    store: StateStore,
    frames: FrameStore,
    held_out: Collection[int],
    device: torch.device,
) -> dict[str, float]:
    """Exports the model, evaluates it, and writes the record that marks the run as finished, last."""
    out, model = Folder(config.out), trained_model(config, store)
    export_model(model, out.child(MODEL_FOLDER), dtype=EXPORT_DTYPES[config.export_dtype])
    evaluation = _evaluate(model, config, frames, held_out, device) if config.eval_queries else Evaluation()
    found = evaluation.figures
    names = [f"{SAMPLES_FOLDER}/{number:02d}.png" for number in range(len(evaluation.samples))]
    for name, picture in zip(names, evaluation.samples, strict=True):
        out.write_bytes(name, cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    rows = join_figures(out)
    last = {key: value for key, value in rows[-1].items() if key != "seconds"} if rows else {}
    out.write_json(RECORD_FILE, {"metrics": found, "last_step": last, "samples": names})
    return found


def export_model(model: PsReid, folder: Folder, *, dtype: torch.dtype) -> None:
    """Writes the model folder, its config last: a folder without it is no model."""
    with tempfile.TemporaryDirectory() as temporary:
        save_model(model, Path(temporary), dtype=dtype)
        files = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
        files.sort(key=lambda path: path == Path(temporary) / CONFIG_FILE)
        for path in files:
            folder.write_bytes(str(path.relative_to(temporary)), path.read_bytes())
        shutil.rmtree(temporary, ignore_errors=True)


def join_figures(out: Folder) -> list[dict[str, float]]:
    """Joins the pieces that came with the checkpoints into one file; its rows, one per step."""
    pieces = [out.read_bytes(name).decode() for name in out.list_files("figures/")]
    out.write_bytes(FIGURES_FILE, "".join(pieces).encode())
    return [json.loads(line) for piece in pieces for line in piece.splitlines()]


def _evaluate(
    model: PsReid, config: PsReidTrainConfig, frames: FrameStore, held_out: Collection[int], device: torch.device
) -> Evaluation:
    return evaluate_held_out(
        model.to(device), frames, held_out,
        num_queries=config.eval_queries, num_frames=config.eval_gallery, seed=config.seed,
    )  # fmt: skip
