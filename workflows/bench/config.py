"""Settings of `psreid bench`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflows.config import StepConfig

NEEDS_SOURCE = {
    "ingest": "a video file",
    "pipeline": "a folder that `psreid ingest` or `psreid synth` wrote",
    "memory": "a folder that `psreid synth` wrote",
    "shortlist": "the output of a search with a shortlist",
    "attention": "a benchmark (the OUT of `psreid synth`)",
    "train": "a frames folder with identities, masks and texts (`psreid synth` writes it at OUT/tables/frames)",
}


class BenchConfig(StepConfig):
    """What to time. Judge: the model alone; the others: this project's way beside the plain one."""

    what: Literal["judge", "recall", "shortlist", "ingest", "pipeline", "memory", "train", "attention"]
    """Judge: shared computation against one forward per pair. Recall: exact top-k against faiss. Shortlist: a search
    against one that judged everything. Ingest: against plain PyAV. Pipeline: against a loop. Memory: peaks of a small
    and a large archive. Train: Ray Train and DeepSpeed against a plain torch loop. Attention: joint against separated,
    trained equally long."""
    source: str | None = None
    """What to work on: a video for `ingest`, a frames folder for `pipeline` and `train`, a search for `shortlist`, an
    archive for `memory`, a benchmark for `attention`; `judge` and `recall` make up their own."""
    against: str | None = None
    """For `shortlist`: the output of the same search with recall `none`."""
    model: str = "tiny"
    """Model for `judge`, `pipeline` and `train`: a name, or the path of a saved model."""
    device: str = "cpu"
    """Where `judge` computes: cpu, cuda."""
    queries: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 8, 64), min_length=1)
    """Numbers of queries that `judge` and `recall` are timed with."""
    targets: Annotated[int, Field(ge=8)] = 64
    """Number of targets that `judge` is timed with."""
    sample_pairs: Annotated[int, Field(ge=8)] = 64
    """Pairs timed of the ways that cost as much for every pair (plain, joint); the time of the others is scaled."""
    repeats: Annotated[int, Field(ge=1)] = 3
    """How often `judge` and `recall` time each way; the fastest counts."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of `judge` and `recall` on the CPU; by default as many as there are cores."""
    rows: tuple[Annotated[int, Field(ge=1000)], ...] = Field(default=(1_000_000, 10_000_000), min_length=1)
    """Numbers of embeddings that `recall` searches; a million of width 512 takes 1 GB."""
    dim: Annotated[int, Field(ge=1, le=4096)] = 512
    """Width of the embeddings of `recall`."""
    top: Annotated[int, Field(ge=1)] = 100
    """Rows that `recall` finds per query."""
    clock: Literal["wall", "cpu"] = "wall"
    """What `judge` reads: the wall clock, or processor seconds, which other programs on the machine disturb less."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory for the embeddings of `recall`, GB; beyond it they come in blocks. Default: 0.6 of what is free."""
    every: Annotated[int, Field(ge=1)] = 1
    """Every n-th frame of the video, for `ingest`."""
    least_s: Annotated[float, Field(gt=0)] | None = None
    """Least seconds of a run of `ingest` (default 120) and `pipeline` (default 60)."""

    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1000, 20_000), min_length=1)
    """Frames of the archives that `memory` runs the whole line on."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Workers of `train`, one core each; the plain loop gets as many threads."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage of `train`."""
    steps: Annotated[int, Field(ge=3)] = 12
    """Steps of `train` that are timed, of each way."""
    training: str | None = None
    """YAML file with the settings of `psreid train psreid` that both ways of `attention` share."""
    gallery: str = "TestG100"
    """Gallery of the benchmark that `attention` measures on."""
    out: str | None = None
    """Folder of the trainings of `attention`, from which a killed run continues; by default they are thrown away."""

    @model_validator(mode="after")
    def _check_source(self) -> "BenchConfig":
        if self.what in NEEDS_SOURCE and self.source is None:
            raise ValueError(f"bench {self.what} needs {NEEDS_SOURCE[self.what]}: psreid bench {self.what} SOURCE")
        if self.what == "shortlist" and self.against is None:
            raise ValueError("bench shortlist needs the search that judged everything: --against EXHAUSTIVE")
        if self.what == "attention" and self.training is None:
            raise ValueError("bench attention trains: give the settings of `psreid train psreid` with --training FILE")
        if self.what not in NEEDS_SOURCE and self.source is not None:
            raise ValueError(f"bench {self.what} makes up its own data and takes no source, got {self.source!r}")
        return self

    @model_validator(mode="after")
    def _check_clock(self) -> "BenchConfig":
        if self.clock == "cpu" and self.device != "cpu":
            raise ValueError(f"clock cpu does not see what {self.device} does; use clock wall")
        return self
