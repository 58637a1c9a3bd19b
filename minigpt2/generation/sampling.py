"""Choosing the next id of each row from its scores [B, V]."""

import numpy as np

from .. import ops


def greedy(scores):
    """Return the id [B] with the highest score; of equals, the lowest id."""
    return scores.argmax(axis=-1)


def sample(scores, streams):
    """Draw an id [B] with probability softmax(scores), one uniform number a row.

    streams: a `randomness.UniformStream` for each row. The row's number u in [0, 1)
    picks the first id at which the cumulative probability exceeds u (the inverse of the
    distribution function), summed in float64 in the order of the ids.
    """
    cumulative = np.cumsum(ops.softmax(scores.astype(np.float64)), axis=-1)  # [B, V]
    chosen = [
        np.searchsorted(row, stream.next() * row[-1], side="right")
        for row, stream in zip(cumulative, streams)
    ]
    return np.array(chosen, np.int64)
