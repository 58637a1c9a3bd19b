"""Keys and values of the positions already seen, so that no position is computed twice.

A `KVCache` is a value: a forward pass takes one and returns a longer one, and the one
that it took still says what it said. Two continuations of one prompt may both start
from the prompt's cache, in two threads if they like.

It is nevertheless cheap to append to, by the trick of growing vectors: caches that
continue one another share buffers of a larger capacity. The first to continue a cache
gets the positions behind it; whoever continues the same cache later, and so would write
over the first one's positions, gets a copy.

`truncate` and `reorder` alone change a cache in place. They are for a loop that made
the cache and has not given it to anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from ..runtime.memory import empty_reused

Shape = tuple[int, int, int]  # (B, H, D) of a layer: pruned ones have fewer heads


class _Buffers:
    """`capacity` positions in every layer, handed out from the left."""

    def __init__(self, shapes: Sequence[Shape], capacity: int, dtype: np.dtype):
        self.keys = [empty_reused((b, h, capacity, d), dtype) for b, h, d in shapes]
        self.values = [empty_reused((b, h, capacity, d), dtype) for b, h, d in shapes]
        self.capacity = capacity
        self.claimed = 0  # positions that some cache already calls its own
        self.lock = threading.Lock()

    def claim(self, start: int, end: int) -> bool:
        """Reserve positions start .. end-1; False if they are taken or beyond it."""
        with self.lock:
            if start != self.claimed or end > self.capacity:
                return False
            self.claimed = end
            return True


class CacheLayer(NamedTuple):
    """The keys and values [B, H, S, D] of one layer: read-only views."""

    keys: np.ndarray
    values: np.ndarray


class KVCache:
    """The keys and values of `length` positions: per layer (keys, values) [B, H, S, D].

    `len(cache)` is the number of layers, `cache[i]` is (keys, values) of layer i as
    read-only views, so it reads like the tuples of pytorch-transformers and
    transformers (`k, v = past[i]`, `past[i][0]`), and like the cache of later versions
    (`past.layers[i].keys`).
    """

    def __init__(self, buffers: _Buffers, length: int):
        self._buffers = buffers
        self.length = length

    @classmethod
    def empty(cls, shapes: Sequence[Shape], capacity: int, dtype: np.dtype) -> KVCache:
        """Return a cache of no positions; continuing it up to `capacity` copies nothing.

        Args:
            shapes: (B, H, D) of each layer.
        """
        return cls(_Buffers(shapes, capacity, dtype), 0)

    @classmethod
    def of(cls, past: Any, dtype: np.dtype) -> KVCache:
        """Return `past` as a KVCache: one already, or a sequence of (keys, values)."""
        if isinstance(past, KVCache) and past.dtype == dtype:
            return past
        if len(past) == 0:
            raise ValueError("past_key_values has no layers; with no past it is None")
        layers = [(np.asarray(k, dtype), np.asarray(v, dtype)) for k, v in past]
        for i, (k, v) in enumerate(layers):
            if k.ndim != 4 or k.shape != v.shape or k.shape[2] != layers[0][0].shape[2]:
                raise ValueError(
                    f"past_key_values[{i}] has keys {k.shape} and values {v.shape}; "
                    f"both should be (batch, heads, positions, head size) alike"
                )
        length = layers[0][0].shape[2]
        cache = cls.empty([_layer_shape(k) for k, _ in layers], length, dtype)
        grown = cache.extended(length)
        for i, (k, v) in enumerate(layers):
            grown.write(i, k, v)
        return grown

    def extended(self, new: int) -> KVCache:
        """Return a cache of `new` more positions, to fill by way of `buffers` or `write`.

        The positions that this cache has stay where they are if those behind them are
        within the capacity and nobody's, and are copied into larger buffers if not.
        """
        end = self.length + new
        if self._buffers.claim(self.length, end):
            return KVCache(self._buffers, end)
        # Twice the length: a loop of single steps then copies each position O(1) times.
        capacity = end if self.length == 0 else max(end, 2 * self.length)
        shapes = [_layer_shape(k) for k in self._buffers.keys]
        copy = _Buffers(shapes, capacity, self.dtype)
        for i, (k, v) in enumerate(self):
            copy.keys[i][:, :, : self.length] = k
            copy.values[i][:, :, : self.length] = v
        copy.claim(0, end)
        return KVCache(copy, end)

    def select(self, rows: Sequence[int] | np.ndarray, spare: int = 0) -> KVCache:
        """Return a copy with the given rows of the batch.

        Args:
            rows: row numbers, which may repeat: [0, 0, 1] has row 0 twice.
            spare: positions that the copy's capacity has beyond its length.
        """
        shapes = [
            (len(rows), h, d) for _, h, d in map(_layer_shape, self._buffers.keys)
        ]
        buffers = _Buffers(shapes, self.length + spare, self.dtype)
        buffers.claim(0, self.length)
        copy = KVCache(buffers, self.length)
        for layer, (k, v) in enumerate(self):
            copy.write(layer, k[rows], v[rows])
        return copy

    def cropped(self, length: int) -> KVCache:
        """Return the cache of the first `length` positions, which costs no copy."""
        return KVCache(self._buffers, length)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on, in place: they are written anew."""
        self.length = self._buffers.claimed = length

    def reorder(self, rows: Sequence[int] | np.ndarray, since: int = 0) -> None:
        """Make row i of the batch what row rows[i] was, in place.

        Args:
            rows: at most as many as there are. Rows with rows[i] == i are not copied.
            since: positions before it are not copied: up to there a row and the one
                that takes its place must be alike.
        """
        rows = np.asarray(rows)
        moved = np.flatnonzero(rows != np.arange(len(rows)))
        span = slice(since, self.length)
        for arrays in (self._buffers.keys, self._buffers.values):
            for layer, array in enumerate(arrays):
                if moved.size:  # what is read is a copy, so rows may change places
                    array[moved, :, span] = array[rows[moved], :, span]
                arrays[layer] = array[: len(rows)]

    def write(self, layer: int, k: np.ndarray, v: np.ndarray) -> None:
        """Store a layer's last T keys and values [B, H, T, D]."""
        start = self.length - k.shape[2]
        self._buffers.keys[layer][:, :, start : self.length] = k
        self._buffers.values[layer][:, :, start : self.length] = v

    def buffers(self, layer: int, new: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return a layer's whole keys and values [B, H, capacity, D], and where in them
        the last `new` positions are to be written. What lies behind is not ours."""
        buffers = self._buffers
        return buffers.keys[layer], buffers.values[layer], self.length - new

    @property
    def dtype(self) -> np.dtype:
        return self._buffers.keys[0].dtype

    def layer_shape(self, layer: int) -> Shape:
        """Return (B, H, D) of a layer."""
        return _layer_shape(self._buffers.keys[layer])

    def __len__(self) -> int:
        return len(self._buffers.keys)

    @overload
    def __getitem__(self, layer: int) -> CacheLayer: ...
    @overload
    def __getitem__(self, layer: slice) -> tuple[CacheLayer, ...]: ...
    def __getitem__(self, layer: int | slice) -> CacheLayer | tuple[CacheLayer, ...]:
        if isinstance(layer, slice):
            return tuple(self[i] for i in range(*layer.indices(len(self))))
        buffers, seen = self._buffers, slice(self.length)
        return CacheLayer(
            _read_only(buffers.keys[layer][:, :, seen]),
            _read_only(buffers.values[layer][:, :, seen]),
        )

    @property
    def layers(self) -> tuple[CacheLayer, ...]:
        """The layers in order, as transformers' caches have them."""
        return tuple(self)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions are cached, in any layer."""
        return self.length

    def to_legacy_cache(self) -> tuple[CacheLayer, ...]:
        """Return a tuple of (keys, values), a layer each."""
        return tuple(self)

    def __iter__(self) -> Iterator[CacheLayer]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"KVCache(layers={len(self)}, positions={self.length})"


def _layer_shape(keys: np.ndarray) -> Shape:
    return keys.shape[0], keys.shape[1], keys.shape[3]


def _read_only(view: np.ndarray) -> np.ndarray:
    view = view.view()
    view.flags.writeable = False
    return view
