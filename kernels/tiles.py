"""Tiles: blocks of running sums, for matrix products.

A Tile is rows x columns of vectors, each the running sum of one element of a product
x w^T. It exists because a product is fast only when many of them stay in registers:

    tile = zeros(rows, columns, x)           of x's dtype; rows, columns are constants
    tile = multiply_add(tile, x, (m, k), w, (n, k), (stride, end))
                                             tile[r, c] += x[m+r, k:] * w[n+c*stride, k:]
    prefetch(tile, w, (n, k), stride)        ask for the cache lines of w[n+c*stride, k]
    store_totals(tile, out, (m, n), end)     out[m+r, n+c] = total(tile[r, c])
    scatter_totals(tile, out, (m, n), (stride, end))
                                             out[m+r, n+c*stride] = total(tile[r, c])
        columns n+c*stride >= end are not read and not written
    store_tile(tile, a, (i, j))              a[i+r, j+16c:] = tile[r, c]
    tile = load_tile(tile, a, (i, j))        the reverse

For attention, and for panels:

    tile = scale_rows(tile, f, i)            tile[r, c] *= f[i, r]
    tile = add_outer(tile, f, (r, s), v, (s, d))
                                             tile[r, c] += f[r, s] * v[s, d+16c:]
    prefetch_vectors(tile, v, (s, d))        ask for the cache lines of v[s, d+16c:]

A tile of int32 sums up products of bytes, 64 of x (int8) with 64 of w (uint8) at a
time: lane l adds the products 4l .. 4l+3, which is one instruction (vpdpbusd) on CPUs
with AVX-512 VNNI.

    sums = spread(sums, a, (m, k))           sums[r, c] = a[m+r, k:]
    sums = multiply_add(sums, x, (m, k), w, (n, k), (stride, end))
    sums = multiply_add_nibbles(sums, x, (m, k), w, (n, k // 2), (stride, end))
                                             w: two to a byte, as pack_nibbles stores
    tile = add_scaled(tile, sums, t, (m, b)) tile[r, c] += sums[r, c] * t[m+r, b]
    tile = add_scaled_by_halves(tile, sums, s, (n, b), (stride, end))
                                             tile[r, c] += sums[r, c] * s[n+c*stride, b]
                                             in lanes 0 .. 7, with b+1 in 8 .. 15
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, register_model

from .codegen import (
    LANES,
    add_products_of_bytes,
    address_of,
    call,
    load_bytes,
    load_nibbles,
    load_pair,
    load_scalar,
    load_vector,
    prefetch_line,
    splat_scalar,
    store_vector,
    sums_in_halves,
)


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
def multiply_add(typing, tile, x, x_at, w, w_at, span):
    """tile[r, c] + x[x_at + r rows] * w[w_at + c rows], a vector each.

    span = (stride, end): columns are `stride` rows of w apart. Those from `end` on are
    not read; the last row before is, in their place.
    """
    if tile.dtype == types.int32:
        steps = load_bytes, load_bytes, add_products_of_bytes
    else:
        steps = load_vector, load_vector, _fused
    return _multiply_add(*steps, tile, x, x_at, w, w_at, span)


@intrinsic
def multiply_add_nibbles(typing, tile, x, x_at, w, w_at, span):
    """The same, each byte of w being two numbers from 0 to 15: see load_nibbles."""
    steps = load_bytes, load_nibbles, add_products_of_bytes
    return _multiply_add(*steps, tile, x, x_at, w, w_at, span)


def _multiply_add(load_x, load_w, accumulate, tile, x, x_at, w, w_at, span):
    def code(context, builder, signature, arguments):
        sums, x_array, x_index, w_array, w_index, span = arguments
        columns = [
            load_w(context, builder, w, w_array, w_at, index)
            for index in _columns(builder, tile, w_index, span)
        ]
        for r in range(tile.rows):
            index = _moved(builder, x_index, -2, r)
            row = load_x(context, builder, x, x_array, x_at, index)
            for c, column in enumerate(columns):
                i = r * tile.columns + c
                before = builder.extract_value(sums, i)
                after = accumulate(context, builder, before, column, row)
                sums = builder.insert_value(sums, after, i)
        return sums

    return tile(tile, x, x_at, w, w_at, span), code


def _columns(builder, tile, index, span):
    """The index of each of the tile's columns: c * stride rows further, before end."""
    stride, end = cgutils.unpack_tuple(builder, span)
    last = builder.sub(end, end.type(1))
    for c in range(tile.columns):
        items = cgutils.unpack_tuple(builder, index)
        row = builder.add(items[-2], builder.mul(stride, stride.type(c)))
        beyond = builder.icmp_signed(">", row, last)
        items[-2] = builder.select(beyond, last, row)
        yield cgutils.pack_array(builder, items)


