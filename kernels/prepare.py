"""prepare: compile the kernels of a model before they are needed."""

from .attend import _cached_attend
from .matmul import _linear_bfloat16, _linear_floats
from .norms import _layer_norm
from .panels import linear_panels
from .quantized import linear_int4, linear_int8

# Beside _layer_norm and _cached_attend. (Rows of floats: the tied head's.)
LINEAR = {
    "float32": (linear_panels, _linear_floats),
    "bfloat16": (_linear_bfloat16,),
    "int8": (linear_int8,),
    "int4": (linear_int4, linear_int8),
}


def prepare(dtype, weights="float32"):
    """minigpt2.ops.prepare: compile the kernels, or read them from their cache.

    They are those of a model with GPT-2's activation and heads of 64, as it has them.

    weights: in which of parameters.WEIGHTS the model's matrices are kept.
    """
    for kernel in (_layer_norm, _cached_attend, *LINEAR[weights]):
        kernel[dtype]
