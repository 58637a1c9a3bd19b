"""Assertions for the tests of another port: its numbers against a golden's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..checkpoints.names import PREFIX
from ..tracing.dumps import read_dump
from ..tracing.golden import Golden, read_golden, that_count

SLACK = 8.0  # times what float32 differs from float64 here
ULPS = 16  # of the largest number of a step: what is always granted


def assert_matches(
    golden: Golden | str | os.PathLike,
    theirs: Mapping[str, npt.ArrayLike] | str | os.PathLike,
    *,
    rtol: float | None = None,
) -> None:
    """Assert that the steps which both have are alike, the first that differs first.

    Names are the golden's, with `transformer.` or without; for names and layouts of
    others, and for what is wrong in the step that differs, there is diagnose. What a
    position of padding gives is nobody's promise, and is left out.

    Args:
        golden: a Golden, or its file.
        theirs: {name: array}, or the file or folder of a dump.
        rtol: how far a step may be off, as a part of its largest number. None is what the
            golden has measured: 8 times what float32 differs from float64, and 16 units
            in the last place of the largest number, be it more.

    Raises:
        AssertionError: a step differs or has another shape, or there is none in common.
    """
    if not isinstance(golden, Golden):
        golden = read_golden(golden)
    if isinstance(theirs, (str, os.PathLike)):
        theirs = read_dump(Path(theirs))
    common, wrong = 0, []
    for name, expected in golden.steps.items():
        known = [n for n in (name, name.removeprefix(PREFIX)) if n in theirs]
        if not known:
            continue
        common += 1
        measured = golden.tolerance.get(name)
        actual = np.asarray(theirs[known[0]])
        counts = that_count(name, expected.shape, golden.key_mask)
        difference = _difference(actual, expected, counts, measured, rtol)
        if difference is not None:
            wrong.append(f"{name}: {difference}")
    if not common:
        raise AssertionError(
            f"there is no step in common: the golden has {', '.join(list(golden)[:4])} "
            f"and so on, and theirs are {', '.join(list(theirs)[:4])}"
        )
    if wrong:
        more = f"\n({len(wrong) - 1} more steps differ)" if wrong[1:] else ""
        raise AssertionError(
            f"{wrong[0]}{more}\n(`minigpt2 golden diff` says which step is wrong, and "
            "often what is wrong in it)"
        )


def _difference(
    actual: np.ndarray,
    expected: np.ndarray,
    counts: np.ndarray,
    measured: float | None,
    rtol: float | None,
) -> str | None:
    """Say how a step differs; None if it does not by more than is granted."""
    if actual.shape != expected.shape:
        return f"its shape is {actual.shape}, and the golden's {expected.shape}"
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected)
    finite = np.isfinite(expected) & counts
    largest = float(
        np.abs(expected, where=finite, out=np.zeros(expected.shape)).max(initial=0.0)
    )
    if rtol is not None:
        tolerance = rtol * largest
    else:
        floor = ULPS * float(np.finfo(np.float32).eps) * largest
        tolerance = max(SLACK * (measured or 0.0), floor)
    with np.errstate(invalid="ignore"):  # inf - inf
        wrong = ~(np.abs(actual - expected) <= tolerance)  # NaN counts as wrong
    # Where the golden has -inf, any number will do that softmax makes 0.
    wrong &= counts & ~(np.isneginf(expected) & (actual <= -1e4))
    if not wrong.any():
        return None
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"{wrong.sum()} of {wrong.size} numbers differ by more than {tolerance:.3g}; the "
        f"first is {list(first)}: {actual[first]:.9g}, and in the golden "
        f"{expected[first]:.9g}"
    )


def assert_logits_close(
    actual: npt.ArrayLike, expected: npt.ArrayLike, *, rtol: float = 1e-5
) -> None:
    """Assert that logits are alike, and choose alike wherever the choice is clear.

    No logit may differ by more than the tolerance: `rtol` times the largest of all. And
    at each position the likeliest id must be the same if, of `expected`, it is ahead of
    the second by more than the tolerance. Where two ids are nearer than that, either is
    right: a greedy text may differ from there on, and no port is wrong for it.

    Args:
        actual: [..., V].
        expected: [..., V].
        rtol: 1e-5 suits float32; 2e-2 suits bfloat16.

    Raises:
        AssertionError: they have other shapes, differ, or choose otherwise.
    """
    ours = np.asarray(expected, np.float64)
    theirs = np.asarray(actual, np.float64)
    assert theirs.shape == ours.shape, f"{theirs.shape} against {ours.shape}"
    tolerance = rtol * float(np.abs(ours).max(initial=0.0))
    best = ours.argmax(axis=-1)  # [...]
    if ours.shape[-1] > 1:
        second, first = np.moveaxis(np.partition(ours, -2, axis=-1)[..., -2:], -1, 0)
        clear = first - second > tolerance
        flipped = clear & (theirs.argmax(axis=-1) != best)
        if flipped.any():
            at = tuple(int(i) for i in np.argwhere(flipped)[0])
            raise AssertionError(
                f"at {list(at)} the likeliest id is {theirs[at].argmax()}, and should be "
                f"{best[at]}, which is ahead by {first[at] - second[at]:.3g} (the "
                f"tolerance is {tolerance:.3g})"
            )
    wrong = ~(np.abs(theirs - ours) <= tolerance)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} logits differ by more than {tolerance:.3g}; "
            f"the first is {list(at)}: {theirs[at]:.9g}, and should be {ours[at]:.9g}"
        )
