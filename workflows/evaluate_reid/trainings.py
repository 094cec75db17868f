"""The trainings behind a table: which there are, with which settings, where they lie, and which are done.

A training lies in a folder named after its settings and what it learns from, so that tables share a training that both
have, and a run that was killed finds what is done. All variants have one budget: alone, a task has the shared steps
divided by the number of tasks, so that the models of all tasks together cost what the one model of all tasks does.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from modeling.instruct_reid.instructions import Task
from modeling.ps_reid.folder import model_identity
from workflows.config import check_settings, load_config
from workflows.evaluate.stored_table import put_setting
from workflows.evaluate_reid.tables import IRM, ReidTable, Variant
from workflows.index.inputs import StepInput, open_step
from workflows.ledger import make_shard_id
from workflows.lock import hold_lock
from workflows.progress import Progress
from workflows.storage import JSON, Folder
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.irm_step import CODE_VERSION, RUNTIME_KEYS, run_irm

TRAINED_FILE, MODEL_FOLDER = "trained.json", "model"
STARTS = ("start_from", "instructions_from")
"""Settings that name trained models."""
ADAPTIVE_TASKS = frozenset({"CTCC", "LI"})
"""Tasks whose triplets instructions can tell apart."""
SAME_TRIPLET: dict[str, JSON] = {"losses.is_adaptive": True}
"""Of the other tasks alone: the adaptive triplet loss is the plain one there, so one training stands for both."""
PLACES = frozenset({"out", "frames", *STARTS})
"""Settings that are places; what lies there names a training."""


@dataclass(frozen=True)
class Training:
    """One model of a variant with one seed."""

    config: IrmTrainConfig
    folder: Folder

    @property
    def model(self) -> str:
        return self.folder.path(MODEL_FOLDER)

    @property
    def is_done(self) -> bool:
        return self.folder.exists(TRAINED_FILE)

    @property
    def name(self) -> str:
        """The same for equal settings on equal frames."""
        return self.folder.uri.rpartition("/")[2]

    def describe(self) -> str:
        """A line for the person who waits."""
        config = self.config
        left = "done" if self.is_done else f"{config.steps} steps"
        return f"{config.what}, {', '.join(config.tasks)}, seed {config.seed}, {left}: {self.folder.uri}"

    def run(self, progress: Progress) -> None:
        """Trains, continues, or finds it trained."""
        if self.is_done:
            return
        started = time.monotonic()
        on_ray = self.config.workers > 0  # then the run locks its folder itself
        with nullcontext() if on_ray else hold_lock(self.folder):
            figures = run_irm(self.config, progress).figures
        record = {"config": describe_settings(self.config), "figures": dict(figures)}
        self.folder.write_json(TRAINED_FILE, record | {"seconds": round(time.monotonic() - started, 1)})


@dataclass(frozen=True)
class SharedTraining:
    """What the variants of a table have in common."""

    config: IrmTrainConfig
    frames: list[StepInput]
    out: Folder
    starts: Mapping[str, str]
    """Identities of the trained models that all start from, by the setting that names them."""

    @classmethod
    def read(cls, file: str, out: str) -> "SharedTraining":
        """The settings of a YAML file; `what`, `seed` and `out` are set for each training."""
        config = load_config(IrmTrainConfig, file, {"what": "irm", "out": "set for each training", "seed": 0})
        frames = [open_step(uri, command="synth") for uri in config.frames]
        starts = {name: model_identity(model) for name in STARTS if (model := getattr(config, name)) is not None}
        return cls(config, frames, Folder(out), starts)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.config.tasks

    @property
    def steps_alone(self) -> int:
        """Optimizer steps of a model of one task."""
        return math.ceil(self.config.steps / len(self.tasks))

    @property
    def num_frames(self) -> int:
        return sum(one.manifest.rows for one in self.frames)

    @property
    def described(self) -> dict[str, JSON]:
        """The settings that decide what is learned, without those that a variant or a seed decides."""
        values = describe_settings(self.config)
        values["losses"] = {name: value for name, value in values["losses"].items() if f"losses.{name}" not in IRM}
        return {name: value for name, value in values.items() if name not in {*IRM, *RUNTIME_KEYS, "seed"}}

    def of_table(self, table: ReidTable, seeds: tuple[int, ...]) -> list[Training]:
        """Every training of a table once, seed by seed."""
        found = [one for seed in seeds for variant in table.variants for one in self.of_variant(variant, table, seed)]
        return list({training.name: training for training in found}.values())

    def of_variant(self, variant: Variant, table: ReidTable, seed: int) -> Iterator[Training]:
        """One training of all tasks, or one for each task that the table shows."""
        if variant.is_multi_task:
            yield self._training(variant, seed, {})
            return
        for task in self.tasks:
            if task in table.tasks:
                warmup = math.ceil(self.config.warmup_steps / len(self.tasks))
                changes: dict[str, JSON] = {
                    "tasks": [task], "task_shares": {}, "steps": self.steps_alone, "warmup_steps": warmup,
                }  # fmt: skip
                yield self._training(variant, seed, changes if task in ADAPTIVE_TASKS else SAME_TRIPLET | changes)

    def _training(self, variant: Variant, seed: int, changes: dict[str, JSON]) -> Training:
        values: dict[str, Any] = self.config.model_dump(mode="json")
        for key, value in {**variant.training, **changes, "seed": seed}.items():
            put_setting(values, key, value)
        digests = [*(one.digest for one in self.frames), self.starts]
        folder = self.out.child("trainings", make_shard_id(_deciding(values), digests, CODE_VERSION))
        return Training(check_settings(IrmTrainConfig, values | {"out": folder.uri}), folder)


def describe_settings(config: IrmTrainConfig) -> dict[str, JSON]:
    """The settings as they are stored: files and models by their names, without the folders of this machine."""
    values = config.model_dump(mode="json", exclude={"out", "frames"})
    for name in (*STARTS, "image_weights", "instruction_weights"):
        if values[name] is not None:
            values[name] = values[name].rstrip("/").rpartition("/")[2]
    return values


def _deciding(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learned."""
    return {name: value for name, value in values.items() if name not in RUNTIME_KEYS | PLACES}
