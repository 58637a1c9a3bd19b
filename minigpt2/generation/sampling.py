"""Choosing ids by their scores."""

import numpy as np


def greedy(scores):
    """Return the id [R] with the highest score [R, V]; of equals, the lowest id."""
    return scores.argmax(axis=-1)


def sample(scores, streams):
    """Draw an id [R] with probability softmax(scores), one uniform number a row.

    scores [R, V]; streams: a `randomness.UniformGenerator` for each row.
    """
    return np.array([draw(row, s.next()) for row, s in zip(scores, streams)], np.int64)


def draw(scores, u):
    """Return the first id at which the cumulative probability of softmax exceeds u.

    scores [V]; u in [0, 1): the inverse of the distribution function, which is summed
    in float64 in the order of the ids. Removed ids (-inf) cost nothing.
    """
    ids = np.flatnonzero(scores > -np.inf)
    return ids[pick(weights(scores[ids]), u)]


def weights(scores):
    """Return e^(s - max s) in float64: softmax but for its constant factor."""
    scores = scores.astype(np.float64)
    return np.exp(scores - scores.max())


def pick(weights, u):
    """Return the first place at which the cumulative share of `weights` exceeds u."""
    sums = np.cumsum(weights)
    return np.searchsorted(sums, u * sums[-1], side="right")


def draw_without_replacement(scores, count, stream):
    """Draw `count` different ids, one after another, from softmax of what is left.

    If fewer have any probability, the likeliest of the others fill the places.
    """
    left = weights(scores)
    chosen = []
    while len(chosen) < count and left.any():
        chosen.append(int(pick(left, stream.next())))
        left[chosen[-1]] = 0.0
    if len(chosen) < count:
        others = np.argsort(-scores, kind="stable")
        others = others[~np.isin(others, chosen)]
        chosen += others[: count - len(chosen)].tolist()
    return np.array(chosen, np.int64)
