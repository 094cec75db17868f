"""Settings of `psreid ingest`."""

from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from workflows.annotate.detector import DetectorConfig
from workflows.config import StepConfig

FINEST_RATE_DENOMINATOR = 1001  # 29.97 fps is meant as 30000/1001 or 2997/100; both are below a millisecond apart


class IngestConfig(StepConfig):
    """From videos and images to a table of frames with persons."""

    sources: list[str] = Field(min_length=1)
    """Videos, images, folders or globs; local or s3://."""
    out: str
    """Folder for the frames; local or s3://."""
    every: int | None = Field(default=None, ge=1)
    """Take every n-th frame of a video, from frame 0. All frames if neither this nor `fps` is given."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Take this many frames per second of a video's time; never more than it has."""
    shard_frames: int = Field(default=64, ge=1, le=4096)
    """Frames per shard, the unit of work; up to 4 times as many where that keeps a keyframe's group whole."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """Of the stored frames, 1 to 100."""
    start_times: str = "auto"
    """When videos were recorded: `name` (from the file name), `container`, `auto` (the name, else the container),
    `none`, or a CSV file with the columns file and start."""
    time_zone: str = "UTC"
    """IANA zone of start times that are written without an offset."""
    changed: Literal["refuse", "keep"] = "refuse"
    """What to do when a source file is another one than at an earlier run: stop, or keep what was ingested of it."""
    ir_cameras: tuple[str, ...] = ()
    """Cameras that are infrared; of the others, a frame without colour is taken as infrared."""
    detector: DetectorConfig = DetectorConfig()
    """What finds the persons."""
    min_score: float | None = None
    """Least score of a person, on the detector's own scale. Default: 0.5; 0.6 for hog, whose scores are SVM margins."""
    min_height: float = Field(default=75, ge=0)
    """Least height of a person, in pixels of the frame."""
    min_width: float = Field(default=25, ge=0)
    """Least width of a person, in pixels of the frame."""
    nms_iou: float = Field(default=0.4, ge=0, le=1)
    """A person whose box overlaps a surer one by more than this IoU (0 to 1) is dropped."""
    max_quarantine_share: float = Field(default=0.25, ge=0, le=1)
    """The job fails when more than this part of the frames had to be set aside (0 to 1)."""

    @model_validator(mode="after")
    def _check_sampling(self) -> "IngestConfig":
        if self.every is not None and self.fps is not None:
            raise ValueError(f"give every ({self.every}) or fps ({self.fps}), not both")
        return self

    @property
    def exact_fps(self) -> Fraction | None:
        return Fraction(self.fps).limit_denominator(FINEST_RATE_DENOMINATOR) if self.fps is not None else None
