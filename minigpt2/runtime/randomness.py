"""Random numbers that are the same on every platform and with every NumPy.

NumPy promises (NEP 19) that the raw 64-bit words of a bit generator never change, but
not what its distributions make of them, and a logarithm may differ in its last bit from
one machine to the next. So everything here is raw words of PCG64, exact integer
arithmetic, and one multiplication by a constant at the end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 18  # numbers drawn at a time: what is in flight stays in the cache
LANES = np.uint64(0x0000FFFF0000FFFF)  # the even 16-bit quarters of a word


class UniformGenerator:
    """Uniform numbers in [0, 1) for the choices of one row.

    Generators of different (seed, row, sequence) have nothing to do with one another, so
    a row's numbers do not depend on the batch in which it travels. No number may be
    negative.
    """

    def __init__(self, seed: int, row: int = 0, sequence: int = 0):
        seeds = np.random.SeedSequence(seed, spawn_key=(row, sequence))
        self._bits = np.random.PCG64(seeds)

    def next(self) -> float:
        """Return the next number: the upper 53 bits of a word, times 2^-53."""
        return (self._bits.random_raw() >> 11) * 2.0**-53


def normal(
    bits: np.random.BitGenerator,
    shape: tuple[int, ...],
    std: float,
    dtype: npt.DTypeLike,
) -> np.ndarray:
    """Return an array of (nearly) normal numbers of mean 0 and standard deviation std.

    A number takes three raw 64-bit words of the bit generator. It is the sum of the
    twelve 16-bit integers u that they hold, less its mean, scaled:

        z = (u_1 + ... + u_12 - 6 * 65535) / 65536 * std

    The sum's variance is 12 * (65536^2 - 1) / 12, so that of z is std^2 (but for 2e-10
    of it); by the central limit theorem its shape is a normal's to about 3 standard
    deviations, and it never goes beyond 6.
    """
    out = np.empty(shape, dtype)
    flat = out.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        raw = bits.random_raw(3 * block.size)
        # Two 16-bit quarters of each word are added side by side, in 32-bit lanes,
        # then the lanes of three words (at most 6 * 65535 each), then the two lanes.
        pairs = (raw & LANES) + ((raw >> np.uint64(16)) & LANES)
        lanes = pairs[0::3] + pairs[1::3] + pairs[2::3]
        total = (lanes & np.uint64(0xFFFFFFFF)) + (lanes >> np.uint64(32))
        block[...] = (total.astype(np.float64) - 6 * 65535) * (std / 65536)
    return out
