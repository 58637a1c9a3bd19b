"""The way back: for each op of ops.py, in its order, what a change of its inputs costs.

Let L be the loss, one number. For an array y that L is computed from, dy stands for the
array of all dL/dy_j: how much L grows when element j does. An op's backward is given
dy of what the op gave, and what the op was given (x) or gave (y); it returns dx for each
input x that may change. Everything here is the chain rule,

    dx_i = sum over j of dy_j * dy_j/dx_i        (the first dy_j is dL/dy_j)

worked out by hand: each docstring begins with the op's own line and derives the rest.
Two consequences are used without a word: where an array is used twice, its gradients
add up; where one number was spread over an axis, its gradient is a sum over it.

Shapes, letters and dtypes are those of ops.py. The joined ops norm_linear and
linear_add have no line here: they go back as what they join does. `embedding`, which is
an index in model/layers.py, comes first. tests/test_backward.py proves each function
against finite differences and torch's autograd.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from .. import ops
from ..activations import sigmoid
from . import backward_activations as activations


def embedding(dy: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y = table[ids], for ids [...], table [rows, C]; y [..., C].

    A row of the table is copied to wherever its id stands, so its gradient is the sum
    over these places: an id that occurs five times gets five addends. (The trap:
    `d_table[ids] += dy` would keep one of them.) All other rows' gradients are 0.

    Returns:
        The ids that occur, [N], each once; and the gradients [N, C] of their rows.
    """
    flat = ids.reshape(-1)
    order = np.argsort(flat, kind="stable")  # equal ids side by side
    ids = flat[order]
    first = np.flatnonzero(np.diff(ids, prepend=-1))  # where each run of them begins
    rows = dy.reshape(len(flat), -1)[order]
    return ids[first], np.add.reduceat(rows, first, axis=0)


