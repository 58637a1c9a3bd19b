"""ops.py against formulas worked out elsewhere: math, float64, and torch where it is."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from minigpt2 import ops

FLOATS = (np.float32, np.float64)
UNARY = ("gelu_new", "gelu", "relu", "silu", "swish", "tanh", "softmax", "log_softmax")


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def locals_of(function, *arguments):
    """Call a function; return its result and every local array or NumPy scalar in it."""
    seen = []

    def look(frame, event, result):
        if frame.f_code.co_filename == ops.__file__ and event in ("line", "return"):
            values = [*frame.f_locals.values(), result]
            seen.extend(v for v in values if isinstance(v, (np.ndarray, np.generic)))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        return function(*arguments), seen
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_intermediate_of_every_op_keeps_the_dtype(dtype):
    x, w, b = (
        normal(i, *s, dtype=dtype) for i, s in enumerate([(2, 3, 8), (8, 5), (5,)])
    )
    gain = normal(3, 8, dtype=dtype)
    q = normal(4, 2, 3, 4, 8, dtype=dtype)
    mask = np.array([[True] * 4, [False] * 4])
    calls = [(getattr(ops, name), x) for name in UNARY]
    calls += [
        (ops.linear, x, w, b),
        (ops.layer_norm, x, gain, gain),
        (ops.attention, q, q, q, mask, 0.5),
        (ops.dropout, x, 0.5, np.random.default_rng(0)),
        (ops.cross_entropy, x, np.array([[0, 1, -100], [2, -1, 7]])),
    ]
    for function, *arguments in calls:
        result, seen = locals_of(function, *arguments)
        assert result.dtype == dtype, function
        floats = {v.dtype for v in seen if v.dtype.kind == "f"}
        assert floats == {np.dtype(dtype)}, function


def test_linear_is_the_matrix_product_plus_bias_over_any_leading_axes():
    x, w, b = normal(0, 2, 3, 4), normal(1, 4, 5), normal(2, 5)
    expected = np.einsum("bti,io->bto", x, w) + b
    np.testing.assert_allclose(ops.linear(x, ops.pack(w), b), expected, rtol=1e-13)
    assert ops.unpack(ops.pack(w)) is w


def test_layer_norm_divides_by_the_biased_deviation():
    # The example of style guides that get it wrong: mean 1/4, variance 3/16.
    y = ops.layer_norm(np.array([1.0, 0, 0, 0]), np.ones(4), np.zeros(4), eps=0.0)
    np.testing.assert_allclose(y, [math.sqrt(3)] + [-1 / math.sqrt(3)] * 3, rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x / 2 * math.erfc(-x / math.sqrt(2))),
        (
            "gelu_new",
            lambda x: (
                x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            ),
        ),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("relu", lambda x: max(x, 0.0)),
    ],
)
def test_activations_are_their_formulas(name, formula):
    x = np.linspace(-5, 5, 101)
    expected = [formula(float(v)) for v in x]
    # 1e-15 of the largest value: one rounding or two of numbers about 1
    np.testing.assert_allclose(getattr(ops, name)(x), expected, rtol=0, atol=5e-15)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_large_inputs_give_limits_and_no_warnings(name, dtype):
    big = float(np.finfo(dtype).max)
    x = np.array([-big, -1e4, 0.0, 1e4, big], dtype)
    y = getattr(ops, name)(x)
    assert not np.isnan(y).any()
    if name in ("gelu_new", "gelu", "relu", "silu", "swish"):
        np.testing.assert_array_equal(y[[0, 4]], np.array([0, big], dtype))


@given(
    arrays(
        np.float64,
        array_shapes(min_dims=1, max_dims=3, max_side=9),
        elements=st.floats(-1e300, 1e300) | st.just(-math.inf),
    )
)
def test_softmax_rows_sum_to_one_or_are_zero_if_all_is_hidden(x):
    y = ops.softmax(x)
    hidden = np.isneginf(x).all(axis=-1)
    np.testing.assert_allclose(y.sum(axis=-1), np.where(hidden, 0.0, 1.0), rtol=1e-14)
    assert (y >= 0).all()
    assert (y[np.isneginf(x)] == 0).all()


def naive_attention(q, k, v, key_mask, scale):
    """The definition, one query and one key at a time."""
    out = np.zeros(q.shape[:-1] + v.shape[-1:])
    new, seen = q.shape[-2], k.shape[-2]
    for *lead, t in np.ndindex(q.shape[:-1]):
        b, h = lead
        keys = [s for s in range(seen - new + t + 1) if key_mask[b, s]]
        if keys:
            e = [math.exp(scale * float(q[b, h, t] @ k[b, h, s])) for s in keys]
            out[b, h, t] = sum(w * v[b, h, s] for w, s in zip(e, keys)) / sum(e)
    return out


@given(st.data())
def test_attention_is_its_definition_whatever_the_shapes_and_masks(data):
    batch, heads, new, past, size = (
        data.draw(st.integers(1, n)) for n in (3, 3, 5, 5, 4)
    )
    past -= 1
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    q = rng.standard_normal((batch, heads, new, size))
    k, v = rng.standard_normal((2, batch, heads, past + new, size))
    mask = rng.random((batch, past + new)) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    expected = naive_attention(q, k, v, mask, 0.7)
    np.testing.assert_allclose(ops.attention(q, k, v, mask, 0.7), expected, atol=1e-14)
    if mask.all():
        np.testing.assert_allclose(
            ops.attention(q, k, v, None, 0.7), expected, atol=1e-14
        )


@given(st.data())
def test_cached_attention_is_attention_in_blocks_of_any_size(data):
    batch, heads, new, start, size, spare, block = (
        data.draw(st.integers(least, most))
        for least, most in [(1, 3), (1, 3), (1, 7), (0, 4), (1, 4), (0, 2), (1, 8)]
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    qkv = rng.standard_normal((batch, new, 3 * heads * size))
    keys, values = rng.standard_normal((2, batch, heads, start + new + spare, size))
    mask = rng.random((batch, start + new)) < data.draw(st.sampled_from([0.5, 1.0]))
    before = keys.copy(), values.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "QUERY_BLOCK", block)
        z = ops.cached_attention(qkv, keys, values, start, mask, 0.5)
    q, k, v = ops.split_heads(qkv, heads)
    seen = slice(start, start + new)
    for buffer, old, written in zip((keys, values), before, (k, v)):
        np.testing.assert_array_equal(buffer[:, :, seen], written)
        buffer[:, :, seen] = old[:, :, seen]
        np.testing.assert_array_equal(buffer, old)  # nothing else is written
    k, v = (np.concatenate([b[:, :, :start], x], 2) for b, x in zip(before, (k, v)))
    expected = ops.merge_heads(ops.attention(q, k, v, mask, 0.5))
    np.testing.assert_allclose(z, expected, atol=1e-14)


@pytest.mark.parametrize(("start", "new"), [(4, 1), (3, 2), (-1, 1)])
def test_positions_beyond_a_cache_are_refused_and_nothing_is_written(start, new):
    keys, values = np.zeros((2, 1, 2, 4, 3))
    with pytest.raises(ValueError, match="do not fit"):
        ops.cached_attention(np.ones((1, new, 18)), keys, values, start)
    assert not keys.any()
    assert not values.any()


def test_heads_lie_side_by_side_and_go_back_to_where_they_were():
    qkv = np.arange(2 * 3 * 24.0).reshape(2, 3, 24)
    q, k, v = ops.split_heads(qkv, 4)  # D = 2
    assert q.shape == k.shape == v.shape == (2, 4, 3, 2)
    np.testing.assert_array_equal(k[1, 3, 2], qkv[1, 2, 8 + 6 : 8 + 8])
    np.testing.assert_array_equal(ops.merge_heads(v), qkv[..., 16:])


def plain_gelu_new(x):
    """The formula as it is written, with a fresh array for each step."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1.0 + np.tanh(inner))


