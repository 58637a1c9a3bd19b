"""Keys and values of the positions already seen, so that no position is computed twice.

A `KVCache` is a value: a forward pass takes one and returns a longer one, and the one
that it took still says what it said. Two continuations of one prompt may both start
from the prompt's cache, in two threads if they like.

It is nevertheless cheap to append to, by the trick of growing vectors: caches that
continue one another share buffers with room to spare. The first to continue a cache
gets the spare room; whoever continues the same cache later, and so would write over the
first one's positions, gets a copy.
"""

import threading

import numpy as np

from ..runtime.memory import empty_reused


class _Buffers:
    """Room for `capacity` positions in every layer, handed out from the left."""

    def __init__(self, shapes, capacity, dtype):
        # shapes: per layer (B, H, D); pruned layers have fewer heads than others
        self.keys = [empty_reused((b, h, capacity, d), dtype) for b, h, d in shapes]
        self.values = [empty_reused((b, h, capacity, d), dtype) for b, h, d in shapes]
        self.capacity = capacity
        self.claimed = 0  # positions that some cache already calls its own
        self.lock = threading.Lock()

    def claim(self, start, end):
        """Reserve positions start .. end-1; False if they are taken or beyond it."""
        with self.lock:
            if start != self.claimed or end > self.capacity:
                return False
            self.claimed = end
            return True


class KVCache:
    """The keys and values of `length` positions: per layer (keys, values) [B, H, S, D].

    `len(cache)` is the number of layers, `cache[i]` is (keys, values) of layer i as
    read-only views, so it reads like the tuples of pytorch-transformers and
    transformers: `k, v = past[i]`, `past[i][0]`.
    """

    def __init__(self, buffers, length):
        self._buffers = buffers
        self.length = length

    @classmethod
    def empty(cls, shapes, capacity, dtype):
        """Return a cache of no positions with room for `capacity`.

        shapes: one (B, H, D) a layer. Continuing it costs no copy until it is full.
        """
        return cls(_Buffers(shapes, capacity, dtype), 0)

    @classmethod
    def of(cls, past, dtype):
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

    def extended(self, new):
        """Return a cache of `new` more positions, which `write` is to fill.

        The positions that this cache has stay where they are if there is room behind
        them that nobody has taken, and are copied into larger buffers if not.
        """
        end = self.length + new
        if self._buffers.claim(self.length, end):
            return KVCache(self._buffers, end)
        # Twice the room: a loop of single steps then copies each position O(1) times.
        capacity = end if self.length == 0 else max(end, 2 * self.length)
        shapes = [_layer_shape(k) for k in self._buffers.keys]
        copy = _Buffers(shapes, capacity, self.dtype)
        for i, (k, v) in enumerate(self):
            copy.keys[i][:, :, : self.length] = k
            copy.values[i][:, :, : self.length] = v
        copy.claim(0, end)
        return KVCache(copy, end)

    def select(self, rows, room=0):
        """Return a copy with the given rows of the batch, and room for more positions.

        rows: row numbers, which may repeat: [0, 0, 1] has row 0 twice.
        """
        shapes = [
            (len(rows), h, d) for _, h, d in map(_layer_shape, self._buffers.keys)
        ]
        buffers = _Buffers(shapes, self.length + room, self.dtype)
        buffers.claim(0, self.length)
        copy = KVCache(buffers, self.length)
        for layer, (k, v) in enumerate(self):
            copy.write(layer, k[rows], v[rows])
        return copy

    def cropped(self, length, give_back=False):
        """Return the cache of the first `length` positions. Costs no copy.

        give_back=True lets the positions behind them be written anew in place: only for
        a cache that nobody else holds, since what this one said there is then lost.
        """
        if give_back:
            self._buffers.claimed = length
        return KVCache(self._buffers, length)

    def rearranged(self, rows, since=0):
        """Return this cache with row i of the batch as row rows[i] is, made in place.

        Only for a cache that nobody else holds: this one is lost. rows: at most as many
        as there are; those with rows[i] == i are not copied, nor are positions before
        `since`, up to which a row and the one that takes its place must be alike.
        """
        rows = np.asarray(rows)
        moved = np.flatnonzero(rows != np.arange(len(rows)))
        span = slice(since, self.length)
        for arrays in (self._buffers.keys, self._buffers.values):
            for layer, array in enumerate(arrays):
                if (
                    moved.size
                ):  # the right-hand side is a copy, so rows may change places
                    array[moved, :, span] = array[rows[moved], :, span]
                arrays[layer] = array[: len(rows)]
        return self

    def write(self, layer, k, v):
        """Store a layer's last T keys and values [B, H, T, D]; return all S of them."""
        start = self.length - k.shape[2]
        self._buffers.keys[layer][:, :, start : self.length] = k
        self._buffers.values[layer][:, :, start : self.length] = v
        keys = self._buffers.keys[layer][:, :, : self.length]
        values = self._buffers.values[layer][:, :, : self.length]
        return keys, values  # [B, H, S, D] each

    def room(self, layer, new):
        """Return a layer's whole buffers (keys, values) [B, H, capacity, D], and where
        in them the last `new` positions are to be written. The rest is not ours."""
        buffers = self._buffers
        return buffers.keys[layer], buffers.values[layer], self.length - new

    @property
    def dtype(self):
        return self._buffers.keys[0].dtype

    def layer_shape(self, layer):
        """Return (B, H, D) of a layer."""
        return _layer_shape(self._buffers.keys[layer])

    def __len__(self):
        return len(self._buffers.keys)

    def __getitem__(self, layer):
        if isinstance(layer, slice):
            return tuple(self[i] for i in range(*layer.indices(len(self))))
        return tuple(
            _read_only(array[layer][:, :, : self.length])
            for array in (self._buffers.keys, self._buffers.values)
        )

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"KVCache(layers={len(self)}, positions={self.length})"


def _layer_shape(keys):
    return keys.shape[0], keys.shape[1], keys.shape[3]


def _read_only(view):
    view = view.view()
    view.flags.writeable = False
    return view
