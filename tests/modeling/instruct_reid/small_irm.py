"""A very small instruct-ReID model and instructions for it."""

import numpy as np
import torch

from modeling.instruct_reid.checkpoint import build_irm
from modeling.instruct_reid.config import ImageConfig, InstructionConfig, IrmConfig, Kind
from modeling.instruct_reid.instructions import SENTENCES, Instruction
from modeling.instruct_reid.irm import Irm
from modeling.ps_reid.vocabulary import train_tokenizer

IMAGE = ImageConfig(height_px=32, width_px=16, patch_size=8, width=24, num_layers=2, num_heads=2, mlp_width=48)
WORDS = InstructionConfig(
    vocabulary_size=400, width=16, num_heads=2, mlp_width=32, text_layers=2, picture_layers=1, picture_px=16,
    patch_size=8, max_tokens=24, is_fixed=False,
)  # fmt: skip


def small_irm(
    kind: Kind = "irm++", *, edits: bool = False, seed: int = 0, stripes: int = 0, has_neck: bool = False
) -> Irm:
    torch.manual_seed(seed)
    sentences = [sentence for pool in SENTENCES.values() for sentence in pool]
    config = IrmConfig(
        kind=kind, edits=edits, image=IMAGE.model_copy(update={"stripes": stripes}), instruction=WORDS,
        has_neck=has_neck,
    )  # fmt: skip
    return build_irm(config, tokenizer=train_tokenizer(sentences, vocabulary_size=400))


def some_pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def some_instructions(count: int, seed: int = 0) -> list[Instruction]:
    """Sentences and pictures in turn."""
    rng = np.random.default_rng(seed)
    pool = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return [
        Instruction(image=picture) if n % 2 else Instruction(text=str(rng.choice(pool))) for n in range(count)
    ]  # fmt: skip
