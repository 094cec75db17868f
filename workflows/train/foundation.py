"""Trains a small PS-ReID whole, from random weights: what published CLIP, LLaVA and SAM weights give the large presets.

One loop, four tasks in turn, one optimizer: contrast of queries with person crops, captions of such crops, the paper's
objective on every query × every target (eq. 8), whose queries by text are referring expressions, and SAM's promptable
segmentation. A checkpoint is written to a new file and renamed, so a killed run goes on from the last one; what a step
draws depends on its number alone.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from modeling.errors import ConfigError
from modeling.ps_reid.build import build_model, with_finding, with_metric, with_segmentation, with_vision
from modeling.ps_reid.checkpoint import load_model, load_segmentation, read_model_config, save_model
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.instruct_metric import InstructMetric
from modeling.ps_reid.losses import LossWeights
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import box_prompted_masks, captioning, crop_contrast, training_step
from modeling.ps_reid.vocabulary import train_tokenizer
from workflows.tracking.registry import local_model
from workflows.train.batching import Batcher, Boxes, Captions, Crops, Pairs
from workflows.train.pacing import pair_figures
from workflows.train.samples import Sampler, Samples

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
FIGURES_FILE = "figures.jsonl"
SEED_STRIDE = 1_000_003


@dataclass(frozen=True, kw_only=True)
class FoundationPlan:
    """The numbers of a run."""

    steps: int
    seed: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    identities_per_step: int = 8
    targets_per_identity: int = 2
    contrast_identities: int = 64
    pairs_every: int = 3
    """The paper's objective runs every so many steps; the steps between contrast queries with person crops."""
    pairs_from_step: int = 0
    """Until this step crops alone are contrasted: without a metric, pairs have nothing to go by."""
    captions_every: int = 3
    """The language model describes crops every so many steps."""
    sam_every: int = 6
    """SAM's own task joins every so many steps."""
    only_boxes: bool = False
    """Whether only SAM's own task is trained."""
    threads: int = 2
    """CPU threads of the computation."""
    checkpoint_s: float = 300.0
    log_every: int = 20


@dataclass(frozen=True, kw_only=True)
class Start:
    """Models, by name or folder, that a run starts from."""

    model: str | None = None
    """The whole; None: random weights."""
    metric: str | None = None
    """The instruct-ReID model that becomes the metric."""
    sam: str | None = None
    """A PS-ReID whose SAM is taken, with its size and zoom."""
    vision: str | None = None
    """A PS-ReID whose vision encoder is taken."""
    joins_found: bool = False
    """Whether a model without it gets the joining of what was found to its decision states."""


@dataclass(frozen=True)
class Batch:
    """What one step is computed from."""

    main: Pairs | Crops | None
    captions: Captions | None
    boxes: Boxes | None


