"""Settings of `psreid evaluate reid`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from modeling.instruct_reid.instructions import TASKS, Task, named_task
from workflows.config import StepConfig

Setting = Literal["task-free", "task-specific", "joint"]


class EvaluateReidConfig(StepConfig):
    """Which model to score on which archive, in which settings."""

    model: str
    """IRM or IRM++: a name of shipped weights, or the folder of a trained model."""
    frames: str
    """Frames folder with identities, as `psreid synth` or `psreid import` wrote it."""
    out: str
    """Folder for the benchmark, the features and the scores."""
    settings: tuple[Setting, ...] = ("task-free", "joint")
    """task-free: gallery pictures encoded once, without instruction; task-specific: with the instruction of the task;
    joint: all tasks' queries on one gallery of all pictures."""
    tasks: tuple[Task, ...] = TASKS
    """Tasks to score; those that the data cannot ask have no queries."""
    identities_from: str = ""
    """Only identities whose name starts so take part, such as "test-"."""
    queries_per_identity: Annotated[int, Field(ge=1)] = 2
    """Queries of each identity in each task, at most."""
    gap_s: Annotated[float, Field(gt=0)] = 2.0
    """Of each track the gallery holds one picture in every so many seconds."""
    taus: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Least similarities of instructions for mAPτ (eq. 2)."""
    max_rank: Annotated[int, Field(ge=1)] = 50
    """Length of the CMC curve."""
    ap_top: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many candidates count for AP, and only matches among them divide, as the released evaluation
    code does with 500; by default the full ranking."""
    rerank: bool = False
    """k-reciprocal re-ranking; for galleries of up to some 20,000 pictures, all in memory."""
    seed: int = 0
    """Decides which pictures become queries."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Pictures encoded in one forward pass."""
    actors: Annotated[int, Field(ge=1)] | None = None
    """Workers; by default one for each core (or GPU, with `gpus_per_actor`)."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1.0
    """Cores of one worker; also the threads of its numerical libraries."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one worker; 0 encodes on the CPU."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of pictures that may be set aside before the job fails, a fraction of 1."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Names of tasks in any case."""
        return tuple(named_task(str(name)) for name in value) if isinstance(value, list | tuple) else value
