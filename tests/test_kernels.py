"""Each kernel against its NumPy twin in minigpt2.ops, and how kernels are compiled."""

import inspect
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigpt2 import kernels, ops
from minigpt2.runtime.installation import pip_install

DTYPES = (np.float32, np.float64)
sizes = st.integers(1, 70)  # from one element to beyond a block of 64
few = st.integers(1, 3)
relaxed = settings(deadline=None, max_examples=60)  # a first call compiles


def epsilon(dtype):
    return float(np.finfo(dtype).eps)


def normal(seed, *shape, dtype):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@st.composite
def arrays(draw, dtype):
    """Arrays of any values (infinities, denormals) and, half of them, odd strides."""
    kind = st.floats(allow_nan=False, width=8 * np.dtype(dtype).itemsize)
    shape = draw(hnp.array_shapes(max_dims=3, max_side=70))
    values = draw(hnp.arrays(dtype, shape, elements=kind))
    steps = draw(st.sampled_from([1, 2, -1]))
    return draw(st.sampled_from([values[..., ::steps], values.T]))


def test_every_op_is_in_the_kernels_with_the_same_arguments():
    functions = {
        name: function
        for name, function in vars(ops).items()
        if inspect.isfunction(function) and function.__module__ == ops.__name__
    }
    assert {*functions, "ACTIVATIONS", "IGNORED_LABELS"} <= set(kernels.__all__)
    assert kernels.ACTIVATIONS.keys() == ops.ACTIVATIONS.keys()
    for name, function in functions.items():
        mine, theirs = (
            [
                (p.name, p.kind, p.default)
                for p in inspect.signature(f).parameters.values()
            ]
            for f in (getattr(kernels, name), function)
        )
        assert mine == theirs, name


@pytest.mark.parametrize("dtype", DTYPES)
@relaxed
@given(data=st.data())
def test_gelu_new_is_the_twin_on_any_array(dtype, data):
    x = data.draw(arrays(dtype))
    with np.errstate(all="ignore"):
        expected = ops.gelu_new(x)
    got = kernels.gelu_new(x)
    assert got.dtype == dtype
    assert got.shape == x.shape
    # 1 + tanh(u) of the twin loses digits near tanh = -1, which x then scales up; the
    # kernel divides by 1 + exp(-2u) and loses none.
    scale = np.minimum(np.abs(x), 10.0) + float(np.finfo(dtype).tiny)
    finite = np.isfinite(expected)
    assert np.array_equal(got[~finite], expected[~finite], equal_nan=True)
    difference = np.abs(got[finite] - expected[finite])
    assert np.all(
        difference <= 4 * epsilon(dtype) * np.maximum(scale, np.abs(expected))[finite]
    )


