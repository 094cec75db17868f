"""What every worker of a Ray Train group does around its own run: threads, accelerator, and how failures are told."""

import os
from collections.abc import Callable
from typing import Any

import torch

from modeling.errors import PsreidError
from workflows.train.mailbox import Message


def run_in_group(task: Any, run: Callable[[int, int, torch.device], None]) -> None:
    """Calls `run(rank, number of workers, device)` on this worker. `task` has a `config` and a `mailbox`.

    Our own errors reach the driver in their own words and end the group for good; after any other, Ray Train starts
    the group again and it goes on from the last checkpoint.
    """
    if not task.config.gpus_per_worker:
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(max(1, int(task.config.cpus_per_worker)))
    import ray
    import ray.train.torch

    if ray.get(task.mailbox.has_failed.remote()):
        return  # Ray Train has started the group again, and there is nothing to mend
    context = ray.train.get_context()
    try:
        run(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    except PsreidError as error:  # raised as well, for other workers may be waiting for this one
        ray.get(task.mailbox.post.remote(Message("failure", error=error)))
        raise
    except Exception as error:
        said = f"a worker failed ({type(error).__name__}: {error}); going on from the last checkpoint"
        ray.get(task.mailbox.post.remote(Message("trouble", text=said)))
        raise
