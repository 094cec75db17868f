"""Settings of `psreid import`."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from workflows.archive.readers.formats import READERS
from workflows.config import StepConfig


class ImportConfig(StepConfig):
    """From a published data set to tables of frames, queries and galleries."""

    format: str
    """How the data set is stored: the name of a format."""
    source: str
    """Folder of the data set; local or s3://."""
    out: str
    """Folder for the tables; local or s3://."""
    variant: str | None = None
    """Which of the format's variants is read, where it has any; by default the first."""
    strict: bool = False
    """Whether a count that is not the published one is an error; otherwise it is a warning."""
    every: Annotated[int, Field(ge=1)] = 1
    """Every n-th frame of a labelled video, from frame 0."""
    shard_frames: Annotated[int, Field(ge=1, le=4096)] = 128
    """Pictures per shard, the unit of work."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Of pictures that are not JPEG already, and of queries cut from frames, 1 to 100."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The job fails when more than this part of the pictures had to be set aside (0 to 1)."""

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in READERS:
            raise ValueError(f"must be one of {', '.join(READERS)}")
        return name

    @model_validator(mode="after")
    def _check_variant(self) -> "ImportConfig":
        variants = READERS[self.format].variants
        if self.variant is not None and self.variant not in variants:
            raise ValueError(
                f"variant {self.variant!r} is not one of {', '.join(variants)}"
                if variants
                else f"format {self.format} has no variants, got {self.variant!r}"
            )
        return self
