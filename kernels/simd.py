"""What Numba lacks and the kernels need from LLVM."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def nearest(typing, x):
    """The integer nearest to x, as a float (halves go to the even one)."""

    def code(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        name = {types.float32: "f32", types.float64: "f64"}[signature.return_type]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind]), f"llvm.rint.{name}"
        )
        return builder.call(function, arguments)

    return x(x), code


@intrinsic
def float_of_bits(typing, bits):
    """The float32 whose bits are those of an int32."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code
