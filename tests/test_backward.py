"""backward.py, op by op, against finite differences and against torch's autograd.

Each op of ops.py has a case: a forward pass of random shapes and numbers in float64, and
the gradients that its backward gives of it. Central differences need nothing but the
forward op itself; torch differentiates its own form of the formula.
"""

import ast
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import activations, ops
from minigpt2.training import backward, backward_activations

many = settings(max_examples=25, deadline=None, derandomize=True)


class Case(NamedTuple):
    """An op's forward pass: y = forward(*inputs), and how back(dy, y, *inputs) goes."""

    inputs: list  # the arrays that may change
    forward: object
    back: object  # gives a gradient for each of inputs
    theirs: object  # forward in torch, on tensors


def shapes(draw):
    """Leading axes, none to three of them."""
    return tuple(draw(st.lists(st.integers(1, 4), max_size=3)))


def normal(draw, *shape):
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(array):
    import torch

    return torch.from_numpy(np.array(array))


def embedding(draw):
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    ids = draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20))
    ids = np.array(ids).reshape(draw(st.sampled_from([(-1,), (1, -1)])))

    def back(dy, y, table):
        whole = np.zeros_like(table)
        found, gradients = backward.embedding(dy, ids)
        assert len(set(found.tolist())) == len(found)
        whole[found] += gradients
        return [whole]

    return Case(
        [normal(draw, rows, width)],
        lambda table: table[ids],
        back,
        lambda table: table[tensor(ids)],
    )


def linear(draw):
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return Case(
        [normal(draw, *shapes(draw), n), normal(draw, n, m), normal(draw, m)],
        ops.linear,
        lambda dy, y, x, w, b: backward.linear(dy, x, w),
        lambda x, w, b: x @ w + b,
    )


def layer_norm(draw):
    n, eps = draw(st.integers(1, 8)), draw(st.sampled_from([1e-5, 0.1]))
    x = normal(draw, *shapes(draw), n)
    if n < 3:  # two numbers that are near each other have slopes up to 1 / sqrt(eps)
        eps = 0.1

    def theirs(x, w, b):
        import torch

        return torch.nn.functional.layer_norm(x, (n,), w, b, eps)

    return Case(
        [x, normal(draw, n), normal(draw, n)],
        lambda x, w, b: ops.layer_norm(x, w, b, eps),
        lambda dy, y, x, w, b: backward.layer_norm(dy, x, w, eps),
        theirs,
    )


def activation(name):
    def case(draw):
        def theirs(x):
            transformers = pytest.importorskip("transformers")
            return transformers.activations.ACT2FN[name](x)

        return Case(
            [normal(draw, *shapes(draw), 5) * draw(st.sampled_from([1.0, 4.0, 20.0]))],
            ops.ACTIVATIONS[name],
            lambda dy, y, x: [backward.ACTIVATIONS[name](dy, x)],
            theirs,
        )

    return case


def softmax(draw):
    return Case(
        [normal(draw, *shapes(draw), draw(st.integers(1, 9)))],
        ops.softmax,
        lambda dy, y, x: [backward.softmax(dy, y)],
        lambda x: x.softmax(-1),
    )


def log_softmax(draw):
    return Case(
        [normal(draw, *shapes(draw), draw(st.integers(1, 9)))],
        ops.log_softmax,
        lambda dy, y, x: [backward.log_softmax(dy, y)],
        lambda x: x.log_softmax(-1),
    )


def split_heads(draw):
    heads, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def theirs(qkv):
        import torch

        return torch.stack(
            [
                part.unflatten(-1, (heads, size)).transpose(-3, -2)
                for part in qkv.split(heads * size, -1)
            ]
        )

    return Case(
        [normal(draw, *shapes(draw), draw(st.integers(1, 4)), 3 * heads * size)],
        lambda qkv: np.stack(ops.split_heads(qkv, heads)),
        lambda dy, y, qkv: [backward.split_heads(*dy)],
        theirs,
    )


def merge_heads(draw):
    heads = draw(st.integers(1, 3))
    z = normal(draw, *shapes(draw), heads, draw(st.integers(1, 4)), 2)
    return Case(
        [z],
        ops.merge_heads,
        lambda dy, y, z: [backward.merge_heads(dy, heads)],
        lambda z: z.transpose(-3, -2).flatten(-2),
    )


