"""The arithmetic of GPT-2: short NumPy functions on arrays.

Every op works on the last axes, so leading axes (a batch, the heads) pass through.
This file is the reference: each op is its formula and little else, and
`minigpt2.kernels` has twins of the hot ones under the same names, tested against these.
Three ops join others, because a kernel gains by computing them in one go: norm_linear,
linear_add and cached_attention. Here they are the plain lines that they join.

dtypes are kept: float32 in, float32 at every step, and float64 likewise. The trap is
that NumPy 2 lets a *NumPy* scalar such as np.sqrt(64.0) turn float32 arrays into
float64, while a Python float takes the array's dtype: constants here are Python floats.

Shapes are written with the letters of the legend in model/gpt2.py: T new positions, S
all positions (cached and new), C n_embd, H heads, D = C/H, V vocabulary; `...` is any
number of leading axes.

It does not know about parameters' names, caches or configurations (model/ does).
Sources: Radford et al. 2019 (GPT-2) and openai/gpt-2 src/model.py; Vaswani et al. 2017
(attention); Ba et al. 2016 (layer norm); Hendrycks & Gimpel 2016 (GELU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import activations

QUERY_BLOCK = 128  # queries that cached_attention takes at a time
IGNORED_LABELS = (-100, -1)  # transformers' and pytorch-transformers' "do not score"


def prepare(dtype: np.dtype, weights: str = "float32") -> None:
    """Get ready for a model of this dtype and weight format: here, do nothing.

    The twin in `minigpt2.kernels` compiles its kernels.
    """


def pack(weight: Any) -> Any:
    """Return `weight` [in, out] laid out as `linear` reads it: here, as it is.

    A QuantizedMatrix is read as it is by every backend; it has the rows of the transpose,
    [out, in], and `x @ matrix` multiplies by W all the same.
    """
    return weight


def unpack(packed: Any) -> Any:
    """Return the array [in, out], or the QuantizedMatrix, that `pack` was given."""
    return packed


def linear(x: np.ndarray, weight: Any, bias: np.ndarray | None = None) -> np.ndarray:
    """y = x W + b, for x [..., in], W = pack([in, out]), b [out]; gives [..., out].

    Hugging Face calls this layer Conv1D and OpenAI conv1d (a convolution of width 1),
    which is why GPT-2's weights are [in, out] where torch's Linear has [out, in].
    """
    # One matrix product over all rows: matmul of (B, 1, in) would go row by row.
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = rows @ weight
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], y.shape[-1])


def linear_add(
    x: np.ndarray,
    weight: Any,
    bias: np.ndarray,
    residual: np.ndarray,
    drop: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """residual + drop(linear(x)): how a layer adds to the residual stream.

    `drop` is the dropout of a forward pass in training; None drops nothing.
    """
    y = linear(x, weight, bias)
    if drop is not None:
        y = drop(y)
    y += residual
    return y


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5
) -> np.ndarray:
    """y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis.

    x [..., C], weight [C] (the gain, OpenAI's g), bias [C]. The variance is the biased
    one (divided by C) and eps stands inside the root. Source: Ba et al. 2016.
    """
    y = x - x.mean(axis=-1, keepdims=True)
    variance = np.vecdot(y, y)[..., None] / y.shape[-1]  # the mean of squares, [..., 1]
    y /= np.sqrt(variance + eps)
    y *= weight
    y += bias
    return y


def norm_linear(
    x: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    eps: float,
    weight: Any,
    bias: np.ndarray | None = None,
    activation: str | None = None,
) -> np.ndarray:
    """activation(linear(layer_norm(x))): how both halves of a block begin.

    `activation` is a name in ACTIVATIONS, or None for the identity.
    """
    y = linear(layer_norm(x, norm_weight, norm_bias, eps), weight, bias)
    return y if activation is None else ACTIVATIONS[activation](y)


def gelu_new(x: np.ndarray) -> np.ndarray:
    """GPT-2's GELU: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    The tanh approximation of Hendrycks & Gimpel 2016; not to be mistaken for `gelu`,
    from which it differs by up to 5e-4.
    """
    # One array, worked on in place: with a fresh one for each step, more time goes into
    # getting memory than into arithmetic.
    with np.errstate(over="ignore"):  # x^3 may overflow to inf: tanh(inf) is 1
        y = x * x
        y *= 0.044715
        y += 1.0
        y *= x
        y *= math.sqrt(2.0 / math.pi)  # sqrt(2/pi) (x + 0.044715 x^3)
    np.tanh(y, out=y)
    y += 1.0
    y *= 0.5  # before x, whose double may be infinite
    y *= x
    return y


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU, x * Phi(x) = x/2 * (1 + erf(x / sqrt(2))). Same source."""
    return 0.5 * x * (1.0 + activations.erf(x * math.sqrt(0.5)))


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x) = x / (1 + exp(-x)); also called swish.

    Source: Elfwing et al. 2017.
    """
    with np.errstate(over="ignore"):  # exp(-x) = inf: the limit, 0, is right
        return x / (1.0 + np.exp(-x))


def tanh(x: np.ndarray) -> np.ndarray:
    """The hyperbolic tangent."""
    return np.tanh(x)


swish = silu
ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu_new": gelu_new,
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
    "swish": swish,
    "tanh": tanh,
    # Other names of these, and what checkpoints of others name:
    "gelu_accurate": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python_tanh": gelu_new,
    "gelu_python": gelu,
    "gelu_fast": activations.gelu_fast,
    "gelu_10": activations.gelu_10,
    "quick_gelu": activations.quick_gelu,
    "relu2": activations.relu2,
    "relu6": activations.relu6,
    "leaky_relu": activations.leaky_relu,
    "sigmoid": activations.sigmoid,
    "hardswish": activations.hardswish,
    "mish": activations.mish,
    "laplace": activations.laplace,
    "linear": activations.linear,
}


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x_i) / sum_j exp(x_j) over the last axis, for any finite x or -inf.

    The largest value is subtracted first, which cancels in the ratio and keeps exp from
    overflowing. A row that is -inf throughout has no distribution: it gives zeros, not
    NaN, so that a query which may see no key takes nothing from any.
    """
    limits = np.finfo(x.dtype)
    peak = x.max(axis=-1, keepdims=True, initial=float(limits.min))  # [..., 1]
    with np.errstate(over="ignore"):  # lowest - highest = -inf, whose exp is 0
        exponentials = x - peak
    np.exp(exponentials, out=exponentials)
    # The sum is at least exp(0) = 1, or 0 in the row of -inf.
    total = exponentials.sum(axis=-1, keepdims=True)  # [..., 1]
    exponentials /= np.maximum(total, float(limits.tiny))
    return exponentials


