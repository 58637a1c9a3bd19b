"""exp of vectors: a polynomial in float32.

`math.exp` compiles to a call of the C library, one element at a time. For float32,
exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln(2)/2, where a polynomial of
degree 6 has a relative error below float32's rounding. float64 is the reference, and
keeps the C library's exp.
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from .codegen import call, suffix
from .simd import (
    fma,
    larger,
    nearest,
    power_of_two,
    smaller,
    splat,
)

LOG2_E = np.float32(1.0 / math.log(2.0))
# ln 2 in two pieces: n times the first is exact (it has 9 bits), so x - n ln 2 is too.
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(math.log(2.0) - 0.693359375)
# exp(r) = 1 + r + r^2 (C2 + C3 r + ... + C6 r^4), of least worst relative error, 4e-9,
# for |r| <= ln(2)/2 (Lawson's algorithm).
C2, C3, C4, C5, C6 = (
    np.float32(c) for c in (0.49999993, 0.16666521, 0.04166839, 0.00836871, 0.00138146)
)


@intrinsic
def exp(typing, x):
    """e^x, lane by lane; inf and 0 beyond the range of the type.

    In float32 what is less than 2^-126 is 0: next to 1, as in a softmax, it is nothing.
    """

    def code(context, builder, signature, arguments):
        if x.dtype == types.float32:
            return context.compile_internal(builder, _polynomial, signature, arguments)
        return call(builder, f"llvm.exp.{suffix(x)}", arguments[0].type, arguments)

    return x(x), code


def _polynomial(x):
    # Beyond [-87.4, 89] the result is 0 or inf. NaN stays: both return their second
    # argument where a comparison with it is false.
    x = larger(splat(np.float32(-87.4)), smaller(splat(np.float32(89.0)), x))
    n = nearest(x * splat(LOG2_E))
    r = fma(n, splat(-LN2_LOW), fma(n, splat(-LN2_HIGH), x))
    p = fma(splat(C6), r, splat(C5))
    p = fma(p, r, splat(C4))
    p = fma(p, r, splat(C3))
    p = fma(p, r, splat(C2))
    p = fma(r * r, p, r) + splat(np.float32(1.0))
    # 2^n = 2 * 2^(n - 1), as n goes up to 128; for n = -126 the second factor is 0.
    return (p + p) * power_of_two(n - splat(np.float32(1.0)))
