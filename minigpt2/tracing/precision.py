"""In which precision another program computed, and what rounding that excuses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..checkpoints.tensor_file import to_bfloat16

HALF = ("float16", "bfloat16")
# How far a step that is right may be from float64, of its largest value. An honest step
# was measured to be off by 6e-7, 1.5e-3 and 8e-3 at most in the last three.
TOLERANCES = {"float64": 1e-11, "float32": 3e-6, "float16": 4e-3, "bfloat16": 3e-2}
# What is looked up or added from tables, or may be 0 and 1 throughout, says nothing about
# how it was computed.
SILENT = ("wte", "wpe", "wte.types", "drop", "masked", "weights", "loss")


def rounded(array: np.ndarray, precision: str) -> np.ndarray:
    """Return float64 numbers rounded to a precision, to the nearest."""
    array = np.asarray(array, np.float64)
    if precision == "float64":
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        if precision != "bfloat16":
            return array.astype(precision).astype(np.float64)
        bits = to_bfloat16(array).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)


def precision_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return in which precision these were computed, as their values show.

    Half precision leaves nothing behind the bits that it has. Where some arrays are half
    and others not (autocast), the coarser one is returned.
    """
    telling = [
        array
        for name, array in arrays.items()
        if not name.endswith(SILENT) and np.unique(array).size >= 16
    ] or [array for array in arrays.values() if array.size]
    for precision in ("bfloat16", "float16"):
        if any(fits(array, precision) for array in telling):
            return precision
    return "float32" if all(fits(array, "float32") for array in telling) else "float64"


def fits(array: np.ndarray, precision: str) -> bool:
    """Say whether every finite number of an array is one of this precision."""
    finite = array[np.isfinite(array)]
    return bool((rounded(finite, precision) == finite).all())
