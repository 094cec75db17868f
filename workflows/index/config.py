"""Settings of `psreid index`."""

from typing import Annotated

from pydantic import Field

from workflows.tracking.config import TrackedConfig


class IndexConfig(TrackedConfig):
    """What to encode, with which model, on how many workers."""

    frames: str
    """Folder of frames with persons, as `psreid ingest` or `psreid synth` wrote it."""
    out: str
    """Folder for the index."""
    model: str = "tiny"
    """Model whose person encoder embeds the persons: a name, the path of a saved model, or models:/NAME@ALIAS."""
    batch_persons: Annotated[int, Field(ge=1)] = 64
    """Persons embedded in one forward pass, at least; whole frames are added."""
    actors: Annotated[int, Field(ge=1)] | None = None
    """Workers; by default one for each core (or GPU, with `gpus_per_actor`)."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1.0
    """Cores of one worker; also the threads of its numerical libraries."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one worker; 0 encodes on the CPU, a fraction shares a GPU."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of persons and frames that may be set aside before the job fails, a fraction of 1."""
