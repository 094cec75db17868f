"""Trains IRM or IRM++ in one process: a loop that starts, or continues from the folder's checkpoint.

The parts of a step (`make_objective`, `make_batcher`, `make_optimizer`, `learning_rate`) are functions, so that a
distributed trainer runs the same step. A checkpoint is written to a new file and renamed; what a step draws depends on
its number alone.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modeling.errors import ConfigError
from modeling.instruct_reid.attributes import describe_attributes
from modeling.instruct_reid.checkpoint import build_irm, load_irm, save_irm, with_instructions_of, with_kind
from modeling.instruct_reid.config import IrmConfig, Kind, named_preset
from modeling.instruct_reid.instructions import SENTENCES
from modeling.instruct_reid.irm import Irm
from modeling.instruct_reid.objective import IrmBatch, IrmLossSettings, IrmLossTerms, IrmObjective
from modeling.ps_reid.vocabulary import train_tokenizer
from workflows.train.engine import BETAS
from workflows.train.irm_batching import ReidBatcher
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.irm_sampler import TaskSampler
from workflows.train.irm_samples import ReidSamples

logger = logging.getLogger(__name__)

STATE_FILE, FIGURES_FILE, MODEL_FOLDER = "state.pt", "figures.jsonl", "model"
CLIP_NORM = 1.0
EXPORT_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}


def make_objective(config: IrmTrainConfig, samples: ReidSamples) -> IrmObjective:
    """The model, fresh or from `start_from`, with what training needs beside it."""
    torch.manual_seed(config.seed)
    irm = _started_irm(config) if config.start_from else _fresh_irm(config, samples)
    if config.instructions_from is not None:
        irm = with_instructions_of(irm, load_irm(config.instructions_from))
    num_classes = int(samples.classes(config.classes).max()) + 1
    return IrmObjective(irm, num_classes, IrmLossSettings(**config.losses.model_dump()))


def make_batcher(config: IrmTrainConfig, samples: ReidSamples, irm: Irm) -> ReidBatcher:
    """The step's batches as the settings want them."""
    return ReidBatcher(
        samples, irm, seed=config.seed, augment_strength=config.augment_strength, crop_jitter=config.crop_jitter,
        erased_share=config.erased_share, classes=config.classes,
    )  # fmt: skip


def _started_irm(config: IrmTrainConfig) -> Irm:
    """The weights of `start_from`, as the kind of model that the run trains."""
    assert config.start_from is not None
    irm, kind = load_irm(config.start_from), named_preset(config.preset, _kind(config))
    edits = kind.edits if config.edits is None else config.edits
    return with_kind(irm, _kind(config), edits=edits)


def _kind(config: IrmTrainConfig) -> Kind:
    return "irm" if config.what == "irm" else "irm++"


def model_config(config: IrmTrainConfig) -> IrmConfig:
    """The preset with the weights and switches that the run asks for."""
    chosen = named_preset(config.preset, _kind(config))
    image, instruction = chosen.image, chosen.instruction
    if config.image_weights is not None:
        image = image.model_copy(update={"source": config.image_weights})
    if config.instruction_weights is not None:
        instruction = instruction.model_copy(update={"source": config.instruction_weights})
    edits = chosen.edits if config.edits is None else config.edits
    return chosen.model_copy(update={"image": image, "instruction": instruction, "edits": edits})


def make_optimizer(objective: nn.Module, config: IrmTrainConfig) -> torch.optim.AdamW:
    """AdamW as in §V-B; matrices decay, vectors, gates and positions do not."""
    trained = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS)


