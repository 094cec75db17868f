"""Settings of `psreid evaluate reid`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from modeling.instruct_reid.instructions import TASKS, Task, named_task
from workflows.config import StepConfig
from workflows.storage import Folder

Setting = Literal["task-free", "task-specific", "joint"]
TABLE_NUMBERS = (5, 6, 7, 8)


class ReidScoring(StepConfig):
    """How a model is asked and scored, and by which workers."""

    identities_from: str = ""
    """Only identities whose name starts so take part, such as "test-"."""
    queries_per_identity: Annotated[int, Field(ge=1)] = 2
    """Queries of each identity in each task, at most."""
    gap_s: Annotated[float, Field(gt=0)] = 2.0
    """Of each track the gallery holds one picture in every so many seconds."""
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


class EvaluateReidConfig(ReidScoring):
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
    taus: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Least similarities of instructions for mAPτ (eq. 2)."""
    max_rank: Annotated[int, Field(ge=1)] = 50
    """Length of the CMC curve."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Names of tasks in any case."""
        return tuple(named_task(str(name)) for name in value) if isinstance(value, list | tuple) else value


class ReidTableConfig(ReidScoring):
    """Which of the paper's tables to print, and on what its variants are trained and scored first."""

    table: int
    """Table of the paper to print beside our results: 5, 6, 7 or 8."""
    frames: str | None = None
    """Frames folder with identities on which the variants are scored; only `run` needs it."""
    run: bool = False
    """Whether the table's variants are trained and scored; without it stored results are printed."""
    training: str | None = None
    """YAML file with the settings of `psreid train irm` that all variants share, `frames` and `steps` among them."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Each variant is trained once with each."""
    out: str | None = None
    """Local folder of the trainings and their scores; tables that have a training in common share it there."""
    results: str | None = None
    """Folder of the tables' stored results; by default the package's own."""

    @field_validator("table")
    @classmethod
    def _known(cls, value: int) -> int:
        if value not in TABLE_NUMBERS:
            raise ValueError(
                "the tables of Instruct-ReID++ are 5, 6, 7 and 8; those of PS-ReID, 2 to 5: psreid evaluate --table N"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> "ReidTableConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"each seed once, got {', '.join(map(str, self.seeds))}")
        needed = {
            "FRAMES, the frames folder that the variants are scored on": self.frames,
            "--training FILE.yaml, the settings that they share (frames, steps and so on)": self.training,
            "--out OUT, the folder of the trainings": self.out,
        }
        missing = [name for name, value in needed.items() if value is None]
        if self.run and missing:
            raise ValueError(f"--run trains and scores the variants of table {self.table}: give {'; '.join(missing)}")
        if self.run and Folder(str(self.out)).is_remote:
            raise ValueError(f"OUT is {self.out}: trainings need a local folder")
        return self
