"""exp, as a polynomial that vectorises.

`math.exp` compiles to a call of the C library, one element at a time. For float32,
exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln(2)/2, where a polynomial of
degree 6 has a relative error below float32's rounding. float64 is for reference runs
and keeps the C library's exp.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from .jit import helper
from .simd import float_of_bits, nearest

LOG2_E = np.float32(1.0 / math.log(2.0))
# ln 2 in two pieces: n times the first is exact (it has 9 bits), so x - n ln 2 is too.
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(math.log(2.0) - 0.693359375)
# exp(r) on [-ln(2)/2, ln(2)/2], least worst relative error (Remez), c0 = c1 = 1 kept.
C2, C3, C4, C5, C6 = (
    np.float32(c) for c in (0.49999993, 0.16666521, 0.04166839, 0.00836871, 0.00138146)
)


def exp(x):
    """e^x, in kernels: within 1.5 units in the last place; inf and 0 beyond range."""
    return np.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_float32(x)
    return lambda x: math.exp(x)


@helper
def _exp_float32(x):
    # Beyond [-104, 90] the result is 0 or inf. A NaN passes: no comparison holds.
    x = np.float32(90.0) if x > np.float32(90.0) else x
    x = np.float32(-104.0) if x < np.float32(-104.0) else x
    n = nearest(x * LOG2_E)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = C5 + r * C6
    p = C4 + r * p
    p = C3 + r * p
    p = C2 + r * p
    p = (r * r) * p + r + np.float32(1.0)
    # 2^n in two factors, as n goes from -150 to 130 and one factor holds -126 .. 127.
    n = np.int32(n)
    half = n >> np.int32(1)
    return p * _power_of_two(half) * _power_of_two(n - half)


@helper
def _power_of_two(n):
    return float_of_bits((n + np.int32(127)) << np.int32(23))
