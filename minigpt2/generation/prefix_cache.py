"""PrefixCache: what the model has read before need not be read again."""

import threading
from collections import OrderedDict

import numpy as np

from ..model import inputs


class PrefixCache:
    """Keeps the caches of the texts read last, for prompts that begin as they do.

    A conversation that grows, or many questions about one document: each prompt reads
    only what goes beyond the longest beginning that it shares with a kept text. Nothing
    is copied but what two continuations of one text both need.

    capacity (int, 4): how many texts are kept; the one that was not used for the
    longest time goes first. A text of S ids takes 2 * n_layer * S * n_embd numbers. One
    PrefixCache is for one model, may serve several threads, and is passed to `generate`
    as prefix_cache=.
    """

    def __init__(self, capacity=4):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self._kept = OrderedDict()  # ids as bytes -> (ids [S], KVCache)
        self._model = None
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._kept)

    def past_of(self, model, input_ids, attention_mask=None):
        """Return the past that serves a prompt [1, T] best, or None.

        At least the prompt's last id is left to read. ValueError for a batch, for
        padding, and for another model than at first.
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
            best = max(shared, key=shared.get, default=None)
            if best is None or min(shared[best], ids.shape[1] - 1) == 0:
                return None
            self._kept.move_to_end(best)
            return self._kept[best][1].cropped(min(shared[best], ids.shape[1] - 1))

    def keep(self, ids, cache):
        """Keep the cache [1] of a text whose first ids are `ids`."""
        ids = np.array(ids[: cache.length])
        with self._lock:
            for key, (kept, _) in list(self._kept.items()):
                if common(ids, kept) == len(kept):  # it says no more than the new one
                    del self._kept[key]
            self._kept[ids.tobytes()] = (ids, cache)
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)


def common(a, b):
    """Return how many ids two texts have in common at the beginning."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