def linear(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y = x W + b: y_o = sum_i x_i W_io + b_o, in every row alike.

    dy_o/dx_i = W_io, so dx_i = sum_o dy_o W_io: dx = dy W^T. dy_o/dW_io = x_i, and each
    row adds its own: dW_io = sum over rows of x_i dy_o: dW = x^T dy. dy_o/db_o = 1: db is
    the sum of dy over the rows.

    Args:
        weight: W itself, [in, out].

    Returns:
        dx [..., in], dW [in, out], db [out].
    """
    return linear_input(dy, weight), linear_weight(dy, x), linear_bias(dy)


def linear_input(dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The dx of `linear`."""
    rows = dy.reshape(-1, dy.shape[-1])
    dx = rows @ weight.T
    return dx.reshape(*dy.shape[:-1], dx.shape[-1])


def linear_weight(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The dW of `linear`. (Of a layer that stores W^T it is dy^T x: give x for dy.)"""
    return x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


def linear_bias(dy: np.ndarray) -> np.ndarray:
    """The db of `linear`."""
    return dy.reshape(-1, dy.shape[-1]).sum(axis=0)


def layer_norm(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y = xh * weight + bias, with xh = (x - mu) r and r = 1 / sqrt(var(x) + eps).

    dbias = sum of dy over the rows, dweight = sum of dy * xh, and d_xh = dy * weight = g.

    xh_j depends on x_i in three ways: directly, r where j = i; through the mean, -r / C;
    and through r: dr/dx_i = -r^3 (x_i - mu) / C = -r^2 xh_i / C, times x_j - mu = xh_j / r.
    Together dxh_j/dx_i = r (1[i = j] - 1/C - xh_i xh_j / C), and summing over j,
    dx = r (g - mean(g) - xh mean(g xh)). So dx has no component along the ones, nor (but
    for eps) along xh: shifting or stretching x changes nothing.

    Returns:
        dx [..., C], dweight [C], dbias [C].
    """
    width = x.shape[-1]
    xh = x - x.mean(axis=-1, keepdims=True)
    variance = np.vecdot(xh, xh)[..., None] / width
    r = 1.0 / np.sqrt(variance + eps)  # [..., 1]
    xh *= r
    rows = (dy * xh).reshape(-1, width)
    dweight, dbias = rows.sum(axis=0), dy.reshape(-1, width).sum(axis=0)
    g = dy * weight
    along = np.vecdot(g, xh)[..., None] / width  # mean(g xh), [..., 1]
    g -= g.mean(axis=-1, keepdims=True)
    xh *= along
    g -= xh
    g *= r
    return g, dweight, dbias


def gelu_new(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x/2 (1 + t), with t = tanh(u), u = k (x + a x^3), k = sqrt(2/pi), a = 0.044715.

    dt/du = 1 - t^2 and du/dx = k (1 + 3 a x^2); by the product rule
    dy/dx = (1 + t) / 2 + x/2 (1 - t^2) k (1 + 3 a x^2).
    """
    return activations.tanh_gelu(dy, x, math.sqrt(2.0 / math.pi))


def gelu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x Phi(x). Phi' is the normal density phi: dy/dx = Phi(x) + x phi(x)."""
    return dy * activations.gelu_slope(x)


def relu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = max(x, 0): dy/dx is 1 where x > 0 and 0 elsewhere. (At 0 itself, torch's 0.)"""
    return dy * (x > 0.0)


def silu(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x s, with s = sigmoid(x) and s' = s (1 - s): dy/dx = s (1 + x (1 - s))."""
    s = sigmoid(x)
    return dy * (s * (1.0 + x * (1.0 - s)))


def tanh(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = tanh(x): dy/dx = 1 - y^2."""
    return dy * (1.0 - np.square(np.tanh(x)))


swish = silu
_HERE = {op.__name__: op for op in (gelu_new, gelu, relu, silu, tanh)}
ACTIVATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    name: _HERE.get(op.__name__) or getattr(activations, op.__name__)
    for name, op in ops.ACTIVATIONS.items()
}


def softmax(
    dy: np.ndarray, y: np.ndarray, along: np.ndarray | None = None
) -> np.ndarray:
    """y_j = exp(x_j) / sum_i exp(x_i) over the last axis.

    x_i is in y_j's numerator if i = j, and in the denominator always:
    dy_j/dx_i = y_j (1[i = j] - y_i). Summing over j, dx = y (dy - sum_j dy_j y_j). What is
    hidden has y = 0, and gets 0; so does a row that is hidden throughout.

    Args:
        along: sum_j dy_j y_j, [..., 1], of a caller who has it.
    """
    if along is None:
        along = np.vecdot(dy, y)[..., None]
    dx = dy - along
    dx *= y
    return dx


def log_softmax(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y_j = x_j - log(sum_i exp(x_i)) over the last axis.

    The log's derivative by x_i is exp(x_i) / sum = exp(y_i), which every y_j has once:
    dx = dy - exp(y) sum_j dy_j.
    """
    return dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)


def split_heads(dq: np.ndarray, dk: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """q, k, v = the thirds of qkv [..., T, 3C], by heads: [..., H, T, D] each.

    Nothing is computed, so each gradient goes to where its number came from.
    """
    return np.concatenate([ops.merge_heads(part) for part in (dq, dk, dv)], axis=-1)


def merge_heads(dy: np.ndarray, heads: int) -> np.ndarray:
    """y [..., T, C] = the heads of z [..., H, T, D] side by side; so they part again."""
    return dy.reshape(*dy.shape[:-1], heads, -1).swapaxes(-3, -2)  # [..., H, T, D]


def attention_scores(
    dy: np.ndarray, q: np.ndarray, k: np.ndarray, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """y = scale * q k^T: y_ts = scale * sum_d q_td k_sd.

    As in `linear`, but both factors may change: dq_td = scale * sum_s dy_ts k_sd, that
    is scale * dy k; and dk_sd = scale * sum_t dy_ts q_td, scale * dy^T q.

    Returns:
        dq [..., H, T, D], dk [..., H, S, D].
    """
    # (Scaled where there are fewest numbers, as on the way there.)
    return (dy @ k) * scale, np.swapaxes(dy, -1, -2) @ (q * scale)


def mask_scores(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y = x where it is seen, -inf where not; plus a mask of the caller's, if he has one.

    What is hidden no longer depends on x: 0. Elsewhere dx = dy.
    """
    return np.where(np.isneginf(y), 0.0, dy)


def attention_weights(
    dy: np.ndarray,
    y: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    scale: float = 1.0,
    along: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """y = softmax(mask_scores(attention_scores(q, k, scale))).

    Back in the reverse order. mask_scores can be left out: where a score is hidden, y is
    0, and softmax already gives 0.

    Returns:
        dq [..., H, T, D], dk [..., H, S, D].
    """
    return attention_scores(softmax(dy, y, along), q, k, scale)


def attention(
    dz: np.ndarray,
    z: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
    factors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z = (F w) v, with w = attention_weights(q, k), and F = 1 but for what follows.

    In training w is multiplied by F [..., H, T, S] before it meets v: dropout's 0 or
    1/(1 - p), and a head's factor. A product again: dv = (F w)^T dz, and d(F w) = dz v^T,
    so dw = F dz v^T.

    The softmax needs sum_s dw_ts w_ts of each query t. That is sum_s (dz_t . v_s) F_ts
    w_ts = dz_t . z_t: D products instead of S, and exact whatever F is.

    Returns:
        dq [..., H, T, D], dk and dv [..., H, S, D].
    """
    weights = ops.attention_weights(q, k, key_mask, scale)  # [..., H, T, S], again
    dweights = dz @ np.swapaxes(v, -1, -2)
    used = weights
    if factors is not None:
        used = weights * factors
        dweights *= factors
    dv = np.swapaxes(used, -1, -2) @ dz
    along = np.vecdot(dz, z)[..., None]  # [..., H, T, 1]
    return *attention_weights(dweights, weights, q, k, scale, along), dv


def cached_attention(
    dz: np.ndarray,
    z: np.ndarray,
    qkv: np.ndarray,
    heads: int,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
    factors: np.ndarray | None = None,
) -> np.ndarray:
    """z = merge_heads(attention(split_heads(qkv))), block of queries by block.

    With no past: all keys and values are in qkv [B, T, 3C]. A block's queries see the
    keys up to its last one, as on the way there; their dq is complete, and they add to
    dk and dv of all those keys.

    Args:
        dz: [B, T, C], and z what the op gave.
        factors: as in `attention`, [B, H, T, T].

    Returns:
        dqkv [B, T, 3C].
    """
    new = qkv.shape[1]
    q, k, v = ops.split_heads(qkv, heads)  # [B, H, T, D] each
    dz, z = merge_heads(dz, heads), merge_heads(z, heads)
    dqkv = np.zeros_like(qkv)
    dq, dk, dv = ops.split_heads(dqkv, heads)  # views, that fill dqkv
    for first in range(0, new, ops.QUERY_BLOCK):
        block = slice(first, min(first + ops.QUERY_BLOCK, new))
        visible = slice(block.stop)
        dq[:, :, block], more_dk, more_dv = attention(
            dz[:, :, block],
            z[:, :, block],
            q[:, :, block],
            k[:, :, visible],
            v[:, :, visible],
            None if key_mask is None else key_mask[:, visible],
            scale,
            None if factors is None else factors[:, :, block, visible],
        )
        dk[:, :, visible] += more_dk
        dv[:, :, visible] += more_dv
    return dqkv


def dropout(dy: np.ndarray, kept: np.ndarray, probability: float) -> np.ndarray:
    """y = x / (1 - probability) where an element was kept, 0 elsewhere.

    Once drawn, what is kept is a constant: dx is dy times the same factors.

    Args:
        kept: the bools of ops.dropout_mask.
    """
    return ops.drop(dy, kept, probability)


def cross_entropy(dy: float, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """y = the mean of -log_softmax(x)[label] over the N labels that count.

    d(-log_softmax(x)_label)/dx_i = softmax(x)_i - 1[i = label], by log_softmax above:
    the probabilities, less 1 at the right answer. Each row that counts has 1/N of that;
    the others have 0.

    Returns:
        dlogits [..., V].
    """
    counted = ~np.isin(labels, ops.IGNORED_LABELS)
    targets = labels[counted]  # [N]
    rows = ops.softmax(logits[counted])  # [N, V]
    rows[np.arange(len(targets)), targets] -= 1.0
    rows *= dy / max(len(targets), 1)
    if counted.all():
        return rows.reshape(logits.shape)
    dlogits = np.zeros_like(logits)
    dlogits[counted] = rows
    return dlogits
