"""Choosing ids by their scores."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from ..runtime.randomness import UniformGenerator
from .config import GenerationConfig
from .options import as_list


def greedy(scores: np.ndarray) -> np.ndarray:
    """Return the id [R] with the highest score [R, V]; of equals, the lowest id."""
    return scores.argmax(axis=-1)


def sample(scores: np.ndarray, generators: Sequence[UniformGenerator]) -> np.ndarray:
    """Draw an id [R] with probability softmax(scores), one uniform number a row.

    Args:
        scores: [R, V].
        generators: one for each row.
    """
    return np.array(
        [draw(row, g.next()) for row, g in zip(scores, generators)], np.int64
    )


def draw(scores: np.ndarray, u: float) -> int:
    """Return the first id at which the cumulative probability of softmax exceeds u.

    This is the inverse of the distribution function, which is summed in float64 in the
    order of the ids. Removed ids (-inf) cost nothing.

    Args:
        scores: [V].
        u: in [0, 1).
    """
    ids = np.flatnonzero(scores > -np.inf)
    return int(ids[pick(exponentials(scores[ids]), u)])


def exponentials(scores: np.ndarray) -> np.ndarray:
    """Return e^(s - max s) in float64: softmax but for its constant factor."""
    scores = scores.astype(np.float64)
    return np.exp(scores - scores.max())


def pick(masses: np.ndarray, u: float) -> int:
    """Return the first place at which the cumulative share of `masses` exceeds u.

    `masses` are probabilities but for a constant factor.
    """
    sums = np.cumsum(masses)
    return int(np.searchsorted(sums, u * sums[-1], side="right"))


def draw_without_replacement(
    scores: np.ndarray, count: int, generator: UniformGenerator
) -> np.ndarray:
    """Draw `count` different ids, one after another, from softmax of what is left.

    If fewer have any probability, the likeliest of the others fill the places.
    """
    left = exponentials(scores)
    chosen: list[int] = []
    while len(chosen) < count and left.any():
        chosen.append(pick(left, generator.next()))
        left[chosen[-1]] = 0.0
    if len(chosen) < count:
        others = np.argsort(-scores, kind="stable")
        others = others[~np.isin(others, chosen)]
        chosen += others[: count - len(chosen)].tolist()
    return np.array(chosen, np.int64)


def best_of(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the `count` highest scores, best first; ties by place."""
    count = min(count, len(scores))
    border = np.partition(scores, -count)[-count]
    above = np.flatnonzero(scores >= border)  # all that tie with the last one, too
    return above[np.argsort(-scores[above], kind="stable")][:count]


def generators_of(
    options: GenerationConfig, rows: int, results: int = 1
) -> list[UniformGenerator]:
    """Return the generator of each result of each of the rows, row by row."""
    seed = options.seed
    if isinstance(seed, Integral):
        keys = [(int(seed), row) for row in range(rows)]
    else:
        keys = [(seed, 0) for seed in as_list(seed)]
    if len(keys) != rows:
        raise ValueError(f"{len(keys)} seeds for {rows} rows; give one for each")
    return [UniformGenerator(*key, j) for key in keys for j in range(results)]


def check_choice(best: np.ndarray, logits: np.ndarray) -> None:
    """Raise ValueError where the best score [R] of a row is not finite."""
    if np.isfinite(best).all():
        return
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError(
            "the model's logits are not finite: its parameters may be broken"
        )
    raise ValueError("the options leave no id to choose: they remove all of them")
