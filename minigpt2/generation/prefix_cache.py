"""PrefixCache: what the model has read before need not be read again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model import inputs
from ..model.cache import KVCache

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel


class PrefixCache:
    """Keeps the caches of the sequences read last, for prompts that begin as they do.

    A conversation that grows, or many questions about one document: each prompt reads
    only what goes beyond the longest beginning that it shares with a kept sequence.
    Nothing is copied but what two continuations of one sequence both need.

    One PrefixCache is for one model, may serve several threads, and is passed to
    `generate` as prefix_cache=.

    Args:
        capacity: how many sequences are kept; the one that was not used for the longest
            time goes first. One of S ids takes 2 * n_layer * S * n_embd numbers.
    """

    def __init__(self, capacity: int = 4):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        # ids as bytes -> (ids [S], their cache)
        self._kept: OrderedDict[bytes, tuple[np.ndarray, KVCache]] = OrderedDict()
        self._model: GPT2LMHeadModel | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def past_of(
        self,
        model: GPT2LMHeadModel,
        input_ids: npt.ArrayLike | None,
        attention_mask: npt.ArrayLike | None = None,
    ) -> KVCache | None:
        """Return the past that serves a prompt [1, T] best, or None.

        At least the prompt's last id is left to read.

        Raises:
            ValueError: a batch, padding, or another model than at first.
        """
        if self._model is None:
            self._model = model
        elif self._model is not model:
            raise ValueError("this prefix_cache was filled by another model")
        if input_ids is None:
            return None
        ids = inputs.ids(input_ids, "input_ids", model.config.vocab_size)
        masked = attention_mask is not None and not np.all(attention_mask)
        if ids.ndim != 2 or len(ids) != 1 or masked:
            raise ValueError("prefix_cache serves prompts of one row without padding")
        with self._lock:
            shared = {
                key: common(ids[0], kept) for key, (kept, _) in self._kept.items()
            }
            best = max(shared, key=shared.__getitem__, default=None)
            if best is None:
                return None
            length = min(shared[best], ids.shape[1] - 1)
            if length == 0:
                return None
            self._kept.move_to_end(best)
            _, cache = self._kept[best]
            return cache.cropped(length)

    def keep(self, ids: np.ndarray, cache: KVCache) -> None:
        """Keep the cache of one row, whose first ids are `ids`."""
        ids = np.array(ids[: cache.length])
        with self._lock:
            for key, (kept, _) in list(self._kept.items()):
                if common(ids, kept) == len(kept):  # it says no more than the new one
                    del self._kept[key]
            self._kept[ids.tobytes()] = (ids, cache)
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)


def common(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many ids two sequences have in common at the beginning."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
