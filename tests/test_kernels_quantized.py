"""Kernels on small weights against the formulas in minigpt2.quantization."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigpt2.kernels.quantized import linear_int8, pack_int8, unpack_int8

from minigpt2 import kernels, ops, quantization

relaxed = settings(deadline=None, max_examples=60)  # a first call compiles


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


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
    q, s = quantization.to_int8(normal(seed + 1, inner, columns))
    packed = pack_int8(q, s)
    assert all(map(np.array_equal, unpack_int8(packed), (q, s)))
    expected = quantization.linear_int8(x, q, s, bias)
    got = linear_int8(x, packed, bias)
    # The sums of integers are exact; only the blocks' scaled sums are rounded.
    size = float(np.abs(expected).max()) + 10 * spread * np.sqrt(inner)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * size)
    alone = linear_int8(x[-1:], packed, bias)
    assert np.array_equal(alone[0], got[-1])


def test_int8_weights_go_wherever_float_weights_go():
    x, weight, residual = normal(0, 3, 5, 100), normal(1, 100, 30), normal(2, 3, 5, 30)
    norm = (*normal(3, 2, 100), 1e-5)
    q, s = quantization.to_int8(weight)
    packed = pack_int8(q, s)
    plain = quantization.linear_int8(x, q, s)
    normed = quantization.linear_int8(ops.layer_norm(x, *norm), q, s)
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
    stored = quantization.to_bfloat16(normal(seed + 1, inner, columns))
    widened = quantization.from_bfloat16(stored)
    # The same sums in the same order: the same bits.
    expected = kernels.linear(x, kernels.pack(widened))
    assert np.array_equal(kernels.linear(x, stored), expected)


def test_bfloat16_rounds_as_ml_dtypes_does():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[~np.isnan(values)][:, None]
    expected = values.T.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(quantization.to_bfloat16(values), expected)


@given(columns=st.integers(1, 9), steps=st.integers(1, 4), seed=st.integers(0, 99))
def test_nibbles_are_packed_without_loss(columns, steps, seed):
    q, _ = quantization.to_int4(normal(seed, 64 * steps, columns))
    stored = quantization.pack_nibbles(q)
    assert stored.nbytes * 2 == q.nbytes
    assert np.array_equal(quantization.unpack_nibbles(stored), q)


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.012), (4, 0.12)])
def test_small_weights_are_near_the_weights(bits, bound):
    weight = normal(0, 768, 200)
    if bits == 8:
        near = quantization.from_int8(*quantization.to_int8(weight))
    else:
        near = quantization.from_int4(*quantization.to_int4(weight))
    # Half a step is max / 127 / 2 (or / 7 / 2); a step's error is uniform.
    assert np.linalg.norm(near - weight) < bound * np.linalg.norm(weight)