def _fused(context, builder, before, a, b):
    """before + a * b, rounded once where the CPU can."""
    name = f"llvm.fmuladd.v{LANES}f{32 if a.type.element == ir.FloatType() else 64}"
    return call(builder, name, before.type, [a, b, before])


@intrinsic
def prefetch(typing, tile, w, index, stride):
    """Ask for the cache line of w[index + c stride rows], which may lie outside of w."""

    def code(context, builder, signature, arguments):
        _, array, at, stride = arguments
        for c in range(tile.columns):
            items = cgutils.unpack_tuple(builder, at)
            items[-2] = builder.add(items[-2], builder.mul(stride, stride.type(c)))
            items = cgutils.pack_array(builder, items)
            address = address_of(context, builder, w, array, index, items, lanes=0)
            prefetch_line(builder, address)
        return context.get_dummy_value()

    return types.void(tile, w, index, stride), code


@intrinsic
def prefetch_vectors(typing, tile, v, index):
    """Ask for what add_outer reads of v at `index`, which may lie outside of v."""

    def code(context, builder, signature, arguments):
        _, array, at = arguments
        for c in range(tile.columns):
            vector = _moved(builder, at, -1, LANES * c)
            address = address_of(context, builder, v, array, index, vector, lanes=0)
            prefetch_line(builder, address)
        return context.get_dummy_value()

    return types.void(tile, v, index), code


@intrinsic
def spread(typing, tile, array, index):
    """A tile with the vector at array[index + r rows] in every column of row r."""

    def code(context, builder, signature, arguments):
        sums, data, at = arguments
        for r in range(tile.rows):
            row = _moved(builder, at, -2, r)
            vector = load_vector(context, builder, array, data, index, row)
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                sums = builder.insert_value(sums, vector, i)
        return sums

    return tile(tile, array, index), code


@intrinsic
def add_scaled(typing, tile, sums, scales, index):
    """tile[r, c] + float(sums[r, c]) * scales[index + r rows]."""

    def code(context, builder, signature, arguments):
        result, parts, array, at = arguments
        for r in range(tile.rows):
            row = cgutils.unpack_tuple(builder, _moved(builder, at, -2, r))
            scale = load_scalar(context, builder, scales, array, row)
            scale = splat_scalar(builder, scale)
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                part = builder.extract_value(parts, i)
                if sums.dtype == types.int32:
                    part = builder.sitofp(part, scale.type)
                result = _accumulate(context, builder, result, i, part, scale)
        return result

    return tile(tile, sums, scales, index), code


@intrinsic
def add_scaled_by_halves(typing, tile, sums, scales, index, span):
    """tile[r, c] + float(sums[r, c]) * the scales of column c, one for 8 lanes each."""

    def code(context, builder, signature, arguments):
        result, parts, array, at, span = arguments
        for c, column in enumerate(_columns(builder, tile, at, span)):
            scale = load_pair(context, builder, scales, array, index, column)
            for i in range(c, tile.count, tile.columns):
                part = builder.sitofp(builder.extract_value(parts, i), scale.type)
                result = _accumulate(context, builder, result, i, part, scale)
        return result

    return tile(tile, sums, scales, index, span), code


@intrinsic
def scale_rows(typing, tile, factors, line):
    """tile[r, c] * factors[line, r]."""

    def code(context, builder, signature, arguments):
        sums, array, line = arguments
        for r in range(tile.rows):
            factor = load_scalar(context, builder, factors, array, [line, r])
            factor = splat_scalar(builder, factor)
            for i in range(r * tile.columns, (r + 1) * tile.columns):
                scaled = builder.fmul(builder.extract_value(sums, i), factor)
                sums = builder.insert_value(sums, scaled, i)
        return sums

    return tile(tile, factors, line), code