def attention_sizes(draw):
    """B, H, T, S, D with S >= T."""
    batch, heads, new, past, size = (draw(st.integers(1, n)) for n in (2, 2, 5, 4, 3))
    return batch, heads, new, new + past - 1, size


def masks(draw, batch, heads, new, seen):
    """(key_mask, score_mask): one of them, or neither."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random
    kind = draw(st.sampled_from(["none", "keys", "scores"]))
    keys = random((batch, seen)) < 0.7 if kind == "keys" else None
    scores = None
    if kind == "scores":
        scores = np.where(random((batch, 1, new, seen)) < 0.6, random(), -np.inf)
    return keys, scores


def attention_scores(draw):
    batch, heads, new, seen, size = attention_sizes(draw)
    return Case(
        [normal(draw, batch, heads, new, size), normal(draw, batch, heads, seen, size)],
        lambda q, k: ops.attention_scores(q, k, 0.6),
        lambda dy, y, q, k: backward.attention_scores(dy, q, k, 0.6),
        lambda q, k: 0.6 * q @ k.transpose(-1, -2),
    )


def masked_in_torch(scores, keys, added):
    import torch

    new, seen = scores.shape[-2:]
    hidden = torch.ones(new, seen, dtype=torch.bool).triu(seen - new + 1)
    if added is not None:
        scores, hidden = scores + tensor(added), torch.isneginf(tensor(added))
    if keys is not None:
        hidden = hidden | ~tensor(keys)[:, None, None, :]
    return scores.masked_fill(hidden, -math.inf)


def mask_scores(draw):
    batch, heads, new, seen, _ = attention_sizes(draw)
    keys, added = masks(draw, batch, heads, new, seen)

    def finite(masked):  # so that a sum of it is a number
        return masked.clip(min=-1e3)

    return Case(
        [normal(draw, batch, heads, new, seen)],
        lambda x: finite(ops.mask_scores(x.copy(), keys, added)),
        lambda dy, y, x: [
            backward.mask_scores(dy, ops.mask_scores(x.copy(), keys, added))
        ],
        lambda x: finite(masked_in_torch(x, keys, added)),
    )


def weights_in_torch(q, k, keys, added, scale):
    import torch

    # A row that is hidden throughout takes nothing; the where keeps NaN out of the way.
    masked = masked_in_torch(scale * q @ k.transpose(-1, -2), keys, added)
    empty = torch.isneginf(masked).all(-1, keepdim=True)
    weights = torch.where(empty, 0.0, masked).softmax(-1)
    return torch.where(empty, 0.0, weights)


def attention_weights(draw):
    batch, heads, new, seen, size = attention_sizes(draw)
    keys, _ = masks(draw, batch, heads, new, seen)
    return Case(
        [normal(draw, batch, heads, new, size), normal(draw, batch, heads, seen, size)],
        lambda q, k: ops.attention_weights(q, k, keys, 0.6),
        lambda dy, y, q, k: backward.attention_weights(dy, y, q, k, 0.6),
        lambda q, k: weights_in_torch(q, k, keys, None, 0.6),
    )


def attention(draw):
    batch, heads, new, seen, size = attention_sizes(draw)
    keys, _ = masks(draw, batch, heads, new, seen)
    factors = draw(st.booleans()) or None
    if factors:
        factors = normal(draw, batch, heads, new, seen) > 0.3
        factors = factors * 1.5

    def forward(q, k, v):
        weights = ops.attention_weights(q, k, keys, 0.6)
        return (weights if factors is None else weights * factors) @ v

    def theirs(q, k, v):
        weights = weights_in_torch(q, k, keys, None, 0.6)
        return (weights if factors is None else weights * tensor(factors)) @ v

    return Case(
        [normal(draw, batch, heads, n, size) for n in (new, seen, seen)],
        forward,
        lambda dy, z, q, k, v: backward.attention(dy, z, q, k, v, keys, 0.6, factors),
        theirs,
    )


def cached_attention(draw):
    batch, heads, new, _, size = attention_sizes(draw)
    keys, _ = masks(draw, batch, heads, new, new)
    factors = None
    if draw(st.booleans()):
        factors = (normal(draw, batch, heads, new, new) > 0.3) * 1.5
    block = draw(st.integers(1, 6))

    def forward(qkv):
        if factors is not None:
            q, k, v = ops.split_heads(qkv, heads)
            weights = ops.attention_weights(q, k, keys, 0.6) * factors
            return ops.merge_heads(weights @ v)
        buffers = np.empty((2, batch, heads, new, size))
        return ops.cached_attention(qkv, *buffers, 0, keys, 0.6)

    def back(dz, z, qkv):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ops, "QUERY_BLOCK", block)
            return [backward.cached_attention(dz, z, qkv, heads, keys, 0.6, factors)]

    def theirs(qkv):
        q, k, v = (
            part.unflatten(-1, (heads, size)).transpose(1, 2)
            for part in qkv.split(heads * size, -1)
        )
        weights = weights_in_torch(q, k, keys, None, 0.6)
        z = (weights if factors is None else weights * tensor(factors)) @ v
        return z.transpose(1, 2).flatten(2)

    return Case([normal(draw, batch, new, 3 * heads * size)], forward, back, theirs)


def dropout(draw):
    x = normal(draw, *shapes(draw), 5)
    probability = draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    seed = draw(st.integers(0, 99))

    def generator():
        return np.random.default_rng(seed)

    kept = ops.dropout_mask(x.shape, probability, generator(), x.dtype)
    factor = 0.0 if probability == 1.0 else 1 / (1 - probability)
    return Case(
        [x],
        lambda x: ops.dropout(x, probability, generator()),
        lambda dy, y, x: [backward.dropout(dy, kept, probability)],
        lambda x: x * tensor(kept) * factor,
    )


def cross_entropy(draw):
    size = draw(st.integers(1, 7))
    lead = (*shapes(draw), draw(st.integers(1, 4)))
    labels = draw(
        st.lists(
            st.integers(0, size - 1) | st.sampled_from(ops.IGNORED_LABELS),
            min_size=math.prod(lead),
            max_size=math.prod(lead),
        )
    )
    labels = np.array(labels).reshape(lead)
    if (labels < 0).all():
        labels[(0,) * labels.ndim] = 0

    def theirs(logits):
        import torch

        targets = tensor(np.where(labels == -1, -100, labels)).flatten()
        return torch.nn.functional.cross_entropy(logits.reshape(-1, size), targets)

    return Case(
        [normal(draw, *lead, size)],
        lambda logits: np.asarray(ops.cross_entropy(logits, labels)),
        lambda dy, y, logits: [backward.cross_entropy(float(dy), logits, labels)],
        theirs,
    )


CASES = {
    "embedding": embedding,
    "linear": linear,
    "layer_norm": layer_norm,
    **{f"act {name}": activation(name) for name in ops.ACTIVATIONS},
    "softmax": softmax,
    "log_softmax": log_softmax,
    "split_heads": split_heads,
    "merge_heads": merge_heads,
    "attention_scores": attention_scores,
    "mask_scores": mask_scores,
    "attention_weights": attention_weights,
    "attention": attention,
    "cached_attention": cached_attention,
    "dropout": dropout,
    "cross_entropy": cross_entropy,
}
KINKS = {
    "act relu": [0],
    "act relu6": [0, 6],
    "act leaky_relu": [0],
    "act hardswish": [-3, 3],
    "act gelu_10": [10],
}


def away_from(kinks, x, step):
    """Move what is so near a kink that a difference would straddle it."""
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 2 * step, kink + 10 * step, x)
    return x


@pytest.mark.parametrize("name", CASES)
@given(st.data())
@many
def test_gradients_are_central_differences(name, data):
    case = CASES[name](data.draw)
    step = 1e-5
    inputs = [away_from(KINKS.get(name, []), x, step * 10) for x in case.inputs]
    y = case.forward(*inputs)
    dy = normal(data.draw, *y.shape)
    gradients = case.back(dy, y, *inputs)
    assert len(gradients) == len(inputs)
    for i, (x, dx) in enumerate(zip(inputs, gradients)):
        assert dx.shape == x.shape
        direction = normal(data.draw, *x.shape).clip(-3, 3)
        there, back = (
            case.forward(*inputs[:i], x + sign * step * direction, *inputs[i + 1 :])
            for sign in (1, -1)
        )
        measured = (dy * (there - back)).sum() / (2 * step)
        expected = (dx * direction).sum()
        # The difference's own error: step^2 of a third derivative, and rounding of y
        # over step.
        scale = np.abs(dx * direction).sum() + np.abs(dy).sum() * np.abs(y).max(
            initial=1
        )
        assert abs(measured - expected) <= 2e-8 * scale


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
@given(st.data())
@many
def test_gradients_are_those_of_torchs_autograd(name, data):
    torch = pytest.importorskip("torch")
    case = CASES[name](data.draw)
    y = case.forward(*case.inputs)
    dy = normal(data.draw, *y.shape)
    tensors = [tensor(x).requires_grad_() for x in case.inputs]
    theirs = case.theirs(*tensors)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-9, atol=1e-9)
    theirs.backward(torch.from_numpy(dy).reshape(theirs.shape))
    for dx, x in zip(case.back(dy, y, *case.inputs), tensors):
        expected = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        scale = max(np.abs(expected).max(initial=0.0), 1.0)
        np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-12 * scale)


def functions_of(module):
    """The public functions of a module, in the order of its source."""
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_op_goes_back_in_the_order_of_ops():
    layouts = {"prepare", "pack", "unpack"}  # no arithmetic
    joined = {"norm_linear", "linear_add"}  # go back as what they join does
    drawn = {"dropout_mask", "drop"}  # of dropout
    parts = {"linear_input", "linear_weight", "linear_bias"}  # of linear
    forward = [n for n in functions_of(ops) if n not in layouts | joined | drawn]
    back = [n for n in functions_of(backward) if n not in parts]
    assert back == ["embedding", *forward]
    assert list(backward.ACTIVATIONS) == list(ops.ACTIVATIONS)
    proved = {name.removeprefix("act ") for name in CASES}
    assert {*back, *backward.ACTIVATIONS} <= proved


def test_every_activation_goes_back_in_the_order_of_activations():
    helpers = {"erf", "tanh_gelu", "gelu_slope"}
    forward = [n for n in functions_of(activations) if n not in helpers]
    back = [n for n in functions_of(backward_activations) if n not in helpers]
    assert back == forward
    for name, function in ops.ACTIVATIONS.items():
        home = backward_activations if name in forward else backward
        assert backward.ACTIVATIONS[name] is getattr(home, function.__name__)


def test_each_docstring_begins_with_the_forward_line():
    helpers = {"linear_input", "linear_weight", "linear_bias"}
    helpers |= {"tanh_gelu", "gelu_slope"}
    for module in (backward, backward_activations):
        for name in functions_of(module):
            if name not in helpers | {"gelu_fast"}:
                first = getattr(module, name).__doc__.splitlines()[0]
                assert "=" in first, f"{name}: {first}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_slopes_far_out_are_their_limits_and_give_no_warnings(name, dtype):
    big = float(np.finfo(dtype).max)
    x = np.array([-big, -1e4, 1e4, big], dtype)
    dx = backward.ACTIVATIONS[name](np.ones_like(x), x)
    assert dx.dtype == dtype
    if name == "relu2":
        assert dx[:3].tolist() == [0.0, 0.0, 2e4]
        return
    low, high = {
        "linear": (1, 1), "leaky_relu": (np.array(0.01, dtype), 1), "relu6": (0, 0),
        "gelu_10": (0, 0), "tanh": (0, 0), "sigmoid": (0, 0), "laplace": (0, 0),
    }.get(name, (0, 1))  # fmt: skip
    np.testing.assert_array_equal(dx, np.array([low, low, high, high], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_keep_the_dtype(dtype):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, w, heads = draw(2, 3, 4), draw(4, 4), draw(2, 2, 3, 4)
    labels = np.array([[0, 1, -100], [2, -1, 3]])
    kept = ops.dropout_mask(x.shape, 0.5, rng, x.dtype)
    results = [
        *backward.embedding(x, labels + 100)[1:],
        *backward.linear(x, x, w),
        *backward.layer_norm(x, x, w[0]),
        *(function(x, x) for function in backward.ACTIVATIONS.values()),
        backward.softmax(x, x),
        backward.log_softmax(x, x),
        backward.split_heads(heads, heads, heads),
        backward.merge_heads(x, 2),
        *backward.attention_scores(heads[..., :3], heads, heads, 0.5),
        backward.mask_scores(x, x),
        *backward.attention(heads, heads, heads, heads, heads, None, 0.5),
        backward.cached_attention(x, x, draw(2, 3, 12), 2, None, 0.5),
        backward.dropout(x, kept, 0.5),
        backward.cross_entropy(1.0, x, labels),
    ]
    assert {result.dtype for result in results} == {np.dtype(dtype)}
