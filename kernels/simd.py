"""Vectors of 16 lanes, as a type that kernels can hold in variables.

Numba leaves the order of a sum to the compiler: `s += w[j] * x[j]` becomes a vector
loop only where sums may be reordered, and then differently in every loop. Kernels that
promise the same bits whatever they run beside need the order in their own hands, so
here are the few operations that they are written in:

    + - * /          lane by lane, on two vectors
    load(a, i)       lanes a[i], a[i+1], ... a[i+15] of the last axis (i: one index per
                     axis). int8 and bfloat16 (kept as uint16) arrive as float32.
    number(a, i)     a[i] alone, widened likewise
    store(a, i, v)   the reverse
    splat(x)         the same scalar in every lane; splat_like(v, x): of v's type
    fma(a, b, c)     a * b + c, with one rounding where the CPU has fused multiply-add
    total(v)         the sum of the lanes: 8 + 8, 4 + 4, 2 + 2, 1 + 1
    larger(a, b)     lane by lane; b where a is NaN
    smaller(a, b)
    first(v)         lane 0
    highest(v)       the largest lane
    keep(v, n, w)    lanes 0 .. n-1 of v, and the others of w
    nearest(v)       rounded to an integer; power_of_two(v): 2^v for integers v
    prefetch(a, i)   ask for the cache line of a[i], which may lie outside of a

A vector is LLVM's <16 x float> (or double, or i32): one register on a CPU with AVX-512,
two with AVX2, four with NEON, and always the same result.

A Tile is rows x columns of vectors, each the running sum of one element of a matrix
product; it exists because a product is fast only when many of them stay in registers:

    tile = zeros(rows, columns, x)                  rows and columns are constants
    tile = multiply_add(tile, x, (m, k), w, (n, k), end)
                                                    tile[r, c] += x[m+r, k:] * w[n+c, k:]
    store_totals(tile, out, (m, n), end)            out[m+r, n+c] = total(tile[r, c])
        where n+c < end; columns beyond it are not read and not written
    tile = scale_rows(tile, f, i)                   tile[r, c] *= f[i, r]
    tile = add_outer(tile, f, (r, s), v, (s, d))    tile[r, c] += f[r, s] * v[s, d+16c:]
    tile = spread(tile, a, (m, k))                  tile[r, c] = a[m+r, k:]
    tile = add_scaled(tile, integers, t, (m, b))    tile[r, c] += integers[r, c] * t[m+r, b]
    store_tile(tile, a, (i, j))                     a[i+r, j+16c:] = tile[r, c]
    tile = load_tile(tile, a, (i, j))               the reverse

A tile of int32 sums up bytes: multiply_add then takes 64 of them, x being int8 and w
uint8, and lane l adds the products 4l .. 4l+3, which is one instruction (vpdpbusd) on
CPUs with AVX-512 VNNI.

The last axis of an array must be contiguous: only its first lane's address is computed.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, overload, register_model

LANES = 16


class Vector(types.Type):
    """Numba's name for 16 lanes of a dtype."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"vector16({dtype})")


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, fe_type):
        lane = manager.lookup(fe_type.dtype).get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(lane, LANES))


def _call(builder, name, result, arguments):
    """Call one of LLVM's intrinsic functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def _suffix(kind):
    """LLVM's name of a float or a vector of floats."""
    if isinstance(kind, Vector):
        return f"v{LANES}f{kind.dtype.bitwidth}"
    return f"f{kind.bitwidth}"


