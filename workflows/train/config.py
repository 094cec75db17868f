"""Settings of `psreid train foundation` and `psreid train psreid`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflows.config import StepConfig
from workflows.tracking.config import TrackedConfig


class FoundationConfig(StepConfig):
    """What to train on, which model, and for how long."""

    what: Literal["foundation"] = "foundation"
    """What to train: the foundation, a small model whole."""
    frames: list[str]
    """Frames folders with identities, masks and texts (`psreid synth` writes them at OUT/tables/frames)."""
    out: str
    """Local folder of the run: checkpoint, figures, and the model at OUT/model."""
    preset: str = "tiny"
    """Preset whose sizes the model gets."""
    steps: Annotated[int, Field(ge=1)] = 4000
    """Optimizer steps of the whole run; the learning rate falls to a fiftieth at the last."""
    seed: int = 0
    """Decides the weights at the start, what each step draws and how it is augmented."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest rate of AdamW."""
    identities_per_step: Annotated[int, Field(ge=2)] = 8
    """P: identities queried in one step, each by two queries."""
    targets_per_identity: Annotated[int, Field(ge=1)] = 2
    """K: frames per queried identity beside the query's own."""
    contrast_identities: Annotated[int, Field(ge=2)] = 64
    """Identities in the batch of person crops."""
    pairs_every: Annotated[int, Field(ge=1)] = 3
    """The paper's objective runs every so many steps; the steps between contrast queries with person crops."""
    pairs_from_step: Annotated[int, Field(ge=0)] = 1000
    """Until this step crops alone are contrasted: without a metric, pairs have nothing to go by."""
    captions_every: Annotated[int, Field(ge=1)] = 3
    """The language model describes person crops every so many steps."""
    sam_every: Annotated[int, Field(ge=1)] = 6
    """SAM's own task joins every so many steps."""
    checkpoint_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds between checkpoints."""
    only_boxes: bool = False
    """Whether only SAM's own task is trained, every step: it shares nothing with the rest and may run beside it."""
    sam_from: str | None = None
    """A trained model whose SAM the run starts with, with its size and zoom."""
    vision_from: str | None = None
    """A trained model of the same preset whose vision encoder the run starts with."""
    threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads of the computation."""
    start_from: str | None = None
    """A trained model of the same preset whose weights the run starts from; None starts from random ones."""
    metric_source: str | None = None
    """An instruct-ReID model (name or folder) that becomes the metric, as it is; every step then trains on pairs."""
    joins_found: bool = False
    """Gives a start model that lacks it the joining of found persons to decision states; fresh models have it."""


Part = Literal[
    "query_adapter", "target_adapter", "place", "control_tokens", "lora", "mask_prompt", "mask_decoder", "metric",
    "hint", "grounding", "box_head", "vision", "language", "sam_encoder",
]  # fmt: skip
"""A part of the model that a stage may train; `vision`, `language` and `sam_encoder` are frozen in the paper."""
ADAPTERS: tuple[Part, ...] = ("query_adapter", "target_adapter", "place")
FINE_TUNED: tuple[Part, ...] = (
    "lora", "mask_decoder", "mask_prompt", "control_tokens", "metric", "hint", "grounding", "box_head",
)  # fmt: skip


class StageConfig(StepConfig):
    """One of the two stages of §V-A.4."""

    steps: Annotated[int, Field(ge=0)]
    """Optimizer steps; 0 leaves the stage out."""
    trains: Annotated[tuple[Part, ...], Field(min_length=1)]
    """Parts that learn, the rest is frozen (Table III compares such sets); parts that a model lacks are passed over."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Of AdamW, after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate rises from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate goes on: as it is (the paper), or down to a fiftieth at the stage's last step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of matrices; vectors and scales never decay."""


class AdapterStage(StageConfig):
    """The first stage."""

    steps: Annotated[int, Field(ge=0)] = 1000
    """Optimizer steps; 0 leaves the stage out."""
    trains: Annotated[tuple[Part, ...], Field(min_length=1)] = ADAPTERS
    """Parts that learn, the rest is frozen; parts that a model lacks are passed over."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Of AdamW, after the warm-up."""