def test_gelu_new_which_works_in_place_is_its_formula_written_plainly():
    x = normal(0, 1000) * 4
    np.testing.assert_allclose(ops.gelu_new(x), plain_gelu_new(x), rtol=0, atol=4e-15)


@pytest.mark.parametrize("activation", [None, *ops.ACTIVATIONS])
def test_joined_ops_are_the_ops_that_they_join(activation):
    x, residual = normal(0, 2, 3, 8), normal(1, 2, 3, 5)
    gain, shift, w, b = normal(2, 8), normal(3, 8), normal(4, 8, 5), normal(5, 5)
    y = ops.linear(ops.layer_norm(x, gain, shift, 1e-3), w, b)
    expected = y if activation is None else ops.ACTIVATIONS[activation](y)
    joined = ops.norm_linear(x, gain, shift, 1e-3, w, b, activation)
    np.testing.assert_array_equal(joined, expected)
    np.testing.assert_array_equal(
        ops.linear_add(x, w, b, residual), residual + ops.linear(x, w, b)
    )
    np.testing.assert_array_equal(
        ops.linear_add(x, w, b, residual, lambda y: 2 * y),
        residual + 2 * ops.linear(x, w, b),
    )


def test_a_query_that_may_see_nothing_takes_nothing_and_gives_no_nan():
    q = normal(0, 1, 1, 3, 4)
    mask = np.array([[False, False, True]])
    weights = ops.attention_weights(q, q, mask)
    np.testing.assert_array_equal(weights[0, 0], [[0, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_cross_entropy_is_the_mean_of_minus_log_probability_of_what_counts():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1 / 3] * 3]))
    labels = np.array([1, 2, -100])
    expected = -(math.log(0.25) + math.log(0.8)) / 2
    assert ops.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-14)
    assert ops.cross_entropy(logits, np.array([1, 2, -1])) == pytest.approx(expected)
    assert math.isnan(ops.cross_entropy(logits, np.array([-1, -100, -100])))
    with pytest.raises(ValueError, match=r"label 3 is outside 0 to 2"):
        ops.cross_entropy(logits, np.array([0, 1, 3]))


