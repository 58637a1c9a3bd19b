"""Kernels on quantized matrices against the formulas in minigpt2.quantization."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import kernels, ops
from minigpt2.quantization import X_BLOCK, quantized

relaxed = settings(deadline=None, max_examples=60)  # a first call compiles
FORMATS = ("bfloat16", "int8", "int4")
integers = pytest.mark.parametrize("weight_format", ["int8", "int4"])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def inner_sizes(weight_format):
    """Lengths of a product: from 1 (int4: 64) to beyond a block of every kernel."""
    if weight_format == "int4":
        return st.sampled_from([64, 128, 192, 320, 768, 1600])
    return st.one_of(st.integers(1, 300), st.sampled_from([768, 1000, 1600]))


@integers
@relaxed
@given(data=st.data(), rows=st.integers(1, 60), columns=st.integers(1, 210))
def test_a_product_with_integers_is_the_formula(weight_format, data, rows, columns):
    inner = data.draw(inner_sizes(weight_format))
    # The least are below float32's normal numbers: blocks that count as zeros.
    spread = np.float32(data.draw(st.sampled_from([1e-42, 1e-20, 1.0, 1e4])))
    seed = data.draw(st.integers(0, 99))
    x = normal(seed, rows, inner) * spread
    x[0, : inner // 2] = 0.0  # blocks of zeros have a scale of zero
    matrix = quantized(normal(seed + 1, columns, inner), weight_format)
    bias = normal(seed + 2, columns) * spread
    expected = ops.linear(x, matrix, bias)
    got = kernels.linear(x, matrix, bias)
    # The sums of integers are exact; only the scaled sums of blocks are rounded, a few
    # times each, of numbers whose sizes are what |x| |W| sums up.
    size = np.abs(x) @ np.abs(np.asarray(matrix)).T + np.abs(bias)
    assert (np.abs(got - expected) <= 1e-6 * size + 1e-40).all()


@relaxed
@given(
    rows=st.integers(1, 20),
    inner=inner_sizes("bfloat16"),
    columns=st.integers(1, 210),
    special=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_bfloat16_product_has_the_bits_of_the_widened_matrix(
    rows, inner, columns, special, seed
):
    x, matrix = normal(seed, rows, inner), normal(seed + 1, columns, inner)
    if special:
        values = np.float32([np.nan, np.inf, -np.inf, 1e-42, -0.0, 3e38])
        generator = np.random.default_rng(seed)
        for array in (x, matrix):
            places = generator.integers(0, array.size, 6)
            array.reshape(-1)[places] = generator.permutation(values)
    stored = quantized(matrix, "bfloat16")
    # The same sums in the same order: the same bits.
    with np.errstate(all="ignore"):
        expected = kernels.linear(x, kernels.pack(np.asarray(stored).T))
        assert np.array_equal(kernels.linear(x, stored), expected, equal_nan=True)


@pytest.mark.parametrize("weight_format", FORMATS)
@relaxed
@given(data=st.data(), rows=st.integers(2, 60), columns=st.integers(1, 210))
def test_a_row_has_the_same_bits_alone_and_in_any_batch(
    weight_format, data, rows, columns
):
    inner = data.draw(inner_sizes(weight_format))
    seed, threads = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([1, 2]))
    x, residual = normal(seed, rows, inner), normal(seed + 2, rows, columns)
    matrix = quantized(normal(seed + 1, columns, inner), weight_format)
    norm = (*normal(seed + 3, 2, inner), 1e-5)

    def both(x, residual):
        activated = kernels.norm_linear(x, *norm, matrix, activation="gelu_new")
        return activated, kernels.linear_add(x, matrix, None, residual)

    before = kernels.get_num_threads()
    kernels.set_num_threads(threads)
    together = both(x, residual)
    kernels.set_num_threads(before)
    for i in {0, rows // 2, rows - 1}:
        alone = both(x[i : i + 1], residual[i : i + 1])
        assert all(np.array_equal(a[0], b[i]) for a, b in zip(alone, together))
    some = both(x[1:5], residual[1:5])  # as many as a verification has
    assert all(np.array_equal(a, b[1:5]) for a, b in zip(some, together))


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("rows", [3, 40])
def test_quantized_matrices_go_wherever_floats_go(weight_format, rows):
    """Also into joined ops, and with inputs that are not contiguous."""
    x = normal(0, 2, rows, 256)[..., ::-2]
    residual, bias = normal(2, 30, rows, 2).T, normal(3, 60)[::2]
    norm = normal(4, 2, 256)[:, ::2]
    matrix = quantized(normal(1, 30, 128), weight_format)
    plain = ops.linear(x, matrix, bias)
    normed = ops.linear(ops.layer_norm(x, *norm, 1e-5), matrix, bias)
    # Outputs reach 60, whose last place is 4e-6. A rounding error in the norm may move
    # an activation to the next of 127 steps.
    loose = 4e-5 if weight_format == "bfloat16" else 0.1
    for got, expected, tolerance in (
        (kernels.linear(x, matrix, bias), plain, 4e-5),
        (kernels.linear_add(x, matrix, bias, residual), residual + plain, 4e-5),
        (kernels.norm_linear(x, *norm, 1e-5, matrix, bias), normed, loose),
        (
            kernels.norm_linear(x, *norm, 1e-5, matrix, bias, "gelu_new"),
            ops.gelu_new(normed),
            loose,
        ),
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@integers
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_in_x_is_none_in_the_product(weight_format, value):
    x = normal(0, 5, 256)
    matrix = quantized(normal(1, 9, 256), weight_format)
    before = kernels.linear(x, matrix)
    x[1, X_BLOCK + 3] = value
    with np.errstate(invalid="ignore"):
        y = kernels.linear(x, matrix)
    assert not np.isfinite(y[1]).any()
    others = [0, 2, 3, 4]
    assert np.array_equal(y[others], before[others])


@pytest.mark.parametrize("weight_format", FORMATS)
def test_quantized_matrices_compute_in_float32_only(weight_format):
    matrix = quantized(normal(0, 5, 64), weight_format)
    with pytest.raises(ValueError, match="compute in float32, not float64"):
        kernels.linear(np.zeros((1, 64)), matrix)
    with pytest.raises(ValueError, match="fit"):
        kernels.linear(np.zeros((1, 63), np.float32), matrix)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_packing_a_quantized_matrix_keeps_it(weight_format):
    matrix = quantized(normal(0, 5, 64), weight_format)
    assert kernels.unpack(kernels.pack(matrix)) is matrix


# Each format, with 1 to many rows, at lengths and numbers of columns that fill no block.
PROGRAM = """
import sys
import numpy as np
from minigpt2 import kernels
from minigpt2.quantization import quantized

