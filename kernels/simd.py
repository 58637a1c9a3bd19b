"""Vectors of 16 lanes, as a type that kernels can hold in variables.

Numba leaves the order of a sum to the compiler: `s += w[j] * x[j]` becomes a vector
loop only where sums may be reordered, and then differently in every loop. Kernels that
promise the same bits whatever they run beside need the order in their own hands, so
here are the operations that they are written in, of which these are the first:

    + - * /          lane by lane, on two vectors
    load(a, i)       lanes a[i], a[i+1], ... a[i+15] of the last axis (i: one index per
                     axis). bfloat16, kept as uint16, arrives as float32.
    number(a, i)     a[i] alone, widened likewise
    store(a, i, v)   the reverse
    splat(x)         the same scalar in every lane; splat_like(v, x): of v's type
    fma(a, b, c)     a * b + c, with one rounding where the CPU has fused multiply-add
    total(v)         the sum of the lanes: 8 + 8, 4 + 4, 2 + 2, 1 + 1
    larger(a, b)     lane by lane; b where either is NaN
    smaller(a, b)
    first(v)         lane 0
    highest(v)       the largest lane
    keep(v, n, w)    lanes 0 .. n-1 of v, and the others of w
    nearest(v)       rounded to an integer; power_of_two(v): 2^v for integers v

exponential.py adds exp(v).

A vector is LLVM's <16 x float> (or double, or i32): one register on a CPU with AVX-512,
two with AVX2, four with NEON, and always the same result.

tiles.py has blocks of vectors, for matrix products.

The last axis of an array must be contiguous: only its first lane's address is computed.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .codegen import (
    LANES,
    Vector,
    add_products_of_bytes,
    call,
    load_bytes,
    load_scalar,
    load_vector,
    splat_scalar,
    store_vector,
    suffix,
    sums_in_halves,
)


@intrinsic
def load(typing, array, index):
    """Lanes array[index], array[index + 1], ...; bfloat16 arrives as float32."""
    arrives = types.float32 if array.dtype == types.uint16 else array.dtype

    def code(context, builder, signature, arguments):
        return load_vector(context, builder, array, arguments[0], index, arguments[1])

    return Vector(arrives)(array, index), code


@intrinsic
def number(typing, array, index):
    """array[index], as load gives it."""
    widens = array.dtype == types.uint16
    arrives = types.float32 if widens else array.dtype

    def code(context, builder, signature, arguments):
        data, at = arguments
        items = cgutils.unpack_tuple(builder, at)
        value = load_scalar(context, builder, array, data, items)
        if widens:
            upper = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(upper, ir.FloatType())
        return value

    return arrives(array, index), code


@intrinsic
def store(typing, array, index, vector):
    """Write the lanes to array[index], array[index + 1], ..."""

    def code(context, builder, signature, arguments):
        data, at, lanes = arguments
        store_vector(context, builder, array, data, index, at, lanes)
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def splat(typing, x):
    """x in every lane."""

    def code(context, builder, signature, arguments):
        return splat_scalar(builder, arguments[0])

    return Vector(x)(x), code


@intrinsic
def splat_like(typing, vector, x):
    """x in every lane, rounded to the type of vector's lanes."""

    def code(context, builder, signature, arguments):
        scalar = context.cast(builder, arguments[1], x, vector.dtype)
        return splat_scalar(builder, scalar)

    return vector(vector, x), code


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the CPU can."""

    def code(context, builder, signature, arguments):
        name = f"llvm.fmuladd.{suffix(a)}"
        return call(builder, name, arguments[0].type, arguments)

    return a(a, b, c), code


@intrinsic
def total(typing, vector):
    """The sum of the lanes, added in halves."""

    def code(context, builder, signature, arguments):
        sums = sums_in_halves(builder, arguments)
        return builder.extract_element(sums, ir.IntType(32)(0))

    return vector.dtype(vector), code


def _lane_by_lane(operation, code):
    """Teach Numba an operator on two vectors."""

    @intrinsic
    def on_lanes(typing, a, b):
        def generate(context, builder, signature, arguments):
            integers = isinstance(a.dtype, types.Integer)
            return getattr(builder, code[1:] if integers else code)(*arguments)

        return a(a, b), generate

    @overload(operation)
    def _(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: on_lanes(a, b)


_lane_by_lane(operator.add, "fadd")
_lane_by_lane(operator.sub, "fsub")
_lane_by_lane(operator.mul, "fmul")
_lane_by_lane(operator.truediv, "fdiv")


def _greater(builder, a, b):
    if isinstance(a.type.element, ir.IntType):
        return builder.icmp_signed(">", a, b)
    return builder.fcmp_ordered(">", a, b)


@intrinsic
def larger(typing, a, b):
    """The larger of two numbers in every lane; b where either is NaN."""

    def code(context, builder, signature, arguments):
        return builder.select(_greater(builder, *arguments), *arguments)

    return a(a, b), code


@intrinsic
def smaller(typing, a, b):
    """The smaller of two numbers in every lane; b where either is NaN."""

    def code(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(_greater(builder, b, a), a, b)

    return a(a, b), code


@intrinsic
def highest(typing, vector):
    """The largest lane."""

    def code(context, builder, signature, arguments):
        (rest,) = arguments
        index = ir.IntType(32)
        half = LANES // 2
        while half:
            kind = ir.VectorType(index, half)
            a = builder.shuffle_vector(rest, rest, kind(list(range(half))))
            b = builder.shuffle_vector(rest, rest, kind(list(range(half, 2 * half))))
            rest = builder.select(_greater(builder, a, b), a, b)
            half //= 2
        return builder.extract_element(rest, index(0))

    return vector.dtype(vector), code


@intrinsic
def first(typing, vector):
    """Lane 0."""

    def code(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], ir.IntType(32)(0))

    return vector.dtype(vector), code


@intrinsic
def keep(typing, v, count, other):
    """Lanes 0 .. count-1 of v and the others of `other`."""

    def code(context, builder, signature, arguments):
        v, count, other = arguments
        lanes = ir.VectorType(count.type, LANES)(list(range(LANES)))
        kept = builder.icmp_signed("<", lanes, splat_scalar(builder, count))
        return builder.select(kept, v, other)

    return v(v, count, other), code


@intrinsic
def nearest(typing, x):
    """The integer nearest to x, as a float (halves go to the even one)."""

    def code(context, builder, signature, arguments):
        return call(builder, f"llvm.rint.{suffix(x)}", arguments[0].type, arguments)

    return x(x), code


@intrinsic
def power_of_two(typing, x):
    """2^x for float32 integers x from -126 to 127: the bits of a float's exponent."""

    def code(context, builder, signature, arguments):
        (x,) = arguments
        word = ir.IntType(32)
        bias, place = word(127), word(23)
        if isinstance(x.type, ir.VectorType):
            word = ir.VectorType(word, LANES)
            bias, place = word([127] * LANES), word([23] * LANES)
        exponent = builder.add(builder.fptosi(x, word), bias)
        return builder.bitcast(builder.shl(exponent, place), x.type)

    return x(x), code


