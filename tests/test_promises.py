"""The page of promises names tests that are there; and here are those of whole models."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_ids

from minigpt2 import GPT2LMHeadModel, get_num_threads, set_num_threads
from minigpt2.testing import promises, tiny_model

ROOT = Path(__file__).parents[1]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def test_every_promise_names_a_test_that_is_there():
    named = re.findall(r"tests/(\w+\.py)::(\w+)", promises.__doc__)
    assert len(named) > 30
    for file, test in named:
        source = (ROOT / "tests" / file).read_text("utf-8")
        assert f"\ndef {test}(" in source, (file, test)
    # And every line that promises something is followed by its test.
    lines = [line for line in promises.__doc__.splitlines() if line.startswith("    ")]
    for line, after in itertools.pairwise(lines):
        if not line.strip().startswith("tests/"):
            assert after.strip().startswith("tests/"), line


KINDS = [
    ("float32", "float32"),
    ("float64", "float32"),
    ("float32", "bfloat16"),
    ("float32", "int8"),
    ("float32", "int4"),
]
MODELS = {}


def model_of(which, backend, dtype, weights):
    key = which, backend, dtype, weights
    if key not in MODELS:
        options = {"backend": backend, "dtype": np.dtype(dtype)}
        if which == "tiny":
            MODELS[key] = tiny_model(5, n_embd=32, n_inner=64, **options)
        else:
            MODELS[key] = GPT2LMHeadModel.from_pretrained("shakespeare-1m", **options)
        if weights != "float32":
            MODELS[key] = MODELS[key].with_weights(weights)
    return MODELS[key]


@st.composite
def cases(draw, backend, kinds=tuple(KINDS)):
    """Draw a model and ids [B, T] of it."""
    which = draw(st.sampled_from(["tiny", "shakespeare-1m"]))
    model = model_of(which, backend, *draw(st.sampled_from(kinds)))
    shape = draw(st.integers(1, 7)), draw(st.integers(2, 22))
    ids = random_ids(shape, model.config.vocab_size, draw(st.integers(0, 2**20)))
    return model, ids


def padded(ids, lengths):
    """Arguments of a pass over rows of which only so many last ids count."""
    mask = np.arange(ids.shape[1]) >= ids.shape[1] - np.array(lengths)[:, None]
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return {"attention_mask": mask.astype(int), "position_ids": positions}


def in_pieces(model, ids, cuts):
    past, found = None, []
    for piece in np.split(ids, sorted(cuts), axis=1):
        output = model(piece, past=past)
        past = output.past_key_values
        found.append(output.logits)
    return np.concatenate(found, axis=1)


def far(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


few = settings(max_examples=40, deadline=None)


@few
@given(case=cases("numba"), row=st.integers(0, 6))
def test_numba_a_row_has_its_bits_in_any_batch(case, row):
    model, ids = case
    row %= len(ids)
    alone = model(ids[row : row + 1]).logits[0]
    np.testing.assert_array_equal(model(ids).logits[row], alone)


@few
@given(case=cases("numba"), data=st.data())
def test_numba_a_row_has_its_bits_with_padding(case, data):
    model, ids = case
    length = st.integers(1, ids.shape[1])
    lengths = data.draw(st.lists(length, min_size=len(ids), max_size=len(ids)))
    together = model(ids, **padded(ids, lengths)).logits
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, -length:]).logits[0]
        np.testing.assert_array_equal(together[row, -length:], alone)


@few
@given(case=cases("numba"), data=st.data())
def test_numba_a_past_in_any_pieces_gives_the_bits_of_one_pass(case, data):
    model, ids = case
    cuts = data.draw(st.sets(st.integers(1, ids.shape[1] - 1)))
    np.testing.assert_array_equal(in_pieces(model, ids, cuts), model(ids).logits)


@pytest.fixture
def threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("dtype", "weights"), KINDS)
def test_numba_any_number_of_threads_gives_the_same_bits(dtype, weights):
    model = model_of("shakespeare-1m", "numba", dtype, weights)
    ids = random_ids((3, 100), 2048, 1)
    found = []
    for count in (1, 2, 3):
        set_num_threads(count)
        past = model(ids).past_key_values
        found.append((model(ids).logits, model(ids[:, :1], past=past).logits))
    for prefilled, decoded in found[1:]:
        np.testing.assert_array_equal(prefilled, found[0][0])
        np.testing.assert_array_equal(decoded, found[0][1])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_same_pass_gives_the_same_bits_again(backend):
    for dtype, weights in KINDS:
        model = model_of("shakespeare-1m", backend, dtype, weights)
        ids = random_ids((2, 30), 2048, 1)
        np.testing.assert_array_equal(model(ids).logits, model(ids).logits)


@few
@given(case=cases("numpy", tuple(KINDS[:3])), data=st.data())
def test_numpy_agrees_with_itself_whatever_the_shape(case, data):
    model, ids = case
    tolerance = TOLERANCE[model.dtype.name]
    whole = model(ids).logits
    cuts = data.draw(st.sets(st.integers(1, ids.shape[1] - 1)))
    assert far(in_pieces(model, ids, cuts), whole) <= tolerance
    assert far(model(ids[:1]).logits, whole[:1]) <= tolerance
    length = data.draw(st.integers(1, ids.shape[1]))
    rows = padded(ids, [length] * len(ids))
    alone = model(ids[:1, -length:]).logits
    assert far(model(ids, **rows).logits[:1, -length:], alone) <= tolerance
    before = get_num_threads()
    set_num_threads(2)
    try:
        assert far(model(ids).logits, whole) <= tolerance
    finally:
        set_num_threads(before)


@few
@given(case=cases("numba", tuple(KINDS[:3])))
def test_the_backends_agree(case):
    model, ids = case
    which = "tiny" if model.config.vocab_size == 61 else "shakespeare-1m"
    other = model_of(which, "numpy", model.dtype.name, model.weights)
    tolerance = TOLERANCE[model.dtype.name]
    assert far(model(ids).logits, other(ids).logits) <= tolerance


@few
@given(case=cases("numpy", tuple(KINDS[3:])), data=st.data())
def test_numpy_with_integers_is_near_itself_after_a_past(case, data):
    model, ids = case
    cuts = data.draw(st.sets(st.integers(1, ids.shape[1] - 1)))
    assert far(in_pieces(model, ids, cuts), model(ids).logits) <= 1e-2
