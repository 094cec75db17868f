"""Settings of `psreid evaluate`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from modeling.metrics.segmentation import Rule
from workflows.config import StepConfig

Modality = Literal["both", "image", "text"]
FLOOR_GALLERY = "TestG100"


class EvaluateConfig(StepConfig):
    """Which model is measured on which benchmark, and by which rules.

    A benchmark is a folder with the tables `frames` (a step folder with identities and masks), `queries` and
    `galleries`, below it or below its `tables`, as `psreid synth` writes them.
    """

    data: str | None = None
    """Folder of the benchmark; only `table` without `run` goes without one."""
    out: str | None = None
    """Folder of the results; by default a folder of DATA/evaluations that is named after the settings."""
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("tiny",)
    """Model that is measured, a name or the path of a saved one; for a table one for each seed."""
    gallery: tuple[str, ...] = ()
    """Galleries to report, such as TestG100; empty means all of the table (for `floor`: TestG100)."""
    ranking: Literal["judge", "recall", "histogram"] = "judge"
    """What ranks: the judge frames, by its score; the person encoder (the recall stage) or a colour histogram the
    persons of the frames, by cosine."""
    modality: Annotated[tuple[Modality, ...], Field(min_length=1)] = ("both",)
    """What is left of each query: as it is, its image alone, its text alone. Several are measured in one pass."""
    detections: str | None = None
    """Frames folder whose persons are shown to the model; by default the benchmark's own, that is, the true boxes."""
    attention: Literal["joint", "separated"] | None = None
    """`joint` is the paper's; `separated` computes each frame once for all queries; by default as in training."""
    threshold: float = 0.0
    """Scores above it are a match; a score is logit[SEG] - logit[REJ]."""

    calibrated: str | None = None
    """Local folder for a copy of the model whose scores are shifted so that 0 gives the best gIoU in the gallery."""

    rule: Rule = Rule.PSREID
    """Which pairs count for gIoU and cIoU: `psreid` those with the person or accepted, `gres` every pair."""
    min_mask_px: Annotated[int, Field(ge=0)] = 0
    """A mask of fewer pixels counts as a reject (papers on referring segmentation use 50)."""
    resamples: Annotated[int, Field(ge=1)] = 1000
    """Bootstrap resamples of the queries behind the 95 % intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides the bootstrap."""
    worst: Annotated[int, Field(ge=0)] = 24
    """Queries on the page of the worst; 0 writes no page."""

    table: Literal[2, 3, 4, 5] | None = None
    """Table of the paper to print beside our results."""
    run: bool = False
    """Whether the table's variants are run on DATA; without it stored results are printed."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of the variants that are trained, tables 3 and 5."""
    training: str | None = None
    """YAML file with the training settings that all variants of tables 3 and 5 share."""
    results: str | None = None
    """Folder of the tables' stored results; by default the package's own."""

    judge_actors: Annotated[int, Field(ge=1)] | None = None
    """Workers that judge; by default every core of this machine judges and draws masks in turn, and on a cluster or
    with `gpus_per_actor` there is one for each core or GPU."""
    segment_actors: Annotated[int, Field(ge=1)] | None = None
    """Workers that draw masks, at most; by default half as many as judge, and more where a cluster has room."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1.0
    """Cores of one worker; also the threads of its numerical libraries."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one worker; 0 works on the CPU, a fraction shares a GPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format that the judge computes in."""
    targets_per_batch: Annotated[int, Field(ge=1)] = 8
    """Frames judged together, with all their queries."""
    query_cache_mb: Annotated[int, Field(ge=1)] = 1024
    """Memory of one judging worker for encoded queries, MiB."""
    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of frames that may be set aside before the job fails, a fraction of 1; their positives count as missed."""

    @property
    def model(self) -> str:
        """The one model of an evaluation."""
        return self.models[0]

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.data is None and (self.table is None or self.run):
            raise ValueError("DATA is missing: give the folder of a benchmark, such as the OUT of `psreid synth`")
        if self.run and self.table is None:
            raise ValueError("`run` runs the variants of a table; give --table 2, 3, 4 or 5")
        if self.table is None and len(self.models) > 1:
            raise ValueError(f"one model is measured at a time, got {', '.join(self.models)}; several are for --table")
        if self.calibrated is not None and self.table is not None:
            raise ValueError("`calibrated` is for the evaluation of one model, not for a table")
        if self.calibrated is not None and (self.ranking, len(self.gallery), len(self.modality)) != ("judge", 1, 1):
            raise ValueError("`calibrated` needs the judge, one --gallery and one --modality to set the scores by")
        if len(set(self.modality)) < len(self.modality):
            raise ValueError(f"each modality once, got {', '.join(self.modality)}")
        return self