class FoundationRun:
    """One run in one folder: starts, or continues from the folder's checkpoint."""

    def __init__(
        self,
        folder: Path,
        config: PsReidConfig,
        samples: Samples,
        plan: FoundationPlan,
        *,
        start: Start = Start(),
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._plan, self._on_step = folder, plan, on_step
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        self.model = self._initial_model(config, samples, start)
        self._optimizer = torch.optim.AdamW(
            _groups(self.model, plan.weight_decay), lr=plan.learning_rate, betas=(0.9, 0.98)
        )
        self._sampler = Sampler(
            samples,
            identities_per_step=plan.identities_per_step,
            targets_per_identity=plan.targets_per_identity,
            contrast=plan.contrast_identities,
            seed=plan.seed,
        )
        self._batcher = Batcher(samples, self.model, seed=plan.seed)
        self._metric_is_fixed = isinstance(self.model.metric, InstructMetric)  # crops alone have nothing to teach it
        self._step = self._restore()

    @property
    def step(self) -> int:
        """Steps done: those of the checkpoint at first."""
        return self._step

    def run(self) -> PsReid:
        """Trains to the plan's last step and leaves the model in `folder/model`."""
        self.model.train()
        torch.set_num_threads(self._plan.threads)
        figures: dict[str, float] = {}
        last_save, started = time.monotonic(), time.monotonic()
        for number, batch in self._prefetched():
            figures |= self._train_step(number, batch)
            self._step = number + 1
            self._on_step()
            if self._step % self._plan.log_every == 0:
                self._log(figures, started)
                started = time.monotonic()
            if time.monotonic() - last_save > self._plan.checkpoint_s:
                self.save()
                last_save = time.monotonic()
        self.save()
        return self.model.eval()

    def save(self) -> None:
        """Writes the model as the search loads it, then the state to resume from."""
        self.model.eval()
        save_model(self.model, self._folder / "model", dtype=torch.float16)
        self.model.train()
        state = {"step": self._step, "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}
        temporary = self._folder / (STATE_FILE + ".new")
        torch.save(state, temporary)
        temporary.replace(self._folder / STATE_FILE)

    # ---- one step

    def _train_step(self, number: int, batch: Batch) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate * _schedule(number, self._plan)
        self._optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(self._plan.seed * SEED_STRIDE + number)  # dropout follows from the step too
        figures: dict[str, float] = {}
        if isinstance(batch.main, Pairs):
            figures |= self._pairs_backward(batch.main)
        elif batch.main is not None:
            figures["contrast"] = self._contrast_backward(batch.main)
        if batch.captions is not None:
            figures["caption"] = self._caption_backward(batch.captions)
        if batch.boxes is not None and len(batch.boxes.boxes):
            figures["sam"] = self._sam_backward(batch.boxes)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        figures["gradient_norm"] = float(norm)
        if math.isfinite(figures["gradient_norm"]):
            self._optimizer.step()
        return figures

    def _pairs_backward(self, pairs: Pairs) -> dict[str, float]:
        weights = LossWeights()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = training_step(self.model, pairs.queries, pairs.targets, pairs.truth, weights)
            total = output.terms.total(weights)
        total.backward()
        figures = {f.name: getattr(output.terms, f.name).item() for f in fields(output.terms)}
        return figures | pair_figures(output.decisions.scores_NQ.detach(), pairs.truth.is_positive_NQ)

    def _contrast_backward(self, crops: Crops) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = crop_contrast(self.model, crops.queries, crops.crops, crops.is_same)
        loss.backward()
        return loss.item()

    def _caption_backward(self, captions: Captions) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = captioning(self.model, captions.crops, captions.text_ids)
        loss.backward()
        return loss.item()

    def _sam_backward(self, boxes: Boxes) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = boxes.pictures
            loss = box_prompted_masks(self.model, seen.pixels_F3SS, seen.picture_A, boxes.boxes, seen.masks_Ahw)
        loss.backward()
        return loss.item()

    # ---- around it

    def _prefetched(self) -> Iterator[tuple[int, Batch]]:
        """Batches of the steps to do, the next one made in a thread while this one is computed."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._make, self._step)
            for number in range(self._step, self._plan.steps):
                batch = coming.result()
                coming = pool.submit(self._make, number + 1)
                yield number, batch

    def _make(self, number: int) -> Batch:
        draw, plan = self._sampler.draw(number), self._plan
        has_pairs = self._metric_is_fixed or (number >= plan.pairs_from_step and number % plan.pairs_every == 0)
        has_boxes = plan.only_boxes or number % plan.sam_every == plan.sam_every - 1
        has_captions = number % plan.captions_every == plan.captions_every - 1
        if plan.only_boxes:
            return Batch(main=None, captions=None, boxes=self._batcher.boxes(draw, number))
        return Batch(
            main=self._batcher.pairs(draw, number) if has_pairs else self._batcher.crops(draw, number),
            captions=self._batcher.captions(draw, number) if has_captions else None,
            boxes=self._batcher.boxes(draw, number) if has_boxes else None,
        )

    def _initial_model(self, config: PsReidConfig, samples: Samples, start: Start) -> PsReid:
        """A run that continues takes its own parts and tokenizer, whatever the start and the samples are now."""
        if (self._folder / STATE_FILE).exists():
            return load_model(str(self._folder / "model"))
        model = load_model(local_model(start.model)) if start.model else _fresh_model(config, samples)
        if start.vision:
            other = local_model(start.vision)
            model = with_vision(model, load_model(other).vision, read_model_config(other).vision)
        if start.sam:
            other = local_model(start.sam)
            model = with_segmentation(model, load_segmentation(other), read_model_config(other).segmentation)
        model = with_finding(model) if start.joins_found else model
        return with_metric(model, local_model(start.metric)) if start.metric else model

    def _restore(self) -> int:
        file = self._folder / STATE_FILE
        if not file.exists():
            return 0
        state: Mapping[str, object] = torch.load(file, weights_only=True, map_location="cpu")
        try:
            self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
            self._optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{file} belongs to another config ({error}); give another folder to start afresh"
            ) from error
        logger.info("continuing at step %s of %d", state["step"], self._plan.steps)
        return int(state["step"])  # type: ignore[call-overload]

    def _log(self, figures: Mapping[str, float], started: float) -> None:
        seconds = (time.monotonic() - started) / self._plan.log_every
        row = {"step": self._step, "seconds_per_step": round(seconds, 3)} | {k: round(v, 4) for k, v in figures.items()}
        with (self._folder / FIGURES_FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
        logger.info("%s", row)


def _fresh_model(config: PsReidConfig, samples: Samples) -> PsReid:
    """Random weights, and a tokenizer learned from the texts."""
    sentences = [t for t in samples.texts[:20_000] if t] + [config.prompt.system, config.prompt.question]
    return build_model(config, tokenizer=train_tokenizer(sentences))


def _groups(model: PsReid, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; vectors, scales and embeddings do not."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    for parameter in (*decayed, *plain):
        parameter.requires_grad_(True)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _schedule(step: int, plan: FoundationPlan) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, done))) / 2
