"""Score processors: functions from scores [R, V] to new scores [R, V].

Each returns a new array, leaves its arguments alone and can be used by itself; a removed
id has the score -inf. Those that depend on the ids so far take `input_ids` [R, S] as
well, with -1 where a row has padding. `chain.py` puts them in transformers' order.

Probabilities have the scores' dtype. Where one lies exactly on a border, the border is
float32's for float32 scores and another one for float64's: 1 - 0.8 is not 0.2 in binary.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .. import ops

# --- what the ids so far forbid or discourage


def repetition_penalty(
    scores: np.ndarray,
    input_ids: np.ndarray,
    penalty: float,
    prompt_ignore_length: int = 0,
) -> np.ndarray:
    """Make ids that occurred less likely: s -> s / penalty, or s * penalty if s < 0.

    penalty > 0; above 1 discourages, below 1 encourages. An id that occurred twice is
    penalized once. The first `prompt_ignore_length` columns do not count.
    Source: Keskar et al. 2019 (CTRL), section 4.1, with the sign handled so that a
    penalty never rewards.
    """
    out = scores.copy()
    for row, ids, result in zip(scores, input_ids[:, prompt_ignore_length:], out):
        seen = row[ids := real(ids, scores)]
        result[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
    return out


def no_repeat_ngram(scores: np.ndarray, input_ids: np.ndarray, size: int) -> np.ndarray:
    """Remove each id that would make `size` ids in a row occur a second time.

    Source: Paulus et al. 2017, section 2.5 (trigrams).
    """
    out = scores.copy()
    for ids, result in zip(input_ids, out):
        ids = real(ids, scores)
        if len(ids) >= size:
            windows = np.lib.stride_tricks.sliding_window_view(ids, size)  # [N, size]
            prefix = ids[len(ids) + 1 - size :]
            repeats = (windows[:, :-1] == prefix).all(axis=1)
            result[windows[repeats, -1]] = -np.inf
    return out


def sequence_bias(
    scores: np.ndarray, input_ids: np.ndarray, biases: dict[tuple[int, ...], float]
) -> np.ndarray:
    """Add a bias to each id that would complete a sequence of ids.

    A bias of -inf forbids the sequence; for a tuple of one id it forbids that id.
    """
    out = scores.copy()
    for (*prefix, last), bias in biases.items():
        if len(prefix) <= input_ids.shape[1]:
            ends = input_ids[:, input_ids.shape[1] - len(prefix) :]
            out[(ends == prefix).all(axis=1), last] += bias
    return out


def bad_words(
    scores: np.ndarray, input_ids: np.ndarray, words: Sequence[Sequence[int]]
) -> np.ndarray:
    """Remove each id that would complete one of `words`, sequences of ids."""
    return sequence_bias(scores, input_ids, {tuple(word): -np.inf for word in words})


# --- what must or must not come at some place


def suppress(scores: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Remove ids: suppressed ones, or the end ids of a row that is too short."""
    out = scores.copy()
    out[:, real(np.asarray(ids, np.int64), scores)] = -np.inf
    return out


