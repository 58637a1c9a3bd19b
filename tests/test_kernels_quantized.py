"""Kernels on small weights against the formulas in minigpt2.quantization."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import kernels, ops, quantization

relaxed = settings(deadline=None, max_examples=60)  # a first call compiles


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def packed_rows(weight, kind):
    """A weight [in, out] as rows of a small kind."""
    return quantization.quantized(weight.T, kind)


@relaxed
@given(
    rows=st.integers(1, 60),
    inner=st.one_of(st.integers(1, 300), st.sampled_from([768, 1600])),
    columns=st.integers(1, 210),
    spread=st.sampled_from([1e-20, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_int8_linear_is_the_formula(rows, inner, columns, spread, seed):
    x = normal(seed, rows, inner) * np.float32(spread)
    x[0, : inner // 2] = 0.0  # blocks of zeros have a scale of zero
    bias = normal(seed + 2, columns) * np.float32(spread)
    packed = packed_rows(normal(seed + 1, inner, columns), "int8")
    expected = ops.linear(x, packed, bias)
    got = kernels.linear(x, packed, bias)
    # The sums of integers are exact; only the blocks' scaled sums are rounded.
    size = float(np.abs(expected).max()) + 10 * spread * np.sqrt(inner)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * size)
    alone = kernels.linear(x[-1:], packed, bias)
    assert np.array_equal(alone[0], got[-1])


def test_int8_weights_go_wherever_float_weights_go():
    x, weight, residual = normal(0, 3, 5, 100), normal(1, 100, 30), normal(2, 3, 5, 30)
    norm = (*normal(3, 2, 100), 1e-5)
    packed = packed_rows(weight, "int8")
    plain = ops.linear(x, packed)
    normed = ops.linear(ops.layer_norm(x, *norm), packed)
    # A rounding error in the norm may move an activation to the next of 127 steps.
    for got, expected, tolerance in (
        (kernels.linear(x, packed), plain, 1e-5),
        (kernels.linear_add(x, packed, None, residual), residual + plain, 1e-5),
        (kernels.norm_linear(x, *norm, packed), normed, 0.1),
        (kernels.norm_linear_gelu(x, *norm, packed), ops.gelu_new(normed), 0.1),
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@relaxed
@given(
    rows=st.integers(1, 20),
    inner=st.integers(1, 900),
    columns=st.integers(1, 110),
    seed=st.integers(0, 99),
)
def test_bfloat16_linear_is_the_float32_product_with_the_widened_weights(
    rows, inner, columns, seed
):
    x = normal(seed, rows, inner)
    stored = quantization.quantized(normal(seed + 1, columns, inner), "bfloat16")
    # The same sums in the same order: the same bits.
    expected = kernels.linear(x, kernels.pack(np.asarray(stored).T))
    assert np.array_equal(kernels.linear(x, stored), expected)
