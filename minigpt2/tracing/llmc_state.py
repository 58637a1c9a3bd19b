"""llm.c's debug state (`gpt2_124M_debug_state.bin`): what a pass and its way back give.

    header    256 int32: 20240327, 2, B, T, and zeros
    x, y      int32 [B, T] each: the ids, and those that follow them
    logits    float32 [B, T, V]
    loss      float32: the mean cross entropy over all of y
    gradients float32: of the loss by each parameter, as the model's file has them

The model's sizes are not in it: they come from the model, or its length must be that of
one of OpenAI's four. Source: github.com/karpathy/llm.c, train_gpt2.py (write_state).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.llmc_file import (
    HEADER,
    STATE,
    LlmcSizes,
    array_of,
    body_items,
    entries,
    header_of,
    write_body,
    write_header,
)
from ..checkpoints.names import Sizes
from ..checkpoints.tensor_file import as_array, map_file
from ..runtime.files import open_whole

VERSION = 2
GRADIENTS = "gradients."  # before a parameter's name, in a golden
PUBLISHED: list[Sizes] = [  # OpenAI's models
    LlmcSizes(1024, 50257, *sizes)
    for sizes in ((12, 12, 768), (24, 16, 1024), (36, 20, 1280), (48, 25, 1600))
]


class State(NamedTuple):
    """What a debug state holds; the gradients by canonical name, in our layout."""

    x: np.ndarray
    y: np.ndarray
    logits: np.ndarray
    loss: np.ndarray
    gradients: Mapping[str, np.ndarray]


def read_state(path: str | os.PathLike, sizes: Sizes | None = None) -> State:
    """Read a debug state; its arrays are read-only views of the mapped file.

    Args:
        path: the file.
        sizes: the model's; None for one of OpenAI's.

    Raises:
        CheckpointError: the file is missing, truncated, or another model's.
    """
    path = Path(path)
    file = map_file(path)
    try:
        header = header_of(file, STATE)
        version, batch, new = header[1:4]
        if version != VERSION or min(batch, new) < 1:
            raise CheckpointError(
                f"its version is {version}, and B, T = {batch}, {new}; they must be "
                f"{VERSION}, and positive"
            )
        sizes = _fitting(len(file), batch * new, [sizes] if sizes else PUBLISHED)
        return _state(file, batch, new, sizes)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is no sound debug state of llm.c: {error}"
        ) from None


def size_of(positions: int, sizes: Sizes) -> int:
    """Return the bytes of a state of B * T positions of a model."""
    items = 2 * positions + positions * sizes.vocab_size + 1 + body_items(sizes)
    return HEADER + 4 * items


def _fitting(length: int, positions: int, candidates: list[Sizes]) -> Sizes:
    """Return the sizes, of several, that a file's length fits."""
    for sizes in candidates:
        if length == size_of(positions, sizes):
            return sizes
    raise CheckpointError(
        f"it has {length} bytes; with {positions} positions, "
        + " or ".join(
            f"{size_of(positions, sizes)} for n_embd = {sizes.n_embd}"
            for sizes in candidates
        )
        + " are right: is it another model's?"
    )


def _state(file: np.ndarray, batch: int, new: int, sizes: Sizes) -> State:
    at = HEADER

    def take(kind: str, *shape: int) -> np.ndarray:
        nonlocal at
        start, at = at, at + 4 * int(np.prod(shape, dtype=np.int64))
        return as_array(file[start:at], kind, shape)

    x, y = take("int32", batch, new), take("int32", batch, new)
    logits, loss = take("float32", batch, new, sizes.vocab_size), take("float32")
    found = entries(sizes, "float32")
    body = file[at:]
    gradients = {name: array_of(body, entry) for name, entry in found.items()}
    return State(x, y, logits, loss, gradients)


def save_state(path: str | os.PathLike, state: State) -> None:
    """Write a debug state, whole or not at all; the sizes are those of the gradients.

    Raises:
        ValueError: arrays that do not fit one another, or gradients that are missing.
    """
    x, y, logits, loss, gradients = state
    shape, batch = np.shape(x), np.shape(logits)[:-1]
    if len(shape) != 2 or not shape == np.shape(y) == batch or np.shape(loss) != ():
        raise ValueError(
            f"x, y, logits and loss have shapes {shape}, {np.shape(y)}, "
            f"{np.shape(logits)} and {np.shape(loss)}; they must be [B, T], [B, T], "
            "[B, T, V] and []"
        )
    sizes = sizes_of(gradients)
    if sizes.vocab_size != logits.shape[-1]:
        raise ValueError(
            f"there are logits of {logits.shape[-1]} ids, and gradients of "
            f"{sizes.vocab_size}"
        )
    with open_whole(path) as file:
        write_header(file, [STATE, VERSION, *shape])
        for array, dtype in ((x, "<i4"), (y, "<i4"), (logits, "<f4"), (loss, "<f4")):
            file.write(np.asarray(array, dtype).tobytes())
        write_body(file, gradients, sizes, "float32")


def sizes_of(tensors: Mapping[str, np.ndarray]) -> LlmcSizes:
    """Return the sizes that parameters, or arrays of their shapes, have."""
    if not {"wte.weight", "wpe.weight"} <= set(tensors):
        raise ValueError("wte.weight or wpe.weight is missing")
    vocabulary, width = np.shape(tensors["wte.weight"])
    layers = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    # (How many heads there are changes no shape.)
    return LlmcSizes(len(tensors["wpe.weight"]), vocabulary, len(layers), 1, width)