def force(scores: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Make `ids` the only possible ones, with the score 0; all are in the vocabulary."""
    out = np.full_like(scores, -np.inf)
    out[:, ids] = 0.0
    return out


def exponential_decay(
    scores: np.ndarray, end_ids: Sequence[int], factor: float, steps: int
) -> np.ndarray:
    """Raise the scores of end ids: s + |s| (factor^steps - 1), `steps` past the start."""
    out = scores.copy()
    ends = scores[:, end_ids]
    size = np.where(np.isfinite(ends), np.abs(ends), 0.0).astype(scores.dtype)
    with np.errstate(over="ignore"):  # of the lowest number, from remove_invalid
        raised = ends + size * (factor**steps - 1)
    out[:, end_ids] = np.minimum(raised, np.finfo(scores.dtype).max)
    return out


def allow(
    scores: np.ndarray, input_ids: np.ndarray, allowed: Callable, numbers: Sequence[int]
) -> np.ndarray:
    """Keep what `allowed(number, ids)` lists: the ids that may follow a row's ids [S].

    Args:
        numbers: by which number `allowed` knows each row.
    """
    out = np.full_like(scores, -np.inf)
    for row, ids, number, result in zip(scores, input_ids, numbers, out):
        listed = np.asarray(allowed(number, ids))
        listed = listed.reshape(-1).astype(np.int64)
        if not len(listed):
            raise ValueError(
                f"prefix_allowed_tokens_fn allows no id for prompt {number}"
            )
        if len(real(listed, scores)) < len(listed):
            raise ValueError(
                f"prefix_allowed_tokens_fn allows {listed.tolist()}; ids are 0 to "
                f"{scores.shape[1] - 1}"
            )
        result[listed] = row[listed]
    return out


# --- what mends or mixes distributions


def guidance(logits: np.ndarray, unconditional: np.ndarray, scale: float) -> np.ndarray:
    """Classifier-free guidance: u + scale (c - u), for log-probabilities c and u.

    Source: Sanchez et al. 2023 ("Stay on topic").

    Args:
        logits: those after the prompt, which give c.
        unconditional: those without the prompt, or after another one, which give u.
    """
    c, u = ops.log_softmax(logits), ops.log_softmax(unconditional)
    return u + scale * (c - u)


def remove_invalid(scores: np.ndarray) -> np.ndarray:
    """Replace NaN by 0 and the infinities by the largest and lowest finite numbers."""
    return np.nan_to_num(scores)


def diversity(scores: np.ndarray, taken: np.ndarray, penalty: float) -> np.ndarray:
    """Lower each id's score by `penalty` for each time that it is in `taken` (ids).

    Source: Vijayakumar et al. 2016 (diverse beam search), the Hamming diversity.
    """
    counts = np.bincount(real(taken, scores), minlength=scores.shape[-1])
    return scores - (penalty * counts).astype(scores.dtype)


def renormalize(scores: np.ndarray) -> np.ndarray:
    """log softmax: make the scores log-probabilities again."""
    return ops.log_softmax(scores)


# --- what sampling cuts off (for all: at least min_tokens_to_keep ids stay)


def temperature(scores: np.ndarray, t: float) -> np.ndarray:
    """Divide by t > 0: below 1 sharpens the distribution, above 1 flattens it."""
    return scores / t


def top_k(scores: np.ndarray, k: int, min_tokens_to_keep: int = 1) -> np.ndarray:
    """Keep the k largest scores of each row, and whatever ties with the k-th.

    Source: Fan et al. 2018. k larger than V keeps all.
    """
    return only(scores, scores >= largest(scores, max(k, min_tokens_to_keep)))


def top_p(
    scores: np.ndarray,
    p: float,
    min_tokens_to_keep: int = 1,
    rule: str = "huggingface",
) -> np.ndarray:
    """Keep the smallest set of likeliest ids whose probabilities reach p (nucleus).

    Source: Holtzman et al. 2019. The rules differ at the border:

    - "huggingface" (transformers since 4.0): with the ids from least to most likely,
      remove those whose cumulative probability is at most 1 - p. The id that crosses p
      is kept; of equally likely ones at the border, the lowest ids are removed.
    - "huggingface-3" (before 4.0): from most to least likely, keep those before which
      the cumulative probability is at most p; a min_tokens_to_keep above 1 keeps one
      more than it says.
    - "openai" (sample.py): keep those with a cumulative probability of at most p, and
      their equals. The id that crosses p is left out.
    """
    out = np.full_like(scores, -np.inf)
    for row, result in zip(scores, out):
        alive = np.flatnonzero(row > -np.inf)
        kept = alive[nucleus(row[alive], p, min_tokens_to_keep, rule)]
        result[kept] = row[kept]
    return out


def min_p(scores: np.ndarray, p: float, min_tokens_to_keep: int = 1) -> np.ndarray:
    """Keep the ids at least p times as likely as the likeliest.

    Source: Nguyen et al. 2024.
    """
    probabilities = ops.softmax(scores)
    border = p * probabilities.max(axis=-1, keepdims=True)
    return removed(scores, probabilities < border, min_tokens_to_keep)


def typical_p(
    scores: np.ndarray, mass: float, min_tokens_to_keep: int = 1
) -> np.ndarray:
    """Keep the ids whose information is nearest to the entropy, until `mass` is reached.

    An id's information is -log p and the entropy its mean. Source: Meister et al. 2022.
    """
    logs = ops.log_softmax(scores)
    p = np.exp(logs)
    entropy = -(np.where(p > 0, logs, 0.0) * p).sum(axis=-1, keepdims=True)  # [R, 1]
    distance = np.abs(-logs - entropy)
    order = np.argsort(distance, axis=-1, kind="stable")
    distance = np.take_along_axis(distance, order, axis=-1)
    sums = np.cumsum(np.take_along_axis(p, order, axis=-1), axis=-1, dtype=np.float64)
    last = (sums.astype(p.dtype) < mass).sum(axis=-1, keepdims=True)
    last = np.minimum(last, scores.shape[-1] - 1)
    gone = distance > np.take_along_axis(distance, last, axis=-1)
    gone[:, :min_tokens_to_keep] = False
    out = scores.copy()
    rows, places = np.nonzero(gone)
    out[rows, order[rows, places]] = -np.inf
    return out


def epsilon_cutoff(
    scores: np.ndarray, epsilon: float, min_tokens_to_keep: int = 1
) -> np.ndarray:
    """Keep the ids with a probability of at least epsilon. Source: Hewitt et al. 2022."""
    return removed(scores, ops.softmax(scores) < epsilon, min_tokens_to_keep)


def eta_cutoff(
    scores: np.ndarray, epsilon: float, min_tokens_to_keep: int = 1
) -> np.ndarray:
    """Keep the ids with a probability of at least min(epsilon, sqrt(epsilon) e^-H).

    H is the distribution's entropy. Source: Hewitt et al. 2022.
    """
    p = ops.softmax(scores)
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    entropy = -(p * logs).sum(axis=-1, keepdims=True)
    border = np.minimum(epsilon, math.sqrt(epsilon) * np.exp(-entropy))
    return removed(scores, p < border, min_tokens_to_keep)


# --- helpers


def real(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the ids that scores [R, V] have a column for: others are padding.

    Without it -1 would be NumPy's way to say the last id.
    """
    return ids[(ids >= 0) & (ids < scores.shape[-1])]


def largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the k-th largest score of each row, [R, 1]."""
    k = min(k, scores.shape[-1])
    return np.partition(scores, -k, axis=-1)[:, -k, None]


def only(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the scores of the ids `kept` [R, V] (bool), and -inf for the others."""
    out = np.full_like(scores, -np.inf)
    places = np.flatnonzero(kept)  # few: faster than np.where over all
    out.reshape(-1)[places] = scores.reshape(-1)[places]
    return out


def removed(scores: np.ndarray, gone: np.ndarray, least: int) -> np.ndarray:
    """Remove the ids `gone` [R, V] (bool), but not the `least` likeliest."""
    return only(scores, ~(gone & (scores < largest(scores, least))))


def nucleus(scores: np.ndarray, p: float, least: int, rule: str) -> np.ndarray:
    """Return the places of the finite scores [N] that top_p keeps."""
    head, probabilities, rest = likeliest(scores, p, least)
    if rule == "huggingface":
        # rounded, as torch does, to the dtype of the probabilities
        sums = rest + np.cumsum(probabilities, dtype=np.float64)
        gone = int((sums.astype(scores.dtype) <= 1.0 - p).sum())
        count = max(len(head) - gone, least)
    else:
        sums = np.cumsum(probabilities[::-1], dtype=np.float64)
        count = int((sums.astype(scores.dtype) <= p).sum())
        if rule == "huggingface-3":
            count = max(count, least if least > 1 else 0) + 1
        count = max(count, least)
    count = min(count, len(head))
    border = head[len(head) - count]  # the smallest that is kept
    above = np.flatnonzero(scores > border)
    equal = np.flatnonzero(scores == border)
    if rule == "huggingface":
        equal = equal[len(equal) - (count - len(above)) :]
    elif rule == "huggingface-3":
        equal = equal[: count - len(above)]
    return np.concatenate([above, equal])


def likeliest(
    scores: np.ndarray, p: float, least: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the likeliest ids [N], whose probabilities sum to more than p.

    They are at least `least`, and all that a nucleus can need: selecting some hundreds
    is several times faster than sorting 50,257.

    Returns:
        Their scores, ascending; their probabilities; the probability of all others.
    """
    peak = scores.max()
    total = np.exp(scores - peak).sum()
    size = max(256, 2 * least)
    while size < len(scores):
        head = np.partition(scores, -size)[-size:]
        reached = (np.exp(head - peak) / total).sum(dtype=np.float64)
        if reached > p + 1e-4:  # more than float32 can round a sum
            break
        size *= 8
    else:
        head, reached = scores.copy(), 1.0
    head.sort()
    return head, np.exp(head - peak) / total, max(1.0 - reached, 0.0)