def test_gelu_new_in_float32_is_within_two_units_of_float64():
    x = np.linspace(-6, 30, 200_001, dtype=np.float32)
    exact = ops.gelu_new(x.astype(np.float64))
    error = np.abs(kernels.gelu_new(x) - exact)
    # exp's argument reaches 60 at x = -6 and its rounding error grows with it.
    assert np.max(error / np.maximum(np.abs(exact), 1e-3)) < 8 * epsilon(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@relaxed
@given(
    batch=few,
    heads=few,
    new=sizes,
    cached=st.integers(0, 70),
    width=sizes,
    layout=st.sampled_from(["rows", "heads", "reversed"]),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention_is_the_twin(
    dtype, batch, heads, new, cached, width, layout, spread, masked, seed
):
    seen = new + cached

    def states(seed, length):
        if layout == "rows":  # [B, T, H, D] seen as [B, H, T, D], as c_attn leaves them
            x = normal(seed, batch, length, heads, width, dtype=dtype)
            return x.swapaxes(1, 2) * spread
        x = normal(seed, batch, heads, length + 3, width, dtype=dtype) * spread
        return x[..., :length, :: -1 if layout == "reversed" else 1]  # part of a cache

    q, k, v = states(seed, new), states(seed + 1, seen), states(seed + 2, seen)
    mask = None
    if masked:  # some rows see nothing at all
        mask = (
            normal(seed, batch, seen, dtype=dtype) > np.array([0, 9, -9])[:batch, None]
        )
    scale = 1 / math.sqrt(width)
    expected = ops.attention(q, k, v, mask, scale)
    got = kernels.attention(q, k, v, mask, scale)
    assert got.dtype == dtype
    # A score's rounding error is spread^2-fold, and exp turns it into a relative one.
    tolerance = epsilon(dtype) * (20 + 30 * spread**2) * max(spread, 1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_gives_zeros_to_a_query_that_may_see_nothing(dtype):
    q = normal(0, 2, 4, 5, 8, dtype=dtype)
    mask = np.zeros((2, 5), bool)
    assert not kernels.attention(q, q, q, mask, 1.0).any()


def test_a_hidden_value_never_reaches_the_output():
    q = normal(0, 1, 2, 4, 8, dtype=np.float32)
    k, v = q.copy(), q.copy()
    mask = np.array([[False, True, True, True]])
    expected = kernels.attention(q, k, v, mask, 1.0)
    k[:, :, 0], v[:, :, 0] = np.nan, np.inf
    assert np.array_equal(kernels.attention(q, k, v, mask, 1.0), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@relaxed
@given(
    rows=st.integers(1, 60),
    inner=st.one_of(sizes, st.integers(700, 1700)),  # to beyond a chunk of products
    columns=st.one_of(sizes, st.integers(90, 200)),  # to beyond a block of columns
    with_bias=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_linear_and_what_is_joined_to_it_are_the_twins(
    dtype, rows, inner, columns, with_bias, transposed, seed
):
    x = normal(seed, rows, inner, dtype=dtype)
    weight = normal(seed + 1, inner, columns, dtype=dtype)
    if transposed:  # as the tied head's
        weight = np.ascontiguousarray(weight.T).T
    bias = normal(seed + 2, columns, dtype=dtype) if with_bias else None
    residual = normal(seed + 3, rows, columns, dtype=dtype)
    packed = kernels.pack(weight)
    assert np.array_equal(kernels.unpack(packed), weight)
    norm = (*normal(seed + 4, 2, inner, dtype=dtype), 1e-5)
    expected = ops.linear(x, weight, bias)
    after_norm = ops.linear(ops.layer_norm(x, *norm), weight, bias)
    # Sums of n products of standard normals: the twin's BLAS may add them in one row, so
    # that sums of size sqrt(n) are rounded sqrt(n) times. (The kernel's error is less.)
    tolerance = 4 * epsilon(dtype) * (8 + inner)
    for got, twin in (
        (kernels.linear(x, packed, bias), expected),
        (kernels.norm_linear(x, *norm, packed, bias), after_norm),
        (
            kernels.norm_linear(x, *norm, packed, bias, "gelu_new"),
            ops.gelu_new(after_norm),
        ),
        (kernels.linear_add(x, packed, bias, residual), residual + expected),
    ):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, twin, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [*ops.ACTIVATIONS])
@pytest.mark.parametrize("rows", [2, 30])
def test_norm_linear_takes_every_activation(name, rows):
    x, norm = normal(0, rows, 40, dtype=np.float32), normal(1, 2, 40, dtype=np.float32)
    packed = kernels.pack(normal(2, 40, 70, dtype=np.float32))
    got = kernels.norm_linear(x, *norm, 1e-5, packed, activation=name)
    plain = kernels.norm_linear(x, *norm, 1e-5, packed)
    assert np.array_equal(got, kernels.ACTIVATIONS[name](plain))
    # Slopes are at most 2, or 2 |x| of relu2, of numbers up to 30.
    expected = ops.ACTIVATIONS[name](plain)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-5)


def test_another_name_of_gelu_new_is_joined_as_gelu_new_is(monkeypatch):
    from minigpt2.kernels import matmul

    x, norm = normal(0, 2, 40, dtype=np.float32), normal(1, 2, 40, dtype=np.float32)
    packed = kernels.pack(normal(2, 40, 70, dtype=np.float32))
    arguments = x, *norm, 1e-5, packed, None
    expected = kernels.norm_linear(*arguments, "gelu_new")
    calls, project = [], matmul._project
    monkeypatch.setattr(
        matmul, "_project", lambda *a, **k: calls.append(k["gelu"]) or project(*a, **k)
    )
    got = kernels.norm_linear(*arguments, "gelu_pytorch_tanh")
    assert np.array_equal(got, expected)
    assert calls == [True]
    with pytest.raises(KeyError, match="gelu_newer"):
        kernels.norm_linear(*arguments, "gelu_newer")


@pytest.mark.parametrize("rows", [1, 40])
def test_dropout_is_applied_before_the_sum(rows):
    x, weight = (normal(i, n, 40, dtype=np.float32) for i, n in ((0, rows), (1, 40)))
    residual, bias = normal(2, rows, 40, dtype=np.float32), weight[0]
    before = residual.copy()

    def drop(y):
        return ops.dropout(y, 0.3, np.random.default_rng(5))

    packed = kernels.pack(weight)
    got = kernels.linear_add(x, packed, bias, residual, drop)
    assert np.array_equal(got, residual + drop(kernels.linear(x, packed, bias)))
    twin = ops.linear_add(x, weight, bias, residual, drop)
    np.testing.assert_allclose(got, twin, rtol=0, atol=1e-4)
    # A function that drops nothing changes nothing, not even a bit.
    got = kernels.linear_add(x, packed, bias, residual, lambda y: y)
    assert np.array_equal(got, kernels.linear_add(x, packed, bias, residual))
    assert np.array_equal(residual, before)


@relaxed
@given(
    batch=few,
    heads=few,
    new=st.integers(1, 20),
    start=st.integers(0, 80),
    free=st.integers(0, 3),
    width=st.sampled_from([64, 20, 128]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cached_attention_is_the_lines_that_it_joins(
    batch, heads, new, start, free, width, masked, seed
):
    seen = start + new
    qkv = normal(seed, batch, new, 3 * heads * width, dtype=np.float32)
    keys, values = normal(seed, 2, batch, heads, seen + free, width, dtype=np.float32)
    mask = normal(seed, batch, seen, dtype=np.float32) > -1 if masked else None
    q, k, v = qkv.reshape(batch, new, 3, heads, width).transpose(2, 0, 3, 1, 4)
    all_keys, all_values = keys.copy(), values.copy()
    all_keys[:, :, start:seen], all_values[:, :, start:seen] = k, v
    expected = kernels.attention(
        q, all_keys[:, :, :seen], all_values[:, :, :seen], mask, 0.2
    )
    got = kernels.cached_attention(qkv, keys, values, start, mask, 0.2)
    assert np.array_equal(keys, all_keys)
    assert np.array_equal(values, all_values)
    heads_side_by_side = expected.swapaxes(1, 2).reshape(batch, new, -1)
    assert np.array_equal(got, heads_side_by_side)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, w: kernels.linear(x[:, :-1], w),
        lambda x, w: kernels.linear(x, w, x[0, :3]),
        lambda x, w: kernels.linear_add(x, w, None, x[:4, :5]),
        lambda x, w: kernels.layer_norm(x, x[0, :3], x[0]),
        lambda x, w: kernels.norm_linear(x, x[0, :3], x[0], 1e-5, w),
        lambda x, w: kernels.norm_linear(x, x[0], x[0, :3], 1e-5, w),
        lambda x, w: kernels.attention(x[None], x[None, :3], x[None, :3]),
        lambda x, w: kernels.cached_attention(x[None], x[None, None], x[None, None], 9),
    ],
)
def test_arrays_that_do_not_fit_are_refused(wrong):
    x = normal(0, 5, 8, dtype=np.float32)
    with pytest.raises(ValueError, match="fit"):
        wrong(x, kernels.pack(normal(0, 8, 4, dtype=np.float32)))


def test_other_dtypes_are_refused_by_name():
    x, weight = normal(0, 5, 8, dtype=np.float16), normal(1, 8, 4, dtype=np.float32)
    with pytest.raises(TypeError, match="not float16"):
        kernels.linear(x, kernels.pack(weight))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (2, 0, 0), (0, 2, 5)])
@pytest.mark.parametrize("columns", [0, 1, 70])
def test_arrays_without_elements_give_what_ops_make_of_them(shape, columns, dtype):
    x, weight = (
        normal(0, *shape, dtype=dtype),
        normal(1, shape[-1], columns, dtype=dtype),
    )
    bias = normal(2, columns, dtype=dtype)
    residual = normal(3, *shape[:-1], columns, dtype=dtype)
    for pack in (np.asarray, np.asfortranarray):  # panels, rows
        packed = kernels.pack(pack(weight))
        got = kernels.linear(x, packed, bias)
        np.testing.assert_array_equal(got, ops.linear(x, weight, bias))
        got = kernels.linear_add(x, packed, bias, residual)
        expected = ops.linear_add(x, weight, bias, residual)
        np.testing.assert_array_equal(got, expected)
    assert kernels.gelu_new(x).shape == shape
    if shape[-1] == 0:
        assert kernels.layer_norm(x, bias[:0], bias[:0]).shape == shape
    q = normal(4, 2, *shape, dtype=dtype) if len(shape) > 1 else x[None, None]
    np.testing.assert_array_equal(kernels.attention(q, q, q), ops.attention(q, q, q))


def test_linear_takes_any_leading_axes_and_strides():
    x = normal(0, 2, 3, 5, 40, dtype=np.float32)[:, ::-1, ::2, 3:]
    weight = normal(1, 37, 11, dtype=np.float32)
    got = kernels.linear(x, kernels.pack(weight))
    np.testing.assert_allclose(got, ops.linear(x, weight), rtol=0, atol=1e-5)


def test_unpacked_panels_are_a_copy():
    packed = kernels.pack(np.ones((8, 48), np.float32))
    kernels.unpack(packed)[:] = 2.0
    assert np.array_equal(kernels.unpack(packed), np.ones((8, 48)))


@relaxed
@given(
    inner=st.integers(1, 90),
    columns=st.integers(1, 150),
    rows_apart=st.sampled_from([1, 2, -1]),
    columns_apart=st.sampled_from([1, 2, -1]),
    transposed=st.booleans(),
)
def test_packing_takes_any_strides(
    inner, columns, rows_apart, columns_apart, transposed
):
    weight = normal(0, 2 * inner, 2 * columns, dtype=np.float32)
    weight = weight[::rows_apart, ::columns_apart][:inner, :columns]
    if transposed:
        weight = weight.T
    packed = kernels.pack(weight)
    assert np.array_equal(kernels.unpack(packed), weight)
    x = normal(1, 3, len(weight), dtype=np.float32)
    expected = ops.linear(x, weight)
    np.testing.assert_allclose(kernels.linear(x, packed), expected, rtol=0, atol=1e-4)


def test_packing_the_tied_head_copies_nothing():
    embeddings = normal(0, 57, 32, dtype=np.float32)
    assert np.shares_memory(kernels.pack(embeddings.T), embeddings)


@pytest.mark.parametrize("dtype", DTYPES)
@relaxed
@given(
    rows=st.integers(1, 30),
    width=st.one_of(sizes, st.integers(700, 900)),
    offset=st.sampled_from([0.0, 100.0]),
    spread=st.sampled_from([1e-30, 1e-3, 1.0, 1e3]),
    steps=st.sampled_from([1, 2, -1]),
    seed=st.integers(0, 99),
)
def test_layer_norm_is_the_twin(dtype, rows, width, offset, spread, steps, seed):
    x = normal(seed, rows, width, dtype=dtype)[:, ::steps] * dtype(spread)
    x = x + dtype(offset * spread)
    weight, bias = normal(seed + 1, 2, x.shape[1], dtype=dtype)
    got = kernels.layer_norm(x, weight, bias, 1e-5)
    assert got.dtype == dtype
    # The mean is exact to eps times the offset, which the division by the standard
    # deviation (here 1, or less for a narrow row) magnifies.
    exact = ops.layer_norm(*(a.astype(np.float64) for a in (x, weight, bias)), 1e-5)
    deviation = max(float(x.std(axis=-1).min()), 3e-3)
    size = float(np.abs(x).max()) / deviation + float(np.abs(exact).max())
    np.testing.assert_allclose(
        got, exact, rtol=0, atol=16 * epsilon(dtype) * (1 + size)
    )


# --- the same bits, whatever stands beside


@relaxed
@given(
    rows=st.integers(2, 120),
    inner=st.sampled_from([1, 64, 100, 768, 1600, 3072]),
    columns=st.integers(1, 130),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_a_row_of_linear_has_the_same_bits_alone_and_in_any_batch(
    rows, inner, columns, threads, seed
):
    x = normal(seed, rows, inner, dtype=np.float32)
    packed = kernels.pack(normal(seed + 1, inner, columns, dtype=np.float32))
    bias = normal(seed + 2, columns, dtype=np.float32)
    norm = (*normal(seed + 4, 2, inner, dtype=np.float32), 1e-5)
    before = kernels.get_num_threads()
    kernels.set_num_threads(threads)
    together = kernels.norm_linear(x, *norm, packed, bias, "gelu_new")
    kernels.set_num_threads(before)
    for i in range(rows):
        alone = kernels.norm_linear(x[i : i + 1], *norm, packed, bias, "gelu_new")
        assert np.array_equal(alone[0], together[i])


@relaxed
@given(
    new=st.integers(1, 80),
    cached=st.integers(0, 140),
    width=st.sampled_from([64, 32, 128]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_query_has_the_same_bits_decoded_and_prefilled(
    new, cached, width, masked, seed
):
    seen = new + cached
    q, k, v = (normal(seed + i, 2, 2, seen, width, dtype=np.float32) for i in range(3))
    q = q[:, :, cached:]
    mask = normal(seed, 2, seen, dtype=np.float32) > -1 if masked else None
    together = kernels.attention(q, k, v, mask, 0.2)
    for t in range(new):
        end = cached + t + 1
        alone = kernels.attention(
            q[:, :, t : t + 1],
            k[:, :, :end],
            v[:, :, :end],
            None if mask is None else mask[:, :end],
            0.2,
        )
        assert np.array_equal(alone[:, :, 0], together[:, :, t])


def test_norms_and_activations_have_the_same_bits_row_by_row():
    x = normal(0, 50, 771, dtype=np.float32)
    weight, bias = normal(1, 2, 771, dtype=np.float32)
    normed = kernels.layer_norm(x, weight, bias, 1e-5)
    activated = kernels.gelu_new(x)
    for i, row in enumerate(x):
        assert np.array_equal(kernels.layer_norm(row, weight, bias, 1e-5), normed[i])
        assert np.array_equal(kernels.gelu_new(row), activated[i])


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        kernels.gelu_new(np.zeros(3, np.float16))


# --- how kernels are compiled and run


def run(program, **environment):
    """The output of `program` in a fresh process."""
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_numba_the_error_says_what_to_install():
    program = """
import sys
sys.modules["numba"] = None
try:
    import minigpt2.kernels
except ImportError as error:
    print(error)
"""
    assert pip_install("fast") in run(program)


# Small programs: each fresh process compiles what it runs.
GELU = """
import numpy as np
from minigpt2 import kernels, ops
x = np.random.default_rng(0).standard_normal((3, 2100)).astype(np.float32)
assert np.allclose(kernels.gelu_new(x), ops.gelu_new(x), atol=1e-6)
"""
# Lengths that fill no vector, no tile and no panel; weights in panels and in rows.
EVERYTHING = """
import sys
import numpy as np
from minigpt2 import kernels, ops
x = np.random.default_rng(0).standard_normal((70, 1000)).astype(sys.argv[1])
near = dict(atol=1e-3)
assert np.allclose(kernels.gelu_new(x), ops.gelu_new(x), **near)
for rows in (1, 13):
    y = x[:rows]
    for weight in (np.ascontiguousarray(x.T), x.T):
        got = kernels.linear_add(y, kernels.pack(weight), x[0, :70], y[:, :70])
        expected = y[:, :70] + ops.linear(y, weight, x[0, :70])
        assert np.allclose(got, expected, **near)
    normed = [f.layer_norm(y, *x[:2]) for f in (kernels, ops)]
    assert np.allclose(*normed, **near)
    for width in (30, 64):
        qkv = np.resize(x, (1, rows, 3 * 2 * width))
        keys, values = np.resize(x, (2, 1, 2, 70 + rows, width))
        q = qkv.reshape(1, rows, 3, 2, width)[:, :, 0].swapaxes(1, 2)
        got = kernels.cached_attention(qkv, keys, values, 65)
        seen = keys[:, :, :65 + rows], values[:, :, :65 + rows]
        for attention in (kernels.attention, ops.attention):
            expected = attention(q, *seen).swapaxes(1, 2).reshape(1, rows, -1)
            assert np.allclose(got, expected, **near)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_kernel_leaves_its_arrays(dtype, tmp_path):
    program = f"import sys; sys.argv.append({dtype!r})\n" + EVERYTHING
    run(program, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))


def test_bounds_checking_is_really_on():
    program = """
import numba, numpy as np
from minigpt2.kernels.jit import kernel
@kernel(lambda T: numba.void(T[::1]))
def beyond(x):
    x[x.size] = 0.0
try:
    beyond[np.dtype(np.float32)](np.zeros(3, np.float32))
except IndexError:
    print("caught")
"""
    assert "caught" in run(program, NUMBA_BOUNDSCHECK="1")


@pytest.mark.skipif(os.name == "nt", reason="folders are found otherwise there")
def test_a_cache_that_cannot_be_written_is_said_and_another_one_is_taken(tmp_path):
    blocked = tmp_path / "a file where the folder should be"
    blocked.write_text("")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    where = {
        "NUMBA_CACHE_DIR": str(blocked),
        "XDG_CACHE_HOME": str(home),
        "TMPDIR": str(temporary),
    }
    said = run(GELU, **where)
    assert f"can't be kept in {blocked}" in said
    assert f"so they are in {home / 'minigpt2'}" in said
    assert list(home.rglob("*.nbi"))
    said = run(GELU, **where | {"XDG_CACHE_HOME": str(blocked)})
    assert f"so they are in {temporary}" in said
    (own,) = temporary.glob("minigpt2-*")
    assert list(own.rglob("*.nbi"))
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)  # others may have put something there, and it would be run
    said = run(GELU, **where | {"XDG_CACHE_HOME": str(blocked)})
    assert "every process compiles them anew" in said


def test_a_cache_on_a_full_disk_is_said(tmp_path):
    program = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1000, 1000))\n" + GELU
    said = run(program, NUMBA_CACHE_DIR=str(tmp_path))
    assert f"can't be kept in {tmp_path}" in said
    assert "(File too large): every process compiles them anew" in said


def test_a_second_process_compiles_nothing(tmp_path):
    listening = """
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
"""
    count = "print('compiled:', len(recorder.buffer))"
    first = run(listening + GELU + count, NUMBA_CACHE_DIR=str(tmp_path))
    second = run(listening + GELU + count, NUMBA_CACHE_DIR=str(tmp_path))
    assert "compiled: 0" not in first
    assert "compiled: 0" in second


def test_first_runs_at_the_same_time_share_a_cache(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", GELU]
    both = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_on_one_thread():
    program = """
import os, warnings
import numpy as np
from minigpt2 import kernels
warnings.simplefilter("ignore")  # Python 3.12 warns of forking beside threads
kernels.set_num_threads(2)
x = np.random.default_rng(0).standard_normal((2, 4, 64, 64)).astype(np.float32)
before = kernels.attention(x, x, x)
child = os.fork()
if child == 0:
    kernels.set_num_threads(2)  # as a server may do for each of its workers
    ok = kernels.get_num_threads() == 1
    ok = ok and np.array_equal(kernels.attention(x, x, x), before)
    os._exit(0 if ok else 1)
print("exit status", os.waitpid(child, 0)[1])
"""
    assert "exit status 0" in run(program, NUMBA_NUM_THREADS="2")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MINIGPT2_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, "1"),
        ({"OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_thread_counts_follow_the_environment(environment, expected):
    program = "from minigpt2 import kernels; print(kernels.get_num_threads())"
    assert run(program, **environment).strip() == expected


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts by /proc")
def test_kernels_wake_no_more_threads_than_they_use():
    program = """
import os
import numba
import numpy as np
from minigpt2 import kernels
x = np.zeros(1 << 20, np.float32)
before = len(os.listdir("/proc/self/task"))
kernels.gelu_new(x)
print("new threads:", len(os.listdir("/proc/self/task")) - before)
print("pool of others:", numba.get_num_threads())
"""
    printed = run(program, NUMBA_NUM_THREADS="8", MINIGPT2_NUM_THREADS="2")
    assert "new threads: 1\n" in printed  # besides the calling one
    assert "pool of others: 8" in printed