def log_softmax(x: np.ndarray) -> np.ndarray:
    """log(softmax(x)) over the last axis, with no small probability rounded to 0."""
    with np.errstate(over="ignore"):  # lowest - highest = -inf, the limit
        shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def split_heads(qkv: np.ndarray, heads: int) -> tuple[np.ndarray, ...]:
    """[..., T, 3C] -> queries, keys and values, [..., H, T, D] each.

    Each position's query, key and value lie side by side, and so do the heads of each.
    """
    parts = qkv.reshape(*qkv.shape[:-1], 3, heads, -1)  # [..., T, 3, H, D]
    parts = parts.swapaxes(-4, -2)  # [..., H, 3, T, D]
    return parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]


def merge_heads(z: np.ndarray) -> np.ndarray:
    """[..., H, T, D] -> [..., T, C]: the heads of a position side by side again."""
    z = z.swapaxes(-3, -2)  # [..., T, H, D]
    return z.reshape(*z.shape[:-2], -1)


def attention_scores(q: np.ndarray, k: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """scale * q k^T: how well each query fits each key.

    q [..., H, T, D], k [..., H, S, D]; gives [..., H, T, S].
    """
    # Scaling q costs T*D products, scaling the attention scores T*S.
    return (q * scale) @ np.swapaxes(k, -1, -2)


def mask_scores(
    scores: np.ndarray,
    key_mask: np.ndarray | None = None,
    score_mask: np.ndarray | None = None,
) -> np.ndarray:
    """Set attention scores [..., H, T, S] to -inf, in place, where nothing may be seen.

    The queries are the last T of the S positions, and a query sees the keys up to its
    own position (the causal rule): query t sees keys 0 .. S-T+t. key_mask [..., S]
    (bool, or None for all True) hides keys, such as padding, from every query.

    score_mask [..., H or 1, T, S], numbers to add to the attention scores (-inf hides),
    is a rule of the caller's in place of the causal one.
    """
    new, seen = scores.shape[-2:]
    if score_mask is not None:
        scores += score_mask
    elif new > 1:  # a single query is the last position: it sees all
        future = ~np.tri(new, seen, seen - new, dtype=bool)  # [T, S]
        np.copyto(scores, -np.inf, where=future)
    if key_mask is not None:
        np.copyto(scores, -np.inf, where=~key_mask[..., None, None, :])
    return scores


def attention_weights(
    q: np.ndarray,
    k: np.ndarray,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """How much each query takes from each key: softmax(scale * q k^T) where visible.

    q [..., H, T, D], k [..., H, S, D], key_mask as in mask_scores; gives [..., H, T, S].
    What is hidden gets exactly 0.
    """
    return softmax(mask_scores(attention_scores(q, k, scale), key_mask))


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Attention: each query's weighted sum of the values, attention_weights(q, k) v.

    q [..., H, T, D], k and v [..., H, S, D]; gives [..., H, T, D]. GPT-2's scale is
    1/sqrt(D). Source: Vaswani et al. 2017, equation 1.
    """
    return attention_weights(q, k, key_mask, scale) @ v


def cached_attention(
    qkv: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    start: int,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Attention of T new positions to themselves and to `start` cached ones.

    qkv [B, T, 3C] as in split_heads. keys and values [B, H, capacity, D] hold those of
    the positions before; the new ones' are written behind them. key_mask [B, S] as in
    attention_weights. Gives [B, T, C], the heads side by side.

    The queries go in blocks. No query of a block sees further than its last one does,
    so nearly half of the attention scores, the future's, are never computed, and those
    of one block at a time are in memory.
    """
    new, seen = qkv.shape[1], start + qkv.shape[1]
    if not 0 <= start <= seen <= keys.shape[2]:  # one position would broadcast to none
        raise ValueError(
            f"positions {start} to {seen} do not fit into keys of {keys.shape}"
        )
    q, k, v = split_heads(qkv, keys.shape[1])  # [B, H, T, D] each
    keys[:, :, start:seen], values[:, :, start:seen] = k, v
    z = np.empty(q.shape, q.dtype)
    for first in range(0, new, QUERY_BLOCK):
        block = slice(first, min(first + QUERY_BLOCK, new))
        visible = slice(start + block.stop)
        z[:, :, block] = attention(
            q[:, :, block],
            keys[:, :, visible],
            values[:, :, visible],
            None if key_mask is None else key_mask[:, visible],
            scale,
        )
    return merge_heads(z)  # [B, T, C]


def dropout_mask(
    shape: tuple[int, ...],
    probability: float,
    generator: np.random.Generator,
    dtype: np.dtype,
) -> np.ndarray:
    """Which elements dropout keeps, as bools: each but with `probability`.

    `generator` is a numpy.random.Generator, which is advanced by as many numbers of
    `dtype`; by none if probability is 0 or 1.
    """
    if probability in (0.0, 1.0):
        return np.full(shape, probability == 0.0)
    return generator.random(shape, dtype=dtype.type) >= probability


def drop(x: np.ndarray, kept: np.ndarray, probability: float) -> np.ndarray:
    """x / (1 - probability) where `kept`, 0 elsewhere."""
    if probability == 0.0:
        return x
    y = x * kept
    y *= 1.0 / (1.0 - probability) if probability < 1.0 else 0.0
    return y


def dropout(
    x: np.ndarray, probability: float, generator: np.random.Generator
) -> np.ndarray:
    """Zero each element with `probability`, scale the rest by 1/(1 - probability)."""
    kept = dropout_mask(x.shape, probability, generator, x.dtype)
    return drop(x, kept, probability)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.floating:
    """Mean of -log softmax(logits)[label] over the labels that count, in nats.

    logits [..., V], labels [...] integers; labels of -100 and -1 (IGNORED_LABELS) are
    left out, and if that leaves none the mean is NaN, as in torch. ValueError for any
    other label outside 0 .. V-1.
    """
    scored = ~np.isin(labels, IGNORED_LABELS)
    targets = labels[scored]  # [N]
    if targets.size == 0:
        return logits.dtype.type(math.nan)
    vocabulary = logits.shape[-1]
    if targets.min() < 0 or targets.max() >= vocabulary:
        wrong = targets[(targets < 0) | (targets >= vocabulary)][0]
        raise ValueError(
            f"label {wrong} is outside 0 to {vocabulary - 1}; mark positions that do "
            f"not count with {IGNORED_LABELS[0]}"
        )
    rows = log_softmax(logits[scored])  # [N, V]
    return -np.take_along_axis(rows, targets[:, None], axis=-1).mean()
