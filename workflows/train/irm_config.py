"""Settings of `psreid train irm` and `psreid train irmpp`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from modeling.instruct_reid.instructions import TASKS, Task, named_task
from workflows.config import StepConfig

ClassesBy = Literal["identity", "clothes"]


class IrmLosses(StepConfig):
    """Weights and forms of the losses; the paper's where it names them."""

    alpha: Annotated[float, Field(ge=0)] = 3.0
    """Weight of the adaptive triplet loss (eq. 9)."""
    beta: Annotated[float, Field(ge=0)] = 5.0
    """Weight of the hard label loss (eq. 14)."""
    margin: Annotated[float, Field(ge=0)] = 0.3
    """Largest margin of the triplet loss, between unit vectors (eq. 7)."""
    mining: Literal["hard", "all"] = "hard"
    """Each anchor's worst triplet, or the mean of all."""
    is_adaptive: bool = True
    """Whether instructions decide the margin; false is the plain triplet loss."""
    supervision: Literal["memory", "triplet"] = "memory"
    """What IRM++ learns from beside identities: memory banks (eq. 14), or triplets (the baseline IRM*)."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Sharpness of the softmax over a memory bank; the paper has none, that is 1."""
    kl_form: Literal["kl", "printed"] = "kl"
    """Eq. 12 and 13 as a divergence, or with the fraction as printed."""
    contrast_temperature: Annotated[float, Field(gt=0)] = 0.07
    """Sharpness of the contrastive loss of T2I (eq. 10)."""
    in_batch: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the same loss between the queries and gallery pictures of a batch (ours); it is what random weights
    learn by first."""
    attributes: Annotated[float, Field(ge=0)] = 0.0
    """Weight of naming attributes from features (ours), where the frames' wardrobe has them."""


class IrmTrainConfig(StepConfig):
    """What to train on, which model, and for how long."""

    what: Literal["irm", "irmpp"]
    """irm: IRM, whose gallery listens to instructions; irmpp: IRM++, whose gallery is encoded once for all tasks."""
    frames: list[str]
    """Frames folders with identities (`psreid synth` writes them at OUT/tables/frames)."""
    out: str
    """Local folder of the run: checkpoint, figures, and the model at OUT/model."""
    preset: str = "tiny"
    """Sizes of the model: tiny, or base (the paper's)."""
    image_weights: str | None = None
    """Published ViT or PASS weights; by default the preset's."""
    instruction_weights: str | None = None
    """An ALBEF checkpoint or BLIP folder; by default the preset's."""
    edits: bool | None = None
    """Whether the image encoder listens to instructions (eq. 3-6); by default IRM yes, IRM++ no."""
    tasks: tuple[Task, ...] = TASKS
    """All of them is multi-task learning, one is single-task learning. Tasks the data cannot ask are left out."""
    task_shares: dict[Task, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Steps that a task has in each round of tasks, where it is not one: more for those that are learned slowly."""
    steps: Annotated[int, Field(ge=1)] = 4000
    """Optimizer steps of the whole run, over all tasks."""
    identities_per_step: Annotated[int, Field(ge=2)] = 32
    """P: identities of one step, over all workers."""
    classes: ClassesBy = "identity"
    """What the losses tell apart: identities (the paper), or identities in one set of clothes (ours), as all tasks but
    CC ask; whoever changes clothes is then no reason to take two sets for one."""
    pictures_per_identity: Annotated[int, Field(ge=2)] = 4
    """K: pictures of each; half of them are queries."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Highest rate of AdamW; 1e-5 is the paper's for pretrained weights, random ones need about 1e-3."""
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    """Steps over which the rate rises linearly from a hundredth."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: as it is (the paper), or falling to a fiftieth at the last step."""
    settled_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the steps, the last ones, in which batch norms of a stem keep their statistics."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of AdamW."""
    augment_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Changes of light, colour and sharpness beside cropping, flipping and erasing; 0 is the paper's."""
    crop_jitter: Annotated[float, Field(ge=0, le=0.25)] = 0.12
    """Each edge of a person's box moves by up to this share of its side. A head is an eighth of the height: what a
    random crop cuts off is not learned."""
    erased_share: Annotated[float, Field(ge=0, le=1)] = 0.35
    """Crops of which a part is covered (random erasing)."""
    gap_s: Annotated[float, Field(ge=0)] = 0.5
    """Of each track one picture in every so many seconds is used."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: matrix products in bfloat16, weights and optimizer in float32."""
    export_dtype: Literal["float32", "float16", "int8"] = "float16"
    """Number format of the saved model's matrices; int8 has a scale for each row."""
    seed: int = 0
    """Decides the weights at the start, what each step draws and how it is augmented."""
    losses: IrmLosses = IrmLosses()
    """Weights and forms of the losses."""
    start_from: str | None = None
    """A trained model whose weights the run starts from; IRM and IRM++ may start from each other."""
    instructions_from: str | None = None
    """A trained model whose instruction encoder the run takes: words are learned once for any image encoder."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Ray Train processes that share each step's identities; 0 trains in this process, without Ray."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Cores of a worker, and its threads."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """0: CPUs and gloo, 1: a GPU each and NCCL."""
    zero_stage: Annotated[int, Field(ge=0, le=2)] = 0
    """DeepSpeed ZeRO: what of the optimizer's state and gradients is split over workers."""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of identities that are not trained on, for the evaluation of a run; 0 trains on all and has none."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations on held-out identities; 0: at the end only."""
    report_every: Annotated[int, Field(ge=1)] = 20
    """Steps between reports to Ray Train; a report holds all workers up for a moment."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    """Steps between checkpoints."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """How often workers that die are replaced before the run fails; -1: always."""
    checkpoint_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds between checkpoints, with workers 0."""
    log_every: Annotated[int, Field(ge=1)] = 20
    """Steps between rows of OUT/figures.jsonl, with workers 0."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of the computation, with workers 0."""

    @property
    def settles_at(self) -> int:
        """The first step (0-based) with settled batch norms."""
        return self.steps - round(self.settled_share * self.steps)

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Names of tasks in any case."""
        return tuple(named_task(str(name)) for name in value) if isinstance(value, list | tuple) else value

    @field_validator("task_shares", mode="before")
    @classmethod
    def _named_shares(cls, value: object) -> object:
        return {named_task(str(name)): share for name, share in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _even(self) -> "IrmTrainConfig":
        if self.pictures_per_identity % 2:
            raise ValueError(
                f"pictures_per_identity is {self.pictures_per_identity}: it must be even, half are queries"
            )
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks are {self.tasks}: name at least one, and none twice")
        if idle := sorted(set(self.task_shares) - set(self.tasks)):
            raise ValueError(f"task_shares names {', '.join(idle)}, which tasks ({', '.join(self.tasks)}) leaves out")
        if self.workers and self.identities_per_step % self.workers:
            raise ValueError(
                f"identities_per_step is {self.identities_per_step}: {self.workers} workers cannot share it evenly"
            )
        return self
