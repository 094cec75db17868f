"""The instruction encoder E_i: sentences and pictures of clothes to tokens of one width.

One class around `transformers`' BLIP towers, which are ALBEF's: a BERT for text and a ViT for pictures. Published
ALBEF checkpoints convert into it exactly (`checkpoint.py`).

Shapes: B instructions, of which some rows are text, the others pictures; T tokens; I width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, PreTrainedTokenizerBase

from modeling.backbones.clip import resize_image
from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.config import InstructionConfig
from modeling.instruct_reid.editing import InstructionTokens
from modeling.instruct_reid.instructions import Instruction


@dataclass(frozen=True)
class InstructionBatch:
    """Instructions as tensors, ready for the encoder."""

    text_rows: Tensor
    """int64: which of the B rows are sentences, in the order of `token_ids`."""
    token_ids: Tensor
    is_token: Tensor
    picture_rows: Tensor
    """int64: which of the B rows are pictures, in the order of `pixels`."""
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.text_rows) + len(self.picture_rows)

    def to(self, device: torch.device | str) -> "InstructionBatch":
        return InstructionBatch(**{name: value.to(device) for name, value in self.__dict__.items()})


class InstructionEncoder(nn.Module):
    """Reads an instruction, whatever it is made of."""

    def __init__(self, config: InstructionConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        if config.width % config.num_heads:
            raise ConfigError(f"width is {config.width}: it must be a multiple of num_heads = {config.num_heads}")
        if len(tokenizer) > config.vocabulary_size:
            raise ConfigError(f"the tokenizer knows {len(tokenizer)} tokens, the encoder only {config.vocabulary_size}")
        self._ends = tuple(
            next((n for n in numbers if n is not None), None)
            for numbers in (
                (tokenizer.cls_token_id, tokenizer.bos_token_id),
                (tokenizer.sep_token_id, tokenizer.eos_token_id),
            )
        )
        if None in self._ends or tokenizer.pad_token_id is None:
            raise ConfigError("the tokenizer needs a padding token, and tokens for the start and end of a sentence")
        self.text = BlipTextModel(_text_config(config, int(tokenizer.pad_token_id)), add_pooling_layer=False)
        self.picture = BlipVisionModel(_picture_config(config))

    def forward(self, batch: InstructionBatch) -> InstructionTokens:
        """The last layer's tokens of every row, [CLS] first."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        if len(batch.text_rows):
            states = self.text(input_ids=batch.token_ids, attention_mask=batch.is_token.long()).last_hidden_state
            parts.append((batch.text_rows, states, batch.is_token))
        if len(batch.picture_rows):
            states = self.picture(pixel_values=batch.pixels).last_hidden_state
            parts.append((batch.picture_rows, states, states.new_ones(states.shape[:2], dtype=torch.bool)))
        if len(parts) == 1:
            rows, states, is_token = parts[0]
            order = rows.argsort()
            return InstructionTokens(states[order], is_token[order])
        longest = max(states.shape[1] for _, states, _ in parts)
        order = torch.cat([rows for rows, _, _ in parts]).argsort()
        padded = [nn.functional.pad(states, (0, 0, 0, longest - states.shape[1])) for _, states, _ in parts]
        masks = [nn.functional.pad(is_token, (0, longest - is_token.shape[1])) for _, _, is_token in parts]
        return InstructionTokens(torch.cat(padded)[order], torch.cat(masks)[order])

    def prepare(self, instructions: Sequence[Instruction]) -> InstructionBatch:
        """Tensors on the CPU. Raises DataError for a picture that is none."""
        if not instructions:
            raise DataError("there is no instruction to encode")
        text_rows = [row for row, one in enumerate(instructions) if one.text is not None]
        picture_rows = [row for row, one in enumerate(instructions) if one.image is not None]
        token_ids, is_token = self._tokens([instructions[row].text or "" for row in text_rows])
        pixels = torch.zeros(len(picture_rows), 3, self.config.picture_px, self.config.picture_px)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.config.mean, self.config.std))
        for place, row in enumerate(picture_rows):
            image = instructions[row].image
            assert image is not None
            scaled = resize_image(image, height=self.config.picture_px, width=self.config.picture_px)
            pixels[place] = (scaled / 255 - mean) / std
        return InstructionBatch(
            torch.tensor(text_rows).long(), token_ids, is_token, torch.tensor(picture_rows).long(), pixels
        )

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers and their mask, padded to the longest text."""
        start, end = self._ends
        room = self.config.max_tokens - 2
        rows = [[start, *self.tokenizer(text, add_special_tokens=False)["input_ids"][:room], end] for text in texts]
        longest = max((len(row) for row in rows), default=0)
        token_ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id), dtype=torch.int64)
        for place, row in enumerate(rows):
            token_ids[place, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows]).long()
        return token_ids, torch.arange(longest)[None] < lengths[:, None]


def _text_config(config: InstructionConfig, pad_token_id: int) -> BlipTextConfig:
    return BlipTextConfig(
        vocab_size=config.vocabulary_size,
        hidden_size=config.width,
        encoder_hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.num_heads,
        max_position_embeddings=512,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        sep_token_id=None,
        initializer_range=config.width**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=False,
    )


def _picture_config(config: InstructionConfig) -> BlipVisionConfig:
    return BlipVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.picture_layers,
        num_attention_heads=config.num_heads,
        image_size=config.picture_px,
        patch_size=config.patch_size,
        layer_norm_eps=1e-6,
        initializer_range=config.width**-0.5,
    )
