"""A small archive, a small model, and one worker's training run without Ray: the real loop, engine and checkpoints."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from modeling.ps_reid.checkpoint import save_model
from tests.modeling.ps_reid.small_model import small_model
from tests.workflows.synthetic_archive import make_archive
from workflows.ledger import Ledger
from workflows.storage import Folder
from workflows.train.catalogue import COLUMNS, FrameTables, list_rows, make_catalogue
from workflows.train.config import PsReidTrainConfig
from workflows.train.mailbox import Message
from workflows.train.worker import StageRun, Task

IDENTITIES = 10


def make_inputs(folder: Path) -> dict[str, Any]:
    """An archive and a saved model below `folder`; the settings that name them."""
    make_archive(str(folder / "archive"), identities=2 * IDENTITIES, frames=90, density=3.0, split="all")
    save_model(small_model(), folder / "start")
    return {"frames": [str(folder / "archive/tables/frames")], "start_from": str(folder / "start")}


def train_config(inputs: dict[str, Any], out: Path, **changes: Any) -> PsReidTrainConfig:
    """A few short steps in float32."""
    stages = {"stage1": {"steps": 3}, "stage2": {"steps": 3}}
    small = {"precision": "fp32", "checkpoint_every": 2, "report_every": 3, "held_out_share": 0.3, "mask_frames": 2}
    return PsReidTrainConfig.model_validate({**inputs, "out": str(out), **stages, **small, **changes})


class LocalMailbox:
    """Keeps messages in a list."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.post = self

    def remote(self, message: Message) -> Message:
        self.messages.append(message)
        return message

    def losses(self) -> list[float]:
        return [float(m.metrics["loss"]) for m in self.messages if m.kind == "step" and m.metrics]


def local_tables(uri: str) -> FrameTables:
    """What `read_frames` gives, with the blocks themselves in place of references."""
    folder = Folder(uri)
    blocks = [folder.read_table(part.name, columns=COLUMNS) for part in Ledger.read(folder).parts()]
    archives = (0,) * len(blocks)
    return FrameTables(make_catalogue([list_rows(block) for block in blocks], archives), blocks, archives)


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone, as a Ray Train worker would find it, and one thread.

    The group stays: DeepSpeed remembers the first one it meets.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_here(config: PsReidTrainConfig) -> None:
    """What is left of the run, in this process, without Ray."""
    with pytest.MonkeyPatch.context() as patch, one_process():
        patch.setattr("ray.get", lambda value: value)
        patch.setattr("ray.train.report", lambda metrics: None)
        StageRun(Task(config, 1, local_tables(config.frames[0]), LocalMailbox()), 0, 1, torch.device("cpu")).run()