def test_cross_entropy_of_hopeless_scores_is_finite():
    logits = np.array([[0.0, -1e5]], np.float32)
    assert ops.cross_entropy(logits, np.array([1])) == np.float32(1e5)


def test_dropout_zeroes_the_right_share_and_scales_the_rest():
    x = np.ones((1000, 100), np.float32)
    y = ops.dropout(x, 0.25, np.random.default_rng(0))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # standard deviation of the share: sqrt(.25 * .75 / 100,000) = 0.0014
    assert (y == 0).mean() == pytest.approx(0.25, abs=5 * 0.0014)
    assert ops.dropout(x, 0.0, None) is x
    assert not ops.dropout(x, 1.0, np.random.default_rng(0)).any()


@pytest.mark.peers
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_every_activation_is_transformers_of_that_name(name, dtype):
    torch = pytest.importorskip("torch")
    act2fn = pytest.importorskip("transformers.activations").ACT2FN
    if name not in act2fn:
        pytest.skip(f"this transformers has no {name}")
    x = np.concatenate([np.linspace(-12, 12, 241), [-100, 100]]).astype(dtype)
    expected = act2fn[name](torch.from_numpy(x)).numpy()
    y = ops.ACTIVATIONS[name](x)
    assert y.dtype == dtype
    # a few roundings of numbers up to 100
    tolerance = 1e-15 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(y, expected, rtol=tolerance * 20, atol=tolerance * 20)


def test_dropout_keeps_what_its_mask_says_and_draws_no_number_where_none_is_needed():
    x = normal(0, 20, 30, dtype=np.float32)
    kept = ops.dropout_mask(x.shape, 0.25, np.random.default_rng(1), x.dtype)
    y = ops.dropout(x, 0.25, np.random.default_rng(1))
    np.testing.assert_array_equal(y, ops.drop(x, kept, 0.25))
    np.testing.assert_array_equal(y == 0, ~kept)
    for probability in (0.0, 1.0):
        assert (
            ops.dropout_mask(x.shape, probability, None, x.dtype) != probability
        ).all()