class FineTuningStage(StageConfig):
    """The second stage."""

    steps: Annotated[int, Field(ge=0)] = 1000
    """Optimizer steps; 0 leaves the stage out."""
    trains: Annotated[tuple[Part, ...], Field(min_length=1)] = FINE_TUNED
    """Parts that learn, the rest is frozen; parts that a model lacks are passed over."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-5
    """Of AdamW, after the warm-up."""


class LossConfig(StepConfig):
    """Weights of the loss terms (eq. 8, 9 and 13): weighted BCE 2, everything else 1 in the paper."""

    reid: Annotated[float, Field(ge=0)] = 1.0
    """λ_reid of eq. 9."""
    text: Annotated[float, Field(ge=0)] = 1.0
    """Of the answer's cross-entropy (eq. 12), here of the one word that decides; in the paper's mean over an answer of
    L words that word weighs 1 / L."""
    wbce: Annotated[float, Field(ge=0)] = 2.0
    """λ_wbce of eq. 13, weighted binary cross-entropy of the mask."""
    dice: Annotated[float, Field(ge=0)] = 1.0
    """λ_dice of eq. 13."""
    smooth_l1: Annotated[float, Field(ge=0)] = 1.0
    """λ_smooth of eq. 13."""
    ciou: Annotated[float, Field(ge=0)] = 1.0
    """λ_ciou of eq. 13."""
    metric: Annotated[float, Field(ge=0)] = 1.0
    """Of query against close-ups in the metric space (ours)."""
    grounding: Annotated[float, Field(ge=0)] = 1.0
    """Of the pointer to the right close-up (ours)."""
    tau: Annotated[float, Field(gt=0)] = 0.1
    """τ of eq. 9, the sharpness of the margin."""
    negatives: Literal["hard", "literal"] = "hard"
    """How eq. 11 weighs negatives: towards small distances (the paper's words), or as its formula is printed."""
    foreground: Annotated[float, Field(ge=1)] = 3.0
    """How much more a foreground pixel weighs in the weighted BCE."""


class PsReidTrainConfig(TrackedConfig):
    """What to train on, from which model, in which stages, on which workers."""

    what: Literal["psreid"] = "psreid"
    """What to train: PS-ReID, in the paper's two stages."""
    frames: Annotated[list[str], Field(min_length=1)]
    """Frames folders with identities, masks and texts (`psreid synth` writes them at OUT/tables/frames)."""
    out: str
    """Folder of the run: checkpoints, figures, and the model at OUT/model."""
    start_from: str | None = None
    """A saved model (name or folder) whose weights the run starts from; None: the preset's, see there."""
    preset: str = "tiny"
    """Without start_from: `tiny` starts from the shipped weights, `7b` and `13b` load the published weights."""
    attention: Literal["joint", "separated"] | None = None
    """The attention it learns to judge under; by default the start model's."""
    fresh: tuple[Part, ...] = ()
    """Parts that begin with random weights all the same, as all that is not published does in the paper."""
    joins_found: bool = False
    """Gives a start model that lacks it the joining of found persons to decision states."""
    adds_evidence: bool | None = None
    """Whether the metric's evidence is added to the score; by default as in the start model. Without it the decision
    states alone decide, as in the paper, so that an ablation shows what they learned."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides what each step draws, how it is augmented, and which identities are held out."""
    stage1: AdapterStage = AdapterStage()
    """The adapters from scratch (§V-A.4)."""
    stage2: FineTuningStage = FineTuningStage()
    """LoRA, mask decoder, prompt projection and the control tokens' rows."""
    losses: LossConfig = LossConfig()
    """Weights of the loss terms."""
    identities_per_step: Annotated[int, Field(ge=2)] = 3
    """P: identities queried in one batch."""
    targets_per_identity: Annotated[int, Field(ge=1)] = 2
    """K - 1: frames per queried identity beside the query's own."""
    other_targets: Annotated[int, Field(ge=0)] = 0
    """Frames per batch that need not show a queried identity."""
    query_variants: Annotated[int, Field(ge=1)] = 2
    """Queries per identity, each with its own crop and modality (image, text or both)."""
    mask_frames: Annotated[int, Field(ge=1)] = 2
    """Targets per batch whose masks are supervised; SAM's encoder runs on each."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before LoRA's matrices; with 0 the loss curve does not depend on the number of workers."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Batches per optimizer step; their losses are averaged."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: matrix products in bfloat16, frozen weights kept in it, trained weights in float32."""
    recompute_activations: bool = False
    """Whether the language model's layers are computed again in the backward pass instead of kept in memory."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share every batch: each takes its share of the targets with all queries."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """0 computes on CPUs (gloo), 1 on GPUs (NCCL)."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Logical CPUs reserved for a worker; on CPUs also its threads, rounded down."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 0 replicates, 1 shares optimizer states, 2 also gradients, 3 also weights."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""
    report_every: Annotated[int, Field(ge=1)] = 20
    """Steps between reports to Ray Train (and so to Ray Tune)."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times that dead workers are replaced before the run gives up."""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of identities that training never queries and the evaluation does."""
    eval_queries: Annotated[int, Field(ge=0)] = 24
    """Held-out identities queried by the evaluation; 0 leaves it out."""
    eval_gallery: Annotated[int, Field(ge=2)] = 48
    """Frames that each of them is looked for in."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations; 0 evaluates at the end alone."""
    export_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the weights at OUT/model."""
    register_as: str | None = None
    """Registered model of MLflow that the result becomes a version of, and its champion where it is the best."""

    @model_validator(mode="after")
    def _check_shares(self) -> "PsReidTrainConfig":
        if self.workers > self.targets:
            raise ValueError(
                f"{self.workers} workers cannot share {self.targets} targets per batch; lower workers, or raise "
                "identities_per_step, targets_per_identity or other_targets"
            )
        if -(-self.mask_frames // self.workers) > self.targets // self.workers:
            raise ValueError(
                f"mask_frames is {self.mask_frames}, more than {self.workers} workers can spread over "
                f"{self.targets} targets; lower mask_frames"
            )
        if not self.stage1.steps + self.stage2.steps:
            raise ValueError("stage1.steps and stage2.steps are both 0: nothing would be trained")
        return self

    @property
    def targets(self) -> int:
        """Targets of one batch."""
        return self.identities_per_step * self.targets_per_identity + self.other_targets