@intrinsic
def sums_of_four(typing, array, index):
    """Lane l: the sum of the int8 numbers array[index + 4l .. 4l+3], as int32."""

    def code(context, builder, signature, arguments):
        data, at = arguments
        signed = load_bytes(context, builder, array, data, index, at)
        ones = signed.type([1] * signed.type.count)
        none = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return add_products_of_bytes(context, builder, none, ones, signed)

    return Vector(types.int32)(array, index), code


@intrinsic
def store_int8(typing, array, index, vector):
    """Write float lanes, which are integers from -128 to 127, to an int8 array."""

    def code(context, builder, signature, arguments):
        data, at, lanes = arguments
        lanes = builder.fptosi(lanes, ir.VectorType(ir.IntType(8), LANES))
        store_vector(context, builder, array, data, index, at, lanes)
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def magnitude(typing, vector):
    """The bits of the absolute values of float32 lanes, as int32.

    They have the order of the numbers, with NaN above all.
    """

    def code(context, builder, signature, arguments):
        words = ir.VectorType(ir.IntType(32), LANES)
        bits = builder.bitcast(arguments[0], words)
        return builder.and_(bits, words([0x7FFFFFFF] * LANES))

    return Vector(types.int32)(vector), code


@intrinsic
def float_of(typing, bits):
    """The float32 of an int32's bits."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), code


@intrinsic
def float_of_half(typing, bits):
    """The float32 of a float16, which Numba does not know, from its bits in uint16."""

    def code(context, builder, signature, arguments):
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(bits), code
