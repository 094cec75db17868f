"""Settings of `psreid search`."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from modeling.errors import ConfigError
from modeling.instruct_reid.instructions import Task, named_task
from workflows.clock import parse_moment
from workflows.index.filter import FrameFilter
from workflows.tracking.config import TrackedConfig

LEAST_SHORTLIST = 50  # frames
SHORTLIST_SHARE = 0.02  # of the archive's frames
LEAST_SCORE = {"psreid": 0.0, "recall": 0.5}
OTHER_CLOTHES: frozenset[Task] = frozenset({"CC", "CTCC", "LI"})
"""Tasks whose match may wear other clothes than the query's picture shows, which PS-ReID was never taught."""


class SearchConfig(TrackedConfig):
    """Whom to look for, where, and how thoroughly.

    Queries come from the table `queries`, or one query from `image`, `text`, `frame` and `box`.
    """

    index: str
    """Folder that `psreid index` wrote."""
    out: str
    """Folder for the matches; the steps on the way lie below it."""
    queries: str | None = None
    """Parquet file or folder of queries: at least `query_id`, and `image` or `text`."""
    image: str | None = None
    """Picture of the person, a file."""
    text: str | None = None
    """Description of the person."""
    frame: str | None = None
    """Frame of the archive to cut the person's picture from, a frame_id; needs `box`."""
    box: tuple[float, float, float, float] | None = None
    """The person in `frame`: left, top, width, height in pixels."""
    task: Task | None = None
    """What is asked, in an index made with instruct-ReID (IRM++): trad, cc, ctcc, vi, t2i or li. By default a picture
    alone asks as trad, a text alone as t2i, both together as li; in a table the column `task` says it."""
    instruction: str | None = None
    """What is asked of the picture in other words than the task's own sentence."""
    clothes: str | None = None
    """Picture of the clothes that the person is looked for in, a file; for task ctcc."""
    query_id: str = "query"
    """Name of the one query given by `image`, `text` or `frame`."""
    frames: str | None = None
    """Folder of the frames that were indexed; by default where the index found them."""
    model: str = "tiny"
    """Model that judges and segments: a name, the path of a saved model, or models:/NAME@ALIAS of a Model Registry.
    Recall uses the index's own."""

    recall: Literal["top", "none"] = "top"
    """`top` judges the frames whose persons look most alike; `none` judges every frame with every query."""
    shortlist_size: Annotated[int, Field(ge=1)] | None = None
    """Frames judged per query with recall `top`; by default the larger of 50 and 2 % of the archive's frames,
    or every frame when stopping after recall."""
    stop_after: Literal["recall", "judge"] | None = None
    """`recall` writes every person of the shortlisted frames with its score; `judge` writes matches without masks."""
    judge_by: Literal["psreid", "recall"] | None = None
    """Who decides on the shortlist. `psreid`: the model, which sees picture and text; `recall`: the index's encoder,
    which knows the tasks, by the cosine of the frame's best person. By default `recall` for the tasks cc, ctcc and li,
    whose match may wear other clothes than the picture shows, and else `psreid`."""
    threshold: float | None = None
    """Scores above it are a match. A score of `psreid` is logit[SEG] - logit[REJ], by default above 0; one of `recall`
    is a cosine, by default above 0.5."""
    attention: Literal["joint", "separated"] | None = None
    """`joint` is the paper's; `separated` computes each frame once for all queries; by default as in training."""
    keep_rejects: bool = True
    """Whether judged pairs that are no match stay in the ranking."""
    cameras: tuple[str, ...] = ()
    """Only frames of these cameras; empty means all."""
    since: str | None = None
    """Only frames recorded from this moment on, 2026-11-01T08:00; in the archive's time zone unless it has one."""
    until: str | None = None
    """Only frames recorded up to this moment."""
    since_s: float | None = None
    """Only frames from this time of their video on, seconds."""
    until_s: float | None = None
    """Only frames up to this time of their video, seconds."""
    report: bool = True
    """Whether a report is written when the search is done."""

    judge_actors: Annotated[int, Field(ge=1)] | None = None
    """Workers that judge; by default every core of this machine judges and draws masks in turn, and on a cluster or
    with `gpus_per_actor` there is one for each core or GPU."""
    segment_actors: Annotated[int, Field(ge=1)] | None = None
    """Workers that draw masks, at most; by default half as many as judge, and more where a cluster has room."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1.0
    """Cores of one worker; also the threads of its numerical libraries."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one judging or segmenting worker; 0 works on the CPU, a fraction shares a GPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format that the judge computes in."""
    targets_per_batch: Annotated[int, Field(ge=1)] = 8
    """Frames judged together, with all their queries."""
    query_cache_mb: Annotated[int, Field(ge=1)] = 1024
    """Memory of one judging worker for encoded queries, MiB; with more queries than fit, frames are judged in turns."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of rows that may be set aside in a step before the job fails, a fraction of 1; bad queries do not count."""

    @property
    def by_flags(self) -> bool:
        """Whether the one query is given by settings, not by a table."""
        return self.queries is None

    @property
    def judged_by(self) -> Literal["psreid", "recall"]:
        """`judge_by`, or what follows from the task."""
        return self.judge_by or ("recall" if self.task in OTHER_CLOTHES else "psreid")

    @property
    def least_score(self) -> float:
        """`threshold`, or the default of who judges."""
        return LEAST_SCORE[self.judged_by] if self.threshold is None else self.threshold

    def frame_filter(self, time_zone: str) -> FrameFilter:
        """Which frames are searched; `time_zone` is the archive's, for moments without an offset."""
        zone = ZoneInfo(time_zone)
        since, until = (parse_moment(text, zone) if text else None for text in (self.since, self.until))
        return FrameFilter(self.cameras, self.since_s, self.until_s, since, until)

    def frames_judged(self, num_frames: int) -> int:
        """Frames shortlisted per query, in an archive of `num_frames`."""
        if self.shortlist_size is not None:
            return min(self.shortlist_size, num_frames)
        if self.stop_after == "recall":
            return num_frames
        return min(num_frames, max(LEAST_SHORTLIST, round(SHORTLIST_SHARE * num_frames)))

    @model_validator(mode="after")
    def _check_query(self) -> "SearchConfig":
        flags = ("image", "text", "frame", "box", "task", "instruction", "clothes")
        given = [name for name in flags if getattr(self, name) is not None]
        if self.queries is not None and given:
            raise ValueError(
                f"queries come from a table or from flags, not both: got table {self.queries!r} and {', '.join(given)}"
            )
        if self.queries is None and (self.frame is None) != (self.box is None):
            raise ValueError("`frame` and `box` go together: the frame_id, and left,top,width,height in it")
        if self.image is not None and self.frame is not None:
            raise ValueError("the picture comes from `image` or from `frame` with `box`, not from both")
        if self.queries is None and not self.image and not self.frame and not (self.text or "").strip():
            raise ValueError(
                "there is no query: give a QUERIES table, or --image FILE, --text TEXT, or --frame FRAME_ID --box "
                "x,y,w,h (a text may go with a picture)"
            )
        return self

    @field_validator("task", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """The task of this name, in any case."""
        try:
            return named_task(value) if isinstance(value, str) else value
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _check_judge(self) -> "SearchConfig":
        if self.recall == "none" and (self.task or self.judged_by == "recall"):
            raise ValueError("recall `none` leaves everything to PS-ReID, which knows no tasks; drop recall `none`")
        return self

    @model_validator(mode="after")
    def _check_recall(self) -> "SearchConfig":
        if self.recall == "none" and self.shortlist_size is not None:
            raise ValueError(
                "shortlist_size has no meaning with recall `none`, which judges every frame; drop one of them"
            )
        if self.recall == "none" and self.stop_after == "recall":
            raise ValueError("stop_after `recall` needs a recall; drop recall `none`")
        if self.since_s is not None and self.until_s is not None and self.since_s > self.until_s:
            raise ValueError(f"since_s {self.since_s} lies after until_s {self.until_s}")
        limits = self.frame_filter("UTC")
        if limits.since and limits.until and limits.since > limits.until:
            raise ValueError(f"since {self.since} lies after until {self.until}")
        return self

    @field_validator("since", "until")
    @classmethod
    def _check_moment(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parse_moment(text, ZoneInfo("UTC"))
            except ConfigError as error:
                raise ValueError(f"{error} Seconds within a video are since_s and until_s.") from error
        return text
