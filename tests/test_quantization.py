"""The weight formats: what is stored, how near it is, what a product is."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import ops
from minigpt2.quantization import (
    INT4_BLOCK,
    X_BLOCK,
    BFloat16Matrix,
    Int4Matrix,
    Int8Matrix,
    pack_nibbles,
    quantized,
    round_activations,
    unpack_nibbles,
)

relaxed = settings(deadline=None, max_examples=60)
FORMATS = ("bfloat16", "int8", "int4")


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def rows_of(seed, n, k, spread):
    """Rows with what is special among them: zeros, and one number beyond the others."""
    rows = normal(seed, n, k) * np.float32(spread)
    rows[0] = 0.0
    rows[-1, k // 2] *= 100.0
    return rows


def integers_and_scales(stored):
    """(q int64 [n, k], scales float64 [n, k]), taken apart without the class's help."""
    if isinstance(stored, Int8Matrix):
        q = stored.bytes.astype(np.int64)[:, : stored.width] - 128
        return q, np.repeat(stored.scales[:, None].astype(np.float64), q.shape[1], 1)
    halves = stored.nibbles.astype(np.int64).reshape(len(stored), -1, 32)
    q = np.stack([halves & 15, halves >> 4], axis=2).reshape(len(stored), -1) - 8
    return q, np.repeat(stored.scales.astype(np.float64), INT4_BLOCK, axis=1)


shapes = given(
    weight_format=st.sampled_from(["int8", "int4"]),
    n=st.integers(1, 70),
    k=st.one_of(st.integers(1, 300), st.sampled_from([64, 128, 768, 1600])),
    spread=st.sampled_from([1e-42, 1e-20, 1e-4, 1.0, 1e3]),
    seed=st.integers(0, 99),
)


@relaxed
@shapes
def test_each_number_is_met_within_half_a_scale(weight_format, n, k, spread, seed):
    rows = rows_of(seed, n, k, spread)
    stored = quantized(rows, weight_format)
    assert isinstance(
        stored, Int4Matrix if weight_format == "int4" and k % 64 == 0 else Int8Matrix
    )
    q, scales = integers_and_scales(stored)
    most = 7 if isinstance(stored, Int4Matrix) else 127
    assert q.min() >= -most
    assert q.max() <= most
    # A scale itself is rounded, to 24 or 11 bits, and among the subnormal numbers to
    # a whole step, which `most` multiplies.
    limits = np.finfo(stored.scales.dtype)
    slack = most * (scales * limits.eps + 2 * float(limits.smallest_subnormal))
    error = np.abs(q * scales - rows)
    assert (error <= scales / 2 + slack).all()


@relaxed
@shapes
def test_dense_rows_are_integers_times_scales(weight_format, n, k, spread, seed):
    stored = quantized(rows_of(seed, n, k, spread), weight_format)
    q, scales = integers_and_scales(stored)
    dense = np.asarray(stored)
    assert (dense.shape, dense.dtype) == (stored.shape, stored.dtype)
    # One product, rounded once.
    assert np.array_equal(dense, (q * scales).astype(np.float32))
    ids = np.random.default_rng(seed).integers(0, n, (2, 3))
    assert np.array_equal(stored[ids], dense[ids])
    assert np.array_equal(stored[ids[:0]], dense[ids[:0]])


