"""Score processors: functions from scores [B, V] to new scores [B, V].

Each returns a new array and leaves its argument alone; a removed id has the score -inf.
They are applied in the order repetition penalty, temperature, top-k, top-p, the last
three when sampling only; that is transformers' order.
"""

import numpy as np

from .. import ops


def repetition_penalty(scores, seen, penalty):
    """Make ids that occurred less likely: s -> s / penalty, or s * penalty if s < 0.

    seen [B, V] (bool): the ids that occur in the row's text so far, padding aside.
    penalty > 0; above 1 discourages, below 1 encourages. Source: Keskar et al. 2019
    (CTRL), section 4.1, with the sign handled so that a penalty never rewards.
    """
    penalised = np.where(scores < 0, scores * penalty, scores / penalty)
    return np.where(seen, penalised, scores)


def temperature(scores, t):
    """Divide by t > 0: below 1 sharpens the distribution, above 1 flattens it."""
    return scores / t


def top_k(scores, k):
    """Keep the k largest scores of each row, and whatever ties with the k-th.

    Source: Fan et al. 2018. k larger than V keeps all.
    """
    k = min(k, scores.shape[-1])
    kth = np.partition(scores, -k, axis=-1)[:, -k, None]  # [B, 1]
    return np.where(scores < kth, -np.inf, scores)


def top_p(scores, p):
    """Keep the smallest set of likeliest ids whose probabilities reach p (nucleus).

    Hugging Face's rule since 4.0: with the ids from least to most likely, remove those
    whose cumulative probability is at most 1 - p, but never the likeliest; the id that
    crosses p is kept. Of equally likely ids at the border, the lowest are removed.
    Probabilities have the scores' dtype, so in float32 the border is float32's.
    Source: Holtzman et al. 2019.
    """
    ordered = np.sort(scores, axis=-1)
    cumulative = np.cumsum(ops.softmax(ordered), axis=-1, dtype=np.float64)
    removed = (cumulative.astype(scores.dtype) <= 1.0 - p).sum(axis=-1)  # [B]
    removed = np.minimum(removed, scores.shape[-1] - 1)
    out = scores.copy()
    for row, n in enumerate(removed):
        border = ordered[row, n]  # the smallest score that is kept
        ties = np.flatnonzero(scores[row] == border)
        below = np.searchsorted(ordered[row], border)  # how many are smaller
        out[row, scores[row] < border] = -np.inf
        out[row, ties[: n - below]] = -np.inf
    return out
