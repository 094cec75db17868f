"""From a decision state to a mask: prompt projection (eq. 6), SAM's image encoder and mask decoder (eq. 7), box head.

Shapes: P pairs, D width of the language model, E prompt width of SAM, h w SAM's low-resolution mask, H W the side of
SAM's square input, which shows a window of the frame or all of it (`windows.py`). Boxes are xyxy: the box head's as
shares of the frame's sides, the decoder's as shares of the square.
"""

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

BOX_ROOM = 0.1
"""How far a mask may reach beyond its prompt box, as a share of the box's sides."""
OUTSIDE_LOGIT = -15.0


class MaskPromptHead(nn.Module):
    """The linear map from a [SEG] state (..., D) to SAM's prompt space (..., E) (eq. 6)."""

    def __init__(self, language_dim: int, prompt_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(language_dim, prompt_dim)

    def forward(self, states: Tensor) -> Tensor:
        return self.project(states)


class BoxHead(nn.Module):
    """A box read from the decision state alone: what the smooth-L1 and CIoU terms of eq. 13 supervise."""

    def __init__(self, language_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(language_dim, language_dim), nn.GELU(), nn.Linear(language_dim, 4))

    def forward(self, states: Tensor) -> Tensor:
        """(..., 4) boxes, never inside out."""
        center, size = self.layers(states).float().sigmoid().split(2, dim=-1)
        return torch.cat([center - size / 2, center + size / 2], dim=-1)


class SegmentationModule(nn.Module):
    """SAM as PS-ReID uses it: the image embedding once per frame or window, the decoder once per accepted pair."""

    def __init__(self, sam: Sam, *, prompts_box: bool, zoom: float | None = None) -> None:
        super().__init__()
        self.sam = sam
        self.prompts_box = prompts_box
        self.zoom = zoom

    @property
    def prompt_dim(self) -> int:
        """E, the width of a prompt."""
        return int(self.sam.prompt_encoder.embed_dim)

    @property
    def image_size(self) -> int:
        """Side of SAM's square input in pixels."""
        return int(self.sam.image_encoder.img_size)

    @property
    def _dtype(self) -> torch.dtype:
        return self.sam.mask_decoder.iou_token.weight.dtype

    def image_embeddings(self, pixels_N3HW: Tensor) -> Tensor:
        """SAM's dense features f_S of N preprocessed pictures, in SAM's own precision whatever is around it."""
        embeddings: Tensor = self.sam.image_encoder(pixels_N3HW.to(self._dtype))
        return embeddings.to(self._dtype)

    def mask_logits(self, embeddings_PEhw: Tensor, prompts_PE: Tensor, boxes_P4: Tensor) -> Tensor:
        """Low-resolution mask logits (P, h, w) over SAM's square; a single embedding serves all pairs.

        Prompts of width 0 prompt by the boxes alone: a module trained with both finds zeros in the pointer's place, any
        other SAM the two corners that it knows.
        """
        by_box_alone = prompts_PE.shape[1] == 0
        takes_box = self.prompts_box or by_box_alone
        with torch.autocast(prompts_PE.device.type, enabled=False):
            sparse_PTE = prompts_PE[:, None].to(self._dtype)
            if by_box_alone:
                sparse_PTE = sparse_PTE.new_zeros(len(prompts_PE), int(self.prompts_box), self.prompt_dim)
            if takes_box:
                boxes_px = boxes_P4.float() * self.image_size
                corners, _ = self.sam.prompt_encoder(points=None, boxes=boxes_px, masks=None)
                sparse_PTE = torch.cat([sparse_PTE, corners.to(self._dtype)], dim=1)
            # SAM's decoder takes one picture and adds dense prompts to it: each pair's own picture comes in with those.
            dense_PEhw = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1) + embeddings_PEhw
            masks, _ = self.sam.mask_decoder(
                image_embeddings=torch.zeros_like(embeddings_PEhw[:1]),
                image_pe=self.sam.prompt_encoder.get_dense_pe().to(embeddings_PEhw.dtype),
                sparse_prompt_embeddings=sparse_PTE,
                dense_prompt_embeddings=dense_PEhw.expand(len(sparse_PTE), -1, -1, -1),
                multimask_output=False,
            )
            logits = masks[:, 0]
            return self._confined(logits, boxes_P4) if takes_box else logits

    def _confined(self, logits_Phw: Tensor, boxes_P4: Tensor) -> Tensor:
        """The logits with everything outside each box, with some room, set to background.

        What the decoder has to tell apart is then the person from what else is in the box.
        """
        height, width = logits_Phw.shape[-2:]
        low, high = boxes_P4.float().split(2, dim=1)
        room = (high - low) * BOX_ROOM
        (left, top), (right, bottom) = (low - room).t(), (high + room).t()
        y, x = ((torch.arange(n, device=low.device) + 0.5) / n for n in (height, width))
        rows = (y >= top[:, None]) & (y <= bottom[:, None])
        columns = (x >= left[:, None]) & (x <= right[:, None])
        return logits_Phw.masked_fill(~(rows[:, :, None] & columns[:, None, :]), OUTSIDE_LOGIT)
