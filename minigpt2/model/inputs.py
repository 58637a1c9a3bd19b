"""What a forward pass is given, checked at the door.

NumPy would take a negative id from the end of a table without a word, broadcast a mask
of the wrong length, and answer an id that is too large with a bare IndexError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .cache import KVCache

if TYPE_CHECKING:
    from .gpt2 import Block


def ids(array: npt.ArrayLike, name: str, limit: int) -> np.ndarray:
    """Return `array` as integers, each in 0 .. limit-1; ValueError if it isn't so."""
    array = np.asarray(array)
    if array.dtype.kind in "US":
        raise ValueError(
            f"{name} is text; a model takes ids: tokenizer.encode(text, "
            "return_tensors='np')"
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty: it needs at least one id")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number; it needs an axis of positions")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    if array.min() < 0 or array.max() >= limit:
        wrong = array[(array < 0) | (array >= limit)][0]
        raise ValueError(f"{name} holds {wrong}, which is outside 0 to {limit - 1}")
    return array


def folded(array: np.ndarray) -> np.ndarray:
    """Fold all axes but the last into one: [..., T] -> [B, T]."""
    return array.reshape(-1, array.shape[-1])


def rows_of_ids(
    array: npt.ArrayLike, name: str, limit: int, batch: int, new: int
) -> np.ndarray:
    """Return [1 or B, T] ids, one for each of T positions, in all rows or in each.

    NumPy would spread a single number over all positions, and one row of embeddings
    over any number of rows of these.
    """
    rows = folded(ids(array, name, limit))
    if rows.shape not in ((1, new), (batch, new)):
        raise ValueError(
            f"{name} has shape {np.shape(array)}; it must be ({batch}, {new}), or "
            f"(1, {new}) for all rows alike"
        )
    return rows


def positions(
    position_ids: npt.ArrayLike | None, start: int, batch: int, new: int, limit: int
) -> np.ndarray:
    """Return the positions [1 or B, T] of `new` ids that come after `start` others."""
    if position_ids is not None:
        return rows_of_ids(position_ids, "position_ids", limit, batch, new)
    if start + new > limit:
        raise ValueError(
            f"{new} ids after {start} others make {start + new} positions, and this "
            f"model has n_positions={limit}: shorten the input"
        )
    return np.arange(start, start + new)[None]


def key_mask(
    attention_mask: npt.ArrayLike | None, batch: int, length: int
) -> np.ndarray | None:
    """Return the keys that may be seen as bool [B, S], or None if that is all."""
    if attention_mask is None:
        return None
    mask = np.asarray(attention_mask)
    if mask.ndim == 0 or folded(mask).shape != (batch, length):
        raise ValueError(
            f"attention_mask has shape {mask.shape}; it must be ({batch}, {length}): a "
            "row for each row, and one number for each position, past ones included"
        )
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must hold 0 (hidden) and 1 (seen) only")
    visible = folded(mask) != 0
    return None if visible.all() else visible


def score_mask(
    attention_mask: npt.ArrayLike, batch: int, new: int, length: int, dtype: np.dtype
) -> np.ndarray:
    """Return a mask of four axes as numbers for the attention scores, [B, H or 1, T, S].

    As in transformers, bool says which keys each query may see, and floats are added as
    they are; either takes the place of the causal rule.
    """
    mask = np.asarray(attention_mask)
    axes = mask.shape[-2:] == (new, length) and mask.shape[0] in (1, batch)
    if mask.ndim != 4 or not axes:
        raise ValueError(
            f"attention_mask has shape {mask.shape}; with four axes it must be "
            f"({batch}, heads or 1, {new}, {length})"
        )
    if mask.dtype.kind not in "bf":
        raise ValueError(
            f"an attention_mask of four axes holds {mask.dtype}: give bool (True: seen) "
            "or floats, which are added to q k^T"
        )
    if mask.dtype.kind == "b":
        return np.where(mask, 0.0, -np.inf).astype(dtype)
    return mask.astype(dtype)


def head_mask(
    mask: npt.ArrayLike | None, blocks: Sequence[Block], dtype: np.dtype
) -> list[np.ndarray] | None:
    """Return the heads' factors, one array [H] a block, or None if there are none."""
    if mask is None:
        return None
    heads = [block.attn.n_head for block in blocks]
    rows: list = list(mask) if np.iterable(mask) else []
    if all(np.ndim(row) == 0 for row in rows):
        rows = [rows] * len(blocks)
    rows = [np.asarray(row, dtype) for row in rows]
    shapes = [row.shape for row in rows]
    if shapes != [(n,) for n in heads]:
        layers = f"({len(blocks)}, {heads[0]})"
        if len(set(heads)) > 1:
            layers = f"a row for each of {len(blocks)} layers, of {heads} factors"
        raise ValueError(
            f"head_mask has rows of shape {shapes}; it must be ({heads[0]},) or "
            f"{layers}: a factor for each head, in each layer"
        )
    return rows


def past_shapes(cache: KVCache, expected: Sequence[tuple[int, int, int]]) -> None:
    """Check a cache against the (B, H, D) of every layer that a pass expects."""
    if len(cache) != len(expected):
        raise ValueError(
            f"past_key_values has {len(cache)} layers; this model has {len(expected)}"
        )
    for layer, shape in enumerate(expected):
        if cache.layer_shape(layer) != shape:
            raise ValueError(
                f"past_key_values[{layer}] has (batch, heads, head size) "
                f"{cache.layer_shape(layer)}; this pass needs {shape}"
            )


def kept_positions(logits_to_keep: npt.ArrayLike, new: int) -> slice | np.ndarray:
    """Return an index of the positions, among `new`, whose logits are asked for.

    Args:
        logits_to_keep: how many of the last (0: all), or an array of positions.
    """
    keep = np.asarray(logits_to_keep)
    if keep.ndim == 0 and keep.dtype.kind in "iu" and keep >= 0:
        return slice(max(new - int(keep), 0) if keep else 0, None)
    if keep.ndim == 0:
        raise ValueError(
            f"logits_to_keep is {logits_to_keep!r}; it must be a whole number, 0 or "
            "more, or an array of positions"
        )
    return ids(keep, "logits_to_keep", new)
