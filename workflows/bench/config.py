"""Settings of `psreid bench`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflows.config import StepConfig

NEEDS_SOURCE = {
    "ingest": "a video file",
    "pipeline": "a folder that `psreid ingest` or `psreid synth` wrote",
    "memory": "a folder that `psreid synth` wrote",
}


class BenchConfig(StepConfig):
    """What to time. Judge: the model alone; ingest and pipeline: this project's way beside the plain one."""

    what: Literal["judge", "ingest", "pipeline", "memory"]
    """Judge: shared computation against one forward per pair. Ingest: against plain PyAV. Pipeline: against a loop.
    Memory: peaks of a small and a large archive."""
    source: str | None = None
    """What to work on: a video for `ingest`, a frames folder for `pipeline`, an archive for
    `memory`; `judge` makes up its own pictures."""
    model: str = "tiny"
    """Model for `judge` and `pipeline`: a name, or the path of a saved model."""
    device: str = "cpu"
    """Where `judge` computes: cpu, cuda."""
    queries: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 8, 64), min_length=1)
    """Numbers of queries that `judge` is timed with."""
    targets: Annotated[int, Field(ge=8)] = 64
    """Number of targets that `judge` is timed with."""
    sample_pairs: Annotated[int, Field(ge=8)] = 64
    """Pairs timed of the ways that cost as much for every pair (plain, joint); the time of the others is scaled."""
    repeats: Annotated[int, Field(ge=1)] = 3
    """How often `judge` times each way, in turns; the fastest counts."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of `judge` on the CPU; by default as many as torch takes."""
    clock: Literal["wall", "cpu"] = "wall"
    """What `judge` reads: the wall clock, or processor seconds, which other programs on the machine disturb less."""
    every: Annotated[int, Field(ge=1)] = 1
    """Every n-th frame of the video, for `ingest`."""
    least_s: Annotated[float, Field(gt=0)] | None = None
    """Least seconds of a run of `ingest` (default 30) and `pipeline` (default 60)."""

    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1000, 20_000), min_length=1)
    """Frames of the archives that `memory` runs the whole line on."""

    @model_validator(mode="after")
    def _check_source(self) -> "BenchConfig":
        if self.what in NEEDS_SOURCE and self.source is None:
            raise ValueError(f"bench {self.what} needs {NEEDS_SOURCE[self.what]}: psreid bench {self.what} SOURCE")
        if self.what == "judge" and self.source is not None:
            raise ValueError(f"bench judge makes up its own pictures and takes no source, got {self.source!r}")
        return self

    @model_validator(mode="after")
    def _check_clock(self) -> "BenchConfig":
        if self.clock == "cpu" and self.device != "cpu":
            raise ValueError(f"clock cpu does not see what {self.device} does; use clock wall")
        return self