def normal(*shape): return generator.standard_normal(shape, dtype=np.float32)
for weight_format in sys.argv[1:]:
    generator = np.random.default_rng(0)
    for rows, inner, columns in ((1, 64, 1), (5, 832, 203), (50, 192, 33)):
        inner -= 5 if weight_format != "int4" else 0
        matrix = quantized(normal(columns, inner), weight_format)
        norm = (*normal(2, inner), 1e-5)
        x, residual = normal(rows, inner), normal(rows, columns)
        for y in (
            kernels.norm_linear(x, *norm, matrix, residual[0], "gelu_new"),
            kernels.linear_add(x, matrix, None, residual),
        ):
            assert np.isfinite(y).all()
            print(weight_format, rows, y.tobytes().hex())
"""


def run(*kinds, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *kinds],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def as_compiled_here():
    return run(*FORMATS)


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names a CPU of that family"
)
def test_a_cpu_without_avx512_computes_the_same_bits_within_its_arrays(
    as_compiled_here,
):
    """The bytes are multiplied by other instructions there; bounds are checked too."""
    older = run(
        *FORMATS,
        NUMBA_CPU_NAME="haswell",
        NUMBA_CPU_FEATURES="+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt",
        NUMBA_BOUNDSCHECK="1",
    )
    assert older == as_compiled_here


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(as_compiled_here):
    checked = run("int8", "int4", NUMBA_BOUNDSCHECK="1")
    assert checked == "".join(
        line
        for line in as_compiled_here.splitlines(keepends=True)
        if not line.startswith("bfloat16")
    )
