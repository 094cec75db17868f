"""The prompt template (§IV-B.1, eq. 5): which tokens a pair's sequence is made of, and at which positions.

    system · query image · query text · [QRY]  |  target image (· close-ups)  |  question → [SEG] or [REJ]
    └────────────── query span ─────────────┘     └───── target span ─────┘     └─ decision span ─┘

A missing query image or text drops its part. The query comes first, so its span depends on no target. The state at the
question's last token predicts the control token: it is both the decision and the [SEG] embedding, in one prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from modeling.errors import WeightsError
from modeling.ps_reid.config import PromptConfig


@dataclass(frozen=True)
class PromptTemplate:
    """Token ids of the fixed parts, and how a query's text becomes ids."""

    tokenizer: PreTrainedTokenizerBase
    system_ids: Tensor
    question_ids: Tensor
    max_text_tokens: int

    @classmethod
    def build(cls, tokenizer: PreTrainedTokenizerBase, config: PromptConfig) -> "PromptTemplate":
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        system = bos + tokenizer(config.system, add_special_tokens=False)["input_ids"]
        question = tokenizer(config.question, add_special_tokens=False)["input_ids"]
        return cls(tokenizer, torch.tensor(system), torch.tensor(question), config.max_text_tokens)

    def text_ids(self, text: str | None) -> Tensor:
        """Ids of a query's description, cut at `max_text_tokens`; empty for a missing or blank text."""
        if not text or not text.strip():
            return torch.zeros(0, dtype=torch.long)
        ids = self.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        return torch.tensor(ids[: self.max_text_tokens], dtype=torch.long)

    @property
    def end_id(self) -> int:
        """What ends an answer. Raises WeightsError for a tokenizer without an end token."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise WeightsError("the language model's tokenizer names no eos_token; add it to tokenizer_config.json")
        return int(end)

    def longest_query(self, num_image_tokens: int) -> int:
        """Tokens of the longest query span: where target spans begin in separated mode."""
        return len(self.system_ids) + num_image_tokens + self.max_text_tokens + 1


def pad_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (T_i, D) as one (B, T, D), zeros at the end, and which tokens are real (B, T)."""
    lengths = torch.tensor([len(r) for r in rows], device=rows[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
