"""Settings of `psreid train foundation`."""

from typing import Annotated, Literal

from pydantic import Field

from workflows.config import StepConfig


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
    sam_every: Annotated[int, Field(ge=1)] = 6
    """SAM's own task joins every so many steps."""
    checkpoint_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds between checkpoints."""
    only_boxes: bool = False
    """Whether only SAM's own task is trained, every step: it shares nothing with the rest and may run beside it."""
    sam_from: str | None = None
    """A trained model whose SAM the run starts, or goes on, with."""
    threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads of the computation."""
    start_from: str | None = None
    """A trained model of the same preset whose weights the run starts from; None starts from random ones."""