@relaxed
@shapes
def test_the_product_is_the_stated_formula(weight_format, n, k, spread, seed):
    stored = quantized(rows_of(seed, n, k, spread), weight_format)
    q, scales = integers_and_scales(stored)
    x = normal(seed + 1, 5, k)
    x[0] = 0.0
    x[1, : k // 2] = 0.0
    p, t = round_activations(x)
    assert np.abs(p).max() <= 127
    blocks = np.repeat(t.astype(np.float64), X_BLOCK, axis=1)[:, :k]
    # (A number of x is met within half a scale as well.)
    assert (np.abs(p * blocks - x) <= blocks * (0.5 + 1e-5)).all()
    expected = (p * blocks) @ (q * scales).T  # in float64
    # A few float32 roundings a block, of sums that p's 127s bound.
    size = np.abs(p * blocks) @ np.abs(q * scales).T
    error = np.abs((x @ stored) - expected)
    assert (error <= 1e-6 * size + 1e-37).all()
    assert np.array_equal(ops.linear(x, stored), x @ stored)


@relaxed
@given(n=st.integers(1, 40), k=st.integers(1, 400), seed=st.integers(0, 99))
def test_a_bfloat16_product_is_that_of_the_widened_matrix(n, k, seed):
    stored = quantized(normal(seed, n, k), "bfloat16")
    x = normal(seed + 1, 3, k)
    # The same sums, perhaps in another order.
    expected = x.astype(np.float64) @ np.asarray(stored, np.float64).T
    np.testing.assert_allclose(x @ stored, expected, rtol=0, atol=1e-5 * math.sqrt(k))


def test_bfloat16_rounds_as_ml_dtypes_does():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[~np.isnan(values)][None]
    with np.errstate(over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    stored = quantized(values, "bfloat16")
    assert np.array_equal(stored.bits, expected.view(np.uint16))
    assert np.array_equal(np.asarray(stored), expected.astype(np.float32))


def test_bfloat16_keeps_nan_and_infinity():
    values = np.array([[np.nan, np.inf, -np.inf, 3.4e38]], np.float32)
    # The last is nearer to infinity than to bfloat16's largest, as IEEE 754 counts.
    expected = np.array([[np.nan, np.inf, -np.inf, np.inf]], np.float32)
    assert np.array_equal(quantized(values, "bfloat16")[:], expected, equal_nan=True)


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_integers_refuse_nan_and_infinity(weight_format, value):
    rows = normal(0, 3, 64)
    rows[1, 5] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantized(rows, weight_format)


def test_int4_refuses_what_its_scales_cannot_say():
    with pytest.raises(ValueError, match=r"1000000\.0 is too large for int4"):
        quantized(np.full((1, 64), 1e6, np.float32), "int4")


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_in_x_is_none_in_the_product(weight_format, value):
    x = normal(0, 2, 64)
    x[1, 3] = value
    with np.errstate(invalid="ignore"):
        y = x @ quantized(normal(1, 9, 64), weight_format)
    assert np.isfinite(y[0]).all()
    assert not np.isfinite(y[1]).any()


@pytest.mark.parametrize("weight_format", FORMATS)
def test_what_does_not_fit_is_not_multiplied(weight_format):
    rows = quantized(normal(0, 9, 128), weight_format)
    for shape in ((2, 127), (2, 129), (128,)):
        with pytest.raises(ValueError, match=r"x has shape .* matrix \(9, 128\)"):
            normal(1, *shape) @ rows


@given(n=st.integers(1, 9), steps=st.integers(1, 4), seed=st.integers(0, 99))
def test_nibbles_are_packed_without_loss(n, steps, seed):
    q = np.random.default_rng(seed).integers(-7, 8, (n, 64 * steps)).astype(np.int8)
    stored = pack_nibbles(q)
    assert stored.nbytes * 2 == q.nbytes
    assert np.array_equal(unpack_nibbles(stored), q)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_of_any_layout_and_dtype_are_stored_alike(weight_format, dtype):
    # More rows than are worked on at a time: all of these go through several parts.
    weight = normal(0, 128, 5000).astype(dtype)
    expected = quantized(np.ascontiguousarray(weight.T, np.float32), weight_format)
    for rows in (weight.T, np.ascontiguousarray(weight.T), weight.T[::-1][::-1]):
        got = quantized(rows, weight_format)
        assert all(map(np.array_equal, got.arrays(), expected.arrays()))


@pytest.mark.parametrize(
    ("weight_format", "matrix_class", "bits", "bound"),
    [
        ("bfloat16", BFloat16Matrix, 16, 0.0017),
        ("int8", Int8Matrix, 8.05, 0.012),
        ("int4", Int4Matrix, 4.5, 0.12),
    ],
)
def test_a_quantized_matrix_is_small_and_near_the_floats(
    weight_format, matrix_class, bits, bound
):
    rows = normal(0, 200, 768)
    stored = quantized(rows, weight_format)
    assert isinstance(stored, matrix_class)
    assert stored.nbytes * 8 <= bits * rows.size
    # Half a step is max / 127 / 2 (or / 7 / 2); a step's error is uniform. bfloat16
    # has 8 bits, so its steps are 2^-8 to 2^-7 of the number.
    near = np.asarray(stored)
    assert np.linalg.norm(near - rows) < bound * np.linalg.norm(rows)
    with pytest.raises(ValueError, match="read-only"):
        stored.arrays()[0][0] = 0