def learning_rate(step: int, config: IrmTrainConfig) -> float:
    """The rate of a step (0-based): linear warm-up from a hundredth, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (0.01 + 0.99 * step / config.warmup_steps)
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def figures_of(task: str, terms: IrmLossTerms) -> dict[str, float]:
    """The terms that a step has, named by task."""
    values = {field.name: getattr(terms, field.name).item() for field in fields(terms)}
    return {f"{task}/{name}": value for name, value in values.items() if value} | {"loss": terms.total.item()}


class IrmRun:
    """One run in one folder."""

    def __init__(
        self, config: IrmTrainConfig, samples: ReidSamples, *, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self._config, self._on_step = config, on_step
        self._folder = Path(config.out).expanduser().resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self.objective = self._initial(samples)
        self._optimizer = make_optimizer(self.objective, config)
        self._sampler = TaskSampler(
            samples, config.tasks, identities_per_step=config.identities_per_step,
            pictures_per_identity=config.pictures_per_identity, seed=config.seed, shares=config.task_shares,
        )  # fmt: skip
        self._batcher = make_batcher(config, samples, self.objective.irm)
        self.tasks = self._sampler.tasks
        self._step = self._restore()

    @property
    def step(self) -> int:
        """Steps done: those of the checkpoint at first."""
        return self._step

    def run(self) -> Irm:
        """Trains to the last step and leaves the model in OUT/model."""
        torch.set_num_threads(self._config.threads)
        self.objective.train()
        figures: dict[str, float] = {}
        last_save, started = time.monotonic(), time.monotonic()
        for number, batch in self._prefetched():
            figures |= self.train_step(number, batch)
            self._step = number + 1
            self._on_step()
            if self._step % self._config.log_every == 0:
                self._log(figures, started)
                started = time.monotonic()
            if time.monotonic() - last_save > self._config.checkpoint_s:
                self.save()
                last_save = time.monotonic()
        self.save()
        return self.objective.irm.eval()

    def train_step(self, number: int, batch: IrmBatch) -> dict[str, float]:
        """One optimizer step; the terms by task."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(number, self._config)
        self._optimizer.zero_grad(set_to_none=True)
        if number >= self._config.settles_at:
            self.objective.settle()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._config.precision == "bf16"):
            terms: IrmLossTerms = self.objective(batch)
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), CLIP_NORM)
        self._optimizer.step()
        return figures_of(batch.task, terms)

    def save(self) -> None:
        """Writes the model as search and evaluation load it, then the state to resume from."""
        save_irm(self.objective.irm, self._folder / MODEL_FOLDER, dtype=EXPORT_DTYPES[self._config.export_dtype])
        state = {
            "step": self._step, "objective": self.objective.state_dict(), "optimizer": self._optimizer.state_dict()
        }  # fmt: skip
        temporary = self._folder / f".{STATE_FILE}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self._folder / STATE_FILE)  # noqa: PTH105

    def _prefetched(self) -> Iterator[tuple[int, IrmBatch]]:
        """Batches of the steps to do, the next one made in a thread while this one is computed."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._make, self._step)
            for number in range(self._step, self._config.steps):
                batch = coming.result()
                coming = pool.submit(self._make, number + 1)
                yield number, batch

    def _make(self, number: int) -> IrmBatch:
        return self._batcher.batch(self._sampler.draw(number), number)

    def _initial(self, samples: ReidSamples) -> IrmObjective:
        """A run that continues takes its own tokenizer, whatever the samples are now."""
        saved = self._folder / MODEL_FOLDER
        if (self._folder / STATE_FILE).exists():
            going_on = {"start_from": str(saved), "instructions_from": None}
            return make_objective(self._config.model_copy(update=going_on), samples)
        return make_objective(self._config, samples)

    def _restore(self) -> int:
        file = self._folder / STATE_FILE
        if not file.exists():
            return 0
        state: Mapping[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
        try:
            self.objective.load_state_dict(state["objective"])  # type: ignore[arg-type]
            self._optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{file} belongs to another config or other frames ({error}); give another folder to start afresh"
            ) from error
        logger.info("continuing at step %s of %d", state["step"], self._config.steps)
        return int(state["step"])

    def _log(self, figures: Mapping[str, float], started: float) -> None:
        seconds = (time.monotonic() - started) / self._config.log_every
        row = {"step": self._step, "seconds_per_step": round(seconds, 3)} | {k: round(v, 4) for k, v in figures.items()}
        with (self._folder / FIGURES_FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
        logger.info("%s", row)


def _fresh_irm(config: IrmTrainConfig, samples: ReidSamples) -> Irm:
    """Random or published weights; where no published tokenizer is named, one learned from the texts."""
    chosen = model_config(config)
    if chosen.instruction.tokenizer is not None:
        return build_irm(chosen)
    sentences = [text for text in samples.texts[:20_000] if text]
    sentences += [sentence for pool in SENTENCES.values() for sentence in pool]
    sentences += _attribute_sentences(samples)
    return build_irm(chosen, tokenizer=train_tokenizer(sentences, vocabulary_size=chosen.instruction.vocabulary_size))


def _attribute_sentences(samples: ReidSamples) -> list[str]:
    described = sorted(samples.attributes.items())
    return [describe_attributes(words, np.random.default_rng(number)) for number, words in described]
