"""The pieces of LLVM code that simd.py and tiles.py are put together from.

Each function adds instructions at `builder`'s place and returns a value of LLVM's.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.core.registry import cpu_target
from numba.extending import register_model

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


def has_wide_registers():
    """Whether the CPU compiled for has AVX-512: 32 registers, each of 16 float32."""
    return "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def call(builder, name, result, arguments):
    """Call one of LLVM's intrinsic functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def suffix(kind):
    """LLVM's name of a float or a vector of floats."""
    if isinstance(kind, Vector):
        return f"v{LANES}f{kind.dtype.bitwidth}"
    return f"f{kind.bitwidth}"


def address_of(context, builder, array_type, array, index_type, index, lanes=LANES):
    """Address of the first of `lanes` items. A check of bounds checks the last, too."""
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


def load_lanes(context, builder, array_type, array, index_type, index, lanes=LANES):
    """`lanes` neighbors on the last axis, as they are stored."""
    address = address_of(context, builder, array_type, array, index_type, index, lanes)
    kind = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
    vector = builder.load(builder.bitcast(address, kind.as_pointer()))
    vector.align = array_type.dtype.bitwidth // 8  # an array promises no more
    return vector


def load_vector(context, builder, array_type, array, index_type, index):
    """16 neighbors; bfloat16, which is kept as uint16, arrives as float32."""
    vector = load_lanes(context, builder, array_type, array, index_type, index)
    if array_type.dtype == types.uint16:  # the upper half of a float32
        words = ir.VectorType(ir.IntType(32), LANES)
        upper = builder.shl(builder.zext(vector, words), words([16] * LANES))
        return builder.bitcast(upper, ir.VectorType(ir.FloatType(), LANES))
    return vector


def load_scalar(context, builder, kind, array, index):
    index = [i if isinstance(i, ir.Value) else ir.IntType(64)(i) for i in index]
    at = types.UniTuple(types.intp, len(index))
    packed = cgutils.pack_array(builder, index)
    return builder.load(address_of(context, builder, kind, array, at, packed, lanes=1))


def store_vector(context, builder, array_type, array, index_type, index, vector):
    lanes = vector.type.count
    address = address_of(context, builder, array_type, array, index_type, index, lanes)
    address = builder.bitcast(address, vector.type.as_pointer())
    builder.store(vector, address).align = array_type.dtype.bitwidth // 8


def splat_scalar(builder, scalar, lanes=LANES):
    kind = ir.VectorType(scalar.type, lanes)
    index = ir.IntType(32)
    first = builder.insert_element(kind(ir.Undefined), scalar, index(0))
    return builder.shuffle_vector(
        first, kind(ir.Undefined), ir.VectorType(index, lanes)([0] * lanes)
    )


def load_bytes(context, builder, array_type, array, index_type, index):
    """64 bytes."""
    return load_lanes(context, builder, array_type, array, index_type, index, 4 * LANES)


def load_nibbles(context, builder, array_type, array, index_type, index):
    """64 numbers of 4 bits from 32 bytes: their low halves, then their high ones."""
    both = load_lanes(context, builder, array_type, array, index_type, index, 2 * LANES)
    twice = list(range(2 * LANES)) * 2
    both = builder.shuffle_vector(both, both, ir.VectorType(ir.IntType(32), 64)(twice))
    # Shifted in words of 16 bits, as no CPU shifts single bytes; the & clears what
    # comes from a neighbor.
    words = ir.VectorType(ir.IntType(16), 2 * LANES)
    moved = builder.lshr(builder.bitcast(both, words), words([0] * LANES + [4] * LANES))
    return builder.and_(builder.bitcast(moved, both.type), both.type([15] * 64))


def load_pair(context, builder, array_type, array, index_type, index):
    """Two neighbors, in lanes 0 .. 7 and 8 .. 15."""
    pair = load_lanes(context, builder, array_type, array, index_type, index, 2)
    lanes = ir.VectorType(ir.IntType(32), LANES)([0] * 8 + [1] * 8)
    return builder.shuffle_vector(pair, pair, lanes)


def add_products_of_bytes(context, builder, sums, unsigned, signed):
    """sums[l] + the products of the bytes 4l .. 4l+3."""
    features = context.codegen().magic_tuple()[2]
    if "+avx512vnni" in features.split(","):
        words = [builder.bitcast(each, sums.type) for each in (unsigned, signed)]
        name = "llvm.x86.avx512.vpdpbusd.512"
        return call(builder, name, sums.type, [sums, *words])
    wide = ir.VectorType(ir.IntType(32), 4 * LANES)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    while products.type.count > LANES:  # neighbors are added, twice
        half = products.type.count // 2
        kind = ir.VectorType(ir.IntType(32), half)
        even = kind(list(range(0, 2 * half, 2)))
        odd = kind(list(range(1, 2 * half, 2)))
        products = builder.add(
            builder.shuffle_vector(products, products, even),
            builder.shuffle_vector(products, products, odd),
        )
    return builder.add(sums, products)


def prefetch_line(builder, address):
    """Ask for the cache line of an address; any address is harmless."""
    word = ir.IntType(32)
    read, keep, data = word(0), word(3), word(1)
    address = builder.bitcast(address, ir.IntType(8).as_pointer())
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, read, keep, data])


def sums_in_halves(builder, vectors):
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