def _address(context, builder, array_type, array, index_type, index, lanes=LANES):
    """Address of the first of `lanes` items, the last checked too if bounds are."""
    array = context.make_array(array_type)(context, builder, array)
    strides = cgutils.unpack_tuple(builder, array.strides)
    strides[-1] = ir.Constant(strides[-1].type, array_type.dtype.bitwidth // 8)
    if isinstance(index_type, types.BaseTuple):
        index = cgutils.unpack_tuple(builder, index)
    else:
        index = [index]
    index = [builder.sext(i, ir.IntType(64)) if i.type.width < 64 else i for i in index]

    def at(index, check):
        return cgutils.get_item_pointer2(
            context,
            builder,
            data=array.data,
            shape=cgutils.unpack_tuple(builder, array.shape),
            strides=strides,
            layout="A",
            inds=index,
            boundscheck=check,
        )

    check = context.enable_boundscheck and lanes
    if check:
        at(
            [
                *index[:-1],
                builder.add(index[-1], ir.Constant(ir.IntType(64), lanes - 1)),
            ],
            True,
        )
    return at(index, bool(check))


def _load(context, builder, array_type, array, index_type, index):
    stored = array_type.dtype
    address = _address(context, builder, array_type, array, index_type, index)
    kind = ir.VectorType(context.get_value_type(stored), LANES)
    vector = builder.load(builder.bitcast(address, kind.as_pointer()))
    vector.align = stored.bitwidth // 8  # an array promises no more
    if stored == types.int8:
        return builder.sitofp(vector, ir.VectorType(ir.FloatType(), LANES))
    if stored == types.uint16:  # bfloat16: the upper half of a float32
        words = ir.VectorType(ir.IntType(32), LANES)
        upper = builder.shl(builder.zext(vector, words), words([16] * LANES))
        return builder.bitcast(upper, ir.VectorType(ir.FloatType(), LANES))
    return vector


@intrinsic
def load(typing, array, index):
    """Lanes array[index], array[index + 1], ...; small types arrive as float32."""
    small = isinstance(array.dtype, types.Integer)
    arrives = types.float32 if small else array.dtype

    def code(context, builder, signature, arguments):
        return _load(context, builder, array, arguments[0], index, arguments[1])

    return Vector(arrives)(array, index), code


@intrinsic
def number(typing, array, index):
    """array[index], as load gives it."""
    small = isinstance(array.dtype, types.Integer)
    arrives = types.float32 if small else array.dtype

    def code(context, builder, signature, arguments):
        data, at = arguments
        items = cgutils.unpack_tuple(builder, at)
        value = _scalar(context, builder, array, data, items)
        if array.dtype == types.uint16:
            upper = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(upper, ir.FloatType())
        return builder.sitofp(value, ir.FloatType()) if small else value

    return arrives(array, index), code


def _store(context, builder, array_type, array, index_type, index, vector):
    lanes = vector.type.count
    address = _address(context, builder, array_type, array, index_type, index, lanes)
    address = builder.bitcast(address, vector.type.as_pointer())
    builder.store(vector, address).align = array_type.dtype.bitwidth // 8


@intrinsic
def store(typing, array, index, vector):
    """Write the lanes to array[index], array[index + 1], ..."""

    def code(context, builder, signature, arguments):
        data, at, lanes = arguments
        _store(context, builder, array, data, index, at, lanes)
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def splat(typing, x):
    """x in every lane."""

    def code(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return Vector(x)(x), code


@intrinsic
def splat_like(typing, vector, x):
    """x in every lane, rounded to the type of vector's lanes."""

    def code(context, builder, signature, arguments):
        scalar = context.cast(builder, arguments[1], x, vector.dtype)
        return _splat(builder, scalar)

    return vector(vector, x), code


def _splat(builder, scalar, lanes=LANES):
    kind = ir.VectorType(scalar.type, lanes)
    index = ir.IntType(32)
    first = builder.insert_element(kind(ir.Undefined), scalar, index(0))
    return builder.shuffle_vector(
        first, kind(ir.Undefined), ir.VectorType(index, lanes)([0] * lanes)
    )


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the CPU can."""

    def code(context, builder, signature, arguments):
        name = f"llvm.fmuladd.{_suffix(a)}"
        return _call(builder, name, arguments[0].type, arguments)

    return a(a, b, c), code


@intrinsic
def total(typing, vector):
    """The sum of the lanes, added in halves."""

    def code(context, builder, signature, arguments):
        sums = _sums_in_halves(builder, arguments)
        return builder.extract_element(sums, ir.IntType(32)(0))

    return vector.dtype(vector), code


def _sums_in_halves(builder, vectors):
    """One vector whose lane i is the sum of vectors[i]'s lanes (at most 16 vectors).

    Every sum is taken in halves, 8 + 8 lanes, then 4 + 4, 2 + 2, 1 + 1. After the first
    step half of each register would idle, so two vectors' halves then share one:

        a = a0 .. a15, b = b0 .. b15  ->  [a0+a8 .. a7+a15, b0+b8 .. b7+b15]

    Sixteen sums take 15 additions so, where one by one they would take 64, and have
    the same bits.
    """
    while len(vectors) & (len(vectors) - 1):  # fill up to a power of two
        vectors = [*vectors, vectors[0].type(ir.Undefined)]
    width = LANES  # lanes that are left of each sum
    while width > 1:
        width //= 2
        if len(vectors) == 1:
            pairs = [(vectors[0], vectors[0], 1)]
        else:
            pairs = [(*pair, 2) for pair in zip(vectors[::2], vectors[1::2])]
        vectors = []
        for a, b, used in pairs:
            lanes = range(0, used * a.type.count, 2 * width)
            lower = [first + lane for first in lanes for lane in range(width)]
            upper = [lane + width for lane in lower]
            kind = ir.VectorType(ir.IntType(32), len(lower))
            vectors.append(
                builder.fadd(
                    builder.shuffle_vector(a, b, kind(lower)),
                    builder.shuffle_vector(a, b, kind(upper)),
                )
            )
    return vectors[0]


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


@intrinsic
def larger(typing, a, b):
    """The larger of two numbers in every lane; b where either is NaN."""

    def code(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), code


@intrinsic
def smaller(typing, a, b):
    """The smaller of two numbers in every lane; b where either is NaN."""

    def code(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

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
            rest = builder.select(builder.fcmp_ordered(">", a, b), a, b)
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
        kept = builder.icmp_signed("<", lanes, _splat(builder, count))
        return builder.select(kept, v, other)

    return v(v, count, other), code


@intrinsic
def prefetch(typing, array, index):
    """Ask for the cache line of array[index] ahead of time; any index is harmless."""

    def code(context, builder, signature, arguments):
        address = _address(
            context, builder, array, arguments[0], index, arguments[1], lanes=0
        )
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        read, keep, data = word(0), word(3), word(1)
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, index), code


@intrinsic
def nearest(typing, x):
    """The integer nearest to x, as a float (halves go to the even one)."""

    def code(context, builder, signature, arguments):
        return _call(builder, f"llvm.rint.{_suffix(x)}", arguments[0].type, arguments)

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
def library_exp(typing, x):
    """The C library's exp, lane by lane."""

    def code(context, builder, signature, arguments):
        return _call(builder, f"llvm.exp.{_suffix(x)}", arguments[0].type, arguments)

    return x(x), code


# --- tiles


class Tile(types.Type):
    """rows x columns vectors, which stay in registers."""

    def __init__(self, rows, columns, dtype):
        self.rows, self.columns, self.dtype = rows, columns, dtype
        self.count = rows * columns
        super().__init__(f"tile({rows}x{columns}, {dtype})")


@register_model(Tile)
class _TileModel(PrimitiveModel):
    def __init__(self, manager, fe_type):
        lane = manager.lookup(fe_type.dtype).get_value_type()
        vectors = ir.ArrayType(ir.VectorType(lane, LANES), fe_type.count)
        super().__init__(manager, fe_type, vectors)


@intrinsic(prefer_literal=True)
def zeros(typing, rows, columns, array):
    """A tile of zeros of the array's dtype; rows and columns must be constants."""
    tile = Tile(rows.literal_value, columns.literal_value, array.dtype)

    def code(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(rows, columns, array), code


def _moved(builder, index, axis, by):
    """The tuple `index` with `by` added on one axis."""
    items = cgutils.unpack_tuple(builder, index)
    items[axis] = builder.add(items[axis], items[axis].type(by))
    return cgutils.pack_array(builder, items)


@intrinsic
def multiply_add(typing, tile, x, x_at, w, w_at, end):
    """tile[r, c] + x[x_at + r rows] * w[w_at + c rows], a vector each.

    Rows of w from `end` on are not read (the last one before is, in their place).
    """
    on_bytes = tile.dtype == types.int32

    def code(context, builder, signature, arguments):
        sums, x_array, x_index, w_array, w_index, end = arguments

        def vector(kind, array, at, index):
            if on_bytes:
                return _load_bytes(context, builder, kind, array, at, index)
            return _load(context, builder, kind, array, at, index)

        last = builder.sub(end, end.type(1))
        columns = []
        for c in range(tile.columns):
            index = cgutils.unpack_tuple(builder, w_index)
            row = builder.add(index[-2], end.type(c))
            beyond = builder.icmp_signed(">", row, last)
            index[-2] = builder.select(beyond, last, row)
            index = cgutils.pack_array(builder, index)
            columns.append(vector(w, w_array, w_at, index))
        for r in range(tile.rows):
            left = vector(x, x_array, x_at, _moved(builder, x_index, -2, r))
            for c, right in enumerate(columns):
                i = r * tile.columns + c
                if on_bytes:
                    before = builder.extract_value(sums, i)
                    after = _add_products_of_bytes(
                        context, builder, before, right, left
                    )
                    sums = builder.insert_value(sums, after, i)
                else:
                    sums = _accumulate(builder, tile, sums, i, left, right)
        return sums

    return tile(tile, x, x_at, w, w_at, end), code


def _load_bytes(context, builder, array_type, array, index_type, index):
    """64 bytes, as they are."""
    lanes = 4 * LANES
    address = _address(context, builder, array_type, array, index_type, index, lanes)
    kind = ir.VectorType(ir.IntType(8), lanes)
    vector = builder.load(builder.bitcast(address, kind.as_pointer()))
    vector.align = 1
    return vector


def _add_products_of_bytes(context, builder, sums, unsigned, signed):
    """sums[l] + the products of the bytes 4l .. 4l+3."""
    features = context.codegen().magic_tuple()[2]
    if "+avx512vnni" in features.split(","):
        words = [builder.bitcast(each, sums.type) for each in (unsigned, signed)]
        name = "llvm.x86.avx512.vpdpbusd.512"
        return _call(builder, name, sums.type, [sums, *words])
    wide = ir.VectorType(ir.IntType(32), 4 * LANES)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    while products.type.count > LANES:  # neighbours are added, twice
        half = products.type.count // 2
        kind = ir.VectorType(ir.IntType(32), half)
        even = kind(list(range(0, 2 * half, 2)))
        odd = kind(list(range(1, 2 * half, 2)))
        products = builder.add(
            builder.shuffle_vector(products, products, even),
            builder.shuffle_vector(products, products, odd),
        )
    return builder.add(sums, products)


@intrinsic
def sums_of_four(typing, array, index):
    """Lane l: the sum of the int8 numbers array[index + 4l .. 4l+3], as int32."""

    def code(context, builder, signature, arguments):
        data, at = arguments
        signed = _load_bytes(context, builder, array, data, index, at)
        ones = signed.type([1] * signed.type.count)
        none = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return _add_products_of_bytes(context, builder, none, ones, signed)

    return Vector(types.int32)(array, index), code


@intrinsic
def store_int8(typing, array, index, vector):
    """Write float lanes, which are integers from -128 to 127, to an int8 array."""

    def code(context, builder, signature, arguments):
        data, at, lanes = arguments
        lanes = builder.fptosi(lanes, ir.VectorType(ir.IntType(8), LANES))
        _store(context, builder, array, data, index, at, lanes)
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def magnitude(typing, vector):
    """The absolute value of every lane."""

    def code(context, builder, signature, arguments):
        name = f"llvm.fabs.{_suffix(vector)}"
        return _call(builder, name, arguments[0].type, arguments)

    return vector(vector), code


@intrinsic
def spread(typing, tile, array, index):
    """A tile with the vector at array[index + r rows] in every column of row r."""

    def code(context, builder, signature, arguments):
        sums, data, at = arguments
        for r in range(tile.rows):
            row = _moved(builder, at, -2, r)
            address = _address(context, builder, array, data, index, row)
            kind = ir.VectorType(context.get_value_type(array.dtype), LANES)
            vector = builder.load(builder.bitcast(address, kind.as_pointer()))
            vector.align = array.dtype.bitwidth // 8
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                sums = builder.insert_value(sums, vector, i)
        return sums

    return tile(tile, array, index), code


@intrinsic
def add_scaled(typing, tile, integers, scales, index):
    """tile[r, c] + float(integers[r, c]) * scales[index + r rows]."""

    def code(context, builder, signature, arguments):
        sums, whole, array, at = arguments
        for r in range(tile.rows):
            row = cgutils.unpack_tuple(builder, _moved(builder, at, -2, r))
            scale = _splat(builder, _scalar(context, builder, scales, array, row))
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                value = builder.sitofp(builder.extract_value(whole, i), scale.type)
                sums = _accumulate(builder, tile, sums, i, value, scale)
        return sums

    return tile(tile, integers, scales, index), code


@intrinsic
def scale_rows(typing, tile, factors, line):
    """tile[r, c] * factors[line, r]."""

    def code(context, builder, signature, arguments):
        sums, array, line = arguments
        for r in range(tile.rows):
            factor = _scalar(context, builder, factors, array, [line, r])
            factor = _splat(builder, factor)
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                scaled = builder.fmul(builder.extract_value(sums, i), factor)
                sums = builder.insert_value(sums, scaled, i)
        return sums

    return tile(tile, factors, line), code


def _scalar(context, builder, kind, array, index):
    index = [i if isinstance(i, ir.Value) else ir.IntType(64)(i) for i in index]
    at = types.UniTuple(types.intp, len(index))
    packed = cgutils.pack_array(builder, index)
    return builder.load(_address(context, builder, kind, array, at, packed, lanes=1))


@intrinsic
def add_outer(typing, tile, factors, factors_at, v, v_at):
    """tile[r, c] + factors[factors_at + r rows] * v[v_at + 16 c columns]."""

    def code(context, builder, signature, arguments):
        sums, f_array, f_index, v_array, v_index = arguments
        columns = []
        for c in range(tile.columns):
            index = _moved(builder, v_index, -1, LANES * c)
            columns.append(_load(context, builder, v, v_array, v_at, index))
        for r in range(tile.rows):
            index = cgutils.unpack_tuple(builder, _moved(builder, f_index, -2, r))
            factor = _scalar(context, builder, factors, f_array, index)
            factor = _splat(builder, factor)
            for c, column in enumerate(columns):
                i = r * tile.columns + c
                sums = _accumulate(builder, tile, sums, i, factor, column)
        return sums

    return tile(tile, factors, factors_at, v, v_at), code


def _accumulate(builder, tile, sums, i, a, b):
    before = builder.extract_value(sums, i)
    name = f"llvm.fmuladd.{_suffix(Vector(tile.dtype))}"
    after = _call(builder, name, before.type, [a, b, before])
    return builder.insert_value(sums, after, i)


@intrinsic
def store_totals(typing, tile, out, index, end):
    """out[index + (r, c)] = total(tile[r, c]) for columns before `end`."""

    def code(context, builder, signature, arguments):
        sums, array, at, end = arguments
        lanes = ir.VectorType(end.type, tile.columns)(list(range(tile.columns)))
        column = cgutils.unpack_tuple(builder, at)[-1]
        left = _splat(builder, builder.sub(end, column), tile.columns)
        written = builder.icmp_signed("<", lanes, left)
        vectors = [builder.extract_value(sums, i) for i in range(tile.count)]
        totals = [
            _sums_in_halves(builder, vectors[i : i + LANES])
            for i in range(0, tile.count, LANES)
        ]
        for r in range(tile.rows):  # a row's totals never straddle two vectors
            vector, lane = divmod(r * tile.columns, LANES)
            lanes = ir.VectorType(ir.IntType(32), tile.columns)
            row = builder.shuffle_vector(
                totals[vector],
                totals[vector],
                lanes(list(range(lane, lane + tile.columns))),
            )
            to = _moved(builder, at, -2, r)
            address = _address(context, builder, out, array, index, to, lanes=1)
            address = builder.bitcast(address, row.type.as_pointer())
            align = ir.IntType(32)(out.dtype.bitwidth // 8)
            name = f"llvm.masked.store.v{tile.columns}f{out.dtype.bitwidth}.p0"
            _call(builder, name, ir.VoidType(), [row, address, align, written])
        return context.get_dummy_value()

    return types.void(tile, out, index, end), code


def _corners(builder, tile, index):
    """Where a tile's vectors lie in an array [.., rows, columns * 16]."""
    for r in range(tile.rows):
        for c in range(tile.columns):
            row = _moved(builder, index, -2, r)
            yield r * tile.columns + c, _moved(builder, row, -1, LANES * c)


@intrinsic
def store_tile(typing, tile, array, index):
    """array[index + (r, 16 c)] and the 15 numbers after it = tile[r, c]."""

    def code(context, builder, signature, arguments):
        sums, data, at = arguments
        for i, corner in _corners(builder, tile, at):
            vector = builder.extract_value(sums, i)
            _store(context, builder, array, data, index, corner, vector)
        return context.get_dummy_value()

    return types.void(tile, array, index), code


@intrinsic
def load_tile(typing, tile, array, index):
    """What store_tile has stored; the argument `tile` gives the shape."""

    def code(context, builder, signature, arguments):
        sums, data, at = arguments
        for i, corner in _corners(builder, tile, at):
            vector = _load(context, builder, array, data, index, corner)
            sums = builder.insert_value(sums, vector, i)
        return sums

    return tile(tile, array, index), code