@intrinsic
def add_outer(typing, tile, factors, factors_at, v, v_at):
    """tile[r, c] + factors[factors_at + r rows] * v[v_at + 16 c columns]."""

    def code(context, builder, signature, arguments):
        sums, f_array, f_index, v_array, v_index = arguments
        columns = []
        for c in range(tile.columns):
            index = _moved(builder, v_index, -1, LANES * c)
            columns.append(load_vector(context, builder, v, v_array, v_at, index))
        for r in range(tile.rows):
            index = cgutils.unpack_tuple(builder, _moved(builder, f_index, -2, r))
            factor = load_scalar(context, builder, factors, f_array, index)
            factor = splat_scalar(builder, factor)
            for c, column in enumerate(columns):
                i = r * tile.columns + c
                sums = _accumulate(context, builder, sums, i, factor, column)
        return sums

    return tile(tile, factors, factors_at, v, v_at), code


def _accumulate(context, builder, sums, i, a, b):
    before = builder.extract_value(sums, i)
    return builder.insert_value(sums, _fused(context, builder, before, a, b), i)


@intrinsic
def store_totals(typing, tile, out, index, end):
    """out[index + (r, c)] = total(tile[r, c]) for columns before `end`."""

    def code(context, builder, signature, arguments):
        sums, array, at, end = arguments
        lanes = ir.VectorType(end.type, tile.columns)(list(range(tile.columns)))
        column = cgutils.unpack_tuple(builder, at)[-1]
        left = splat_scalar(builder, builder.sub(end, column), tile.columns)
        written = builder.icmp_signed("<", lanes, left)
        vectors = [builder.extract_value(sums, i) for i in range(tile.count)]
        totals = [
            sums_in_halves(builder, vectors[i : i + LANES])
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
            address = address_of(context, builder, out, array, index, to, lanes=1)
            address = builder.bitcast(address, row.type.as_pointer())
            align = ir.IntType(32)(out.dtype.bitwidth // 8)
            name = f"llvm.masked.store.v{tile.columns}f{out.dtype.bitwidth}.p0"
            call(builder, name, ir.VoidType(), [row, address, align, written])
        return context.get_dummy_value()

    return types.void(tile, out, index, end), code


@intrinsic
def scatter_totals(typing, tile, out, index, span):
    """The same for columns that are `stride` apart, span = (stride, end)."""

    def code(context, builder, signature, arguments):
        sums, array, at, span = arguments
        stride, end = cgutils.unpack_tuple(builder, span)
        last = builder.sub(end, end.type(1))
        vectors = [builder.extract_value(sums, i) for i in range(tile.count)]
        totals = sums_in_halves(builder, vectors)
        for r in range(tile.rows):
            row, first = cgutils.unpack_tuple(builder, _moved(builder, at, -2, r))
            for c in range(tile.columns):
                column = builder.add(first, builder.mul(stride, stride.type(c)))
                beyond = builder.icmp_signed(">", column, last)
                # Beyond the end is the last column once more, with the same total.
                column = builder.select(beyond, last, column)
                to = cgutils.pack_array(builder, [row, column])
                address = address_of(context, builder, out, array, index, to, lanes=1)
                lane = ir.IntType(32)(r * tile.columns + c)
                builder.store(builder.extract_element(totals, lane), address)
        return context.get_dummy_value()

    return types.void(tile, out, index, span), code


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
            store_vector(context, builder, array, data, index, corner, vector)
        return context.get_dummy_value()

    return types.void(tile, array, index), code


@intrinsic
def load_tile(typing, tile, array, index):
    """What store_tile has stored; the argument `tile` gives the shape."""

    def code(context, builder, signature, arguments):
        sums, data, at = arguments
        for i, corner in _corners(builder, tile, at):
            vector = load_vector(context, builder, array, data, index, corner)
            sums = builder.insert_value(sums, vector, i)
        return sums

    return tile(tile, array, index), code
