"""A small synthetic archive in which every task can be asked, and a small model for it."""

import functools
from pathlib import Path

import torch

from modeling.instruct_reid.checkpoint import save_irm
from modeling.instruct_reid.config import Kind
from tests.modeling.instruct_reid.small_irm import small_irm
from tests.workflows.synthetic_archive import make_archive
from workflows.storage import Folder

ARCHIVE = {"identities": 6, "frames": 96, "fps": 0.5, "second_clothes_share": 1.0, "split": "test", "density": 4.0}


@functools.cache
def reid_archive(out: str) -> Folder:
    """Made once for each folder."""
    return make_archive(out, **ARCHIVE)


def saved_model(folder: Path, kind: Kind = "irm++") -> str:
    irm = small_irm(kind, edits=kind == "irm")
    for block in irm.image.blocks if kind == "irm" else ():
        block.attn.gate.data.fill_(0.5)
    for layer in irm.fusion.layers:
        torch.nn.init.normal_(layer.proj.weight, std=0.5)
    save_irm(irm, folder)
    return str(folder)
