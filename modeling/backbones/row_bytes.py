"""Matrices as a byte a number: each row is its largest magnitude / 127 times whole numbers from -127 to 127.

A quarter of float32's size and half of float16's, at a relative error of a row's largest number of 1/254.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from modeling.backbones.checkpoint import State

SCALE_SUFFIX = ".row_scale"


def to_row_bytes(state: Mapping[str, Tensor]) -> State:
    """Every floating tensor of two or more dimensions as int8 rows with their scales beside; the others as they are."""
    stored: State = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.ndim < 2:
            stored[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-30) / 127
        stored[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
        stored[name + SCALE_SUFFIX] = scale
    return stored


def from_row_bytes(stored: Mapping[str, Tensor]) -> State:
    """The tensors again, in float32; a state that was never packed comes back as it is."""
    state: State = {}
    for name, tensor in stored.items():
        scale = stored.get(name + SCALE_SUFFIX)
        if scale is not None:
            state[name] = (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
        elif not name.endswith(SCALE_SUFFIX):
            state[name] = tensor
    return state
