"""Settings of `psreid synth`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflows.archive.synthetic.population import SECOND_CLOTHES_SHARE
from workflows.config import StepConfig


class SynthConfig(StepConfig):
    """What archive to invent. Archives with equal settings are equal to the byte."""

    out: str
    """Folder for videos, tables and truth."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides everything that is left to chance."""
    identities: Annotated[int, Field(ge=2)] = 24
    """Number of different persons."""
    cameras: Annotated[int, Field(ge=1, le=99)] = 4
    """Number of cameras; with three or more, the last is infrared."""
    frames: Annotated[int, Field(ge=1)] = 640
    """Frames over all cameras."""
    split: Literal["train", "test", "all"] = "all"
    """Whose persons walk: those for training, those for testing, or half of each. They are disjoint for one seed."""
    fps: Annotated[float, Field(gt=0, le=60)] = 4.0
    """Frames a second of the videos."""
    width: Annotated[int, Field(ge=160, le=3840, multiple_of=2)] = 640
    """Of the pictures, pixels."""
    height: Annotated[int, Field(ge=120, le=2160, multiple_of=2)] = 360
    """Of the pictures, pixels."""
    density: Annotated[float, Field(gt=0, le=40)] = 4.0
    """Persons at a time in front of a camera, on average."""
    second_clothes_share: Annotated[float, Field(ge=0, le=1)] = SECOND_CLOTHES_SHARE
    """Share of identities that own a second set of clothes and are seen in both."""
    preview: str | None = None
    """PNG file for a contact sheet of the archive."""
    stretch_frames: Annotated[int, Field(ge=8)] = 64
    """Frames that one worker makes at a time."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of frames that may fail before the job fails, a fraction of 1."""

    @model_validator(mode="after")
    def _has_a_frame_for_every_camera(self) -> "SynthConfig":
        if self.frames < self.cameras:
            raise ValueError(f"frames is {self.frames}, but {self.cameras} cameras need at least one each")
        return self
