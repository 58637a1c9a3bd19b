"""The table of causes: how a step of GPT-2 has gone wrong in other ports.

Beside tracing/steps.py, which says what each step does, this says what is done instead,
each as a short function on what the step reads. A port that gives at a step what one of
these gives, and not what the step should give, has its mistake: that is how `diagnose`
finds it.

The sentence in a function's docstring is the advice that goes with the cause, and `cases`
names projects in which it happened (issue numbers; HF is huggingface/transformers). A
variant returns None where it does not apply: an untied head's mistake, where it is tied.

Shapes have the letters of model/gpt2.py's legend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .. import ops
from .precision import rounded
from .replay import OPS, Op, Site, added, attention_scores, linear

NORMS = ("ln_1", "ln_2", "ln_f")
LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
HEADS = ("attn.q", "attn.k", "attn.v")
SUMS = ("resid_mid", "")  # "" is the block's output


class Variant(NamedTuple):
    """What a step may do instead of what it should."""

    cause: str
    at: tuple[str, ...]  # the steps, by their names within a block
    op: Op
    advice: str
    cases: str
    solved: bool  # a number in it is solved for, from what they have


VARIANTS: list[Variant] = []


def variant(
    cause: str, at: str | tuple[str, ...], cases: str = "", solved: bool = False
) -> Callable[[Op], Op]:
    """Enter a function into the table; several may stand for one cause."""

    def enter(op: Op) -> Op:
        advice = " ".join((op.__doc__ or "").split())
        steps = (at,) if isinstance(at, str) else at
        VARIANTS.append(Variant(cause, steps, op, advice, cases, solved))
        return op

    return enter


def each(
    cause: str, at: str | tuple[str, ...], choices: Sequence, cases: str = ""
) -> Callable[[Callable], Callable]:
    """Enter a function of (site, choice) once for each of the choices."""

    def enter(op: Callable) -> Callable:
        for choice in choices:

            def chosen(site: Site, choice: object = choice) -> np.ndarray | None:
                return op(site, choice)

            chosen.__doc__ = op.__doc__
            variant(cause, at, cases)(chosen)
        return op

    return enter


# --- Embeddings


def other_terms(site: Site, name: str) -> np.ndarray:
    """Return what is added at `drop` besides the step `name`: 0 at that step itself."""
    if site.local == name:
        return np.zeros(())
    return added(site) - site[name]


def with_rows(site: Site, name: str, ids: np.ndarray) -> np.ndarray:
    """Return the step's value with other rows of a table [B, T]."""
    table = site.parameter("weight", name)
    return other_terms(site, name) + table[ids]


def nearest_rows(site: Site, name: str) -> np.ndarray | None:
    """Return which rows of a table they have [B, T]; None if theirs is not known."""
    if site.theirs is None:
        return None
    table = site.parameter("weight", name)
    rows = site.theirs - other_terms(site, name)  # [B, T, C]
    if not np.isfinite(rows).all():
        return None
    # |row - t|^2 but for |row|^2, which is the same for all t.
    distance = (table * table).sum(axis=-1) - 2 * rows @ table.T
    return distance.argmin(axis=-1)


def shown(ids: np.ndarray) -> str:
    """Return the first row of ids, cut short."""
    row = [int(i) for i in ids[0]]
    return " ".join(map(str, row[:6])) + (" ..." if len(row) > 6 else "")


@each("positions", "wpe", (1, 2), cases="mlx-lm 93")
def positions_begin_later(site: Site, first: int) -> np.ndarray:
    """Positions count from 0, at the first id."""
    site.details[site.step.name] = f"they begin at {first}"
    ids = site.reference.position_ids + first
    return with_rows(
        site, "wpe", np.minimum(ids, site.reference.config.n_positions - 1)
    )


@variant("positions", "wpe", cases="HF 18388, nnsight 672")
def positions_count_padding(site: Site) -> np.ndarray:
    """With padding on the left, positions count from the first id that is no padding."""
    site.details[site.step.name] = "the padding is counted"
    ids = site.reference.position_ids
    start = site.reference.start
    return with_rows(site, "wpe", np.arange(start, start + ids.shape[1]) + 0 * ids)


@variant("positions", "wpe", cases="gluon-nlp 1015, mlx-lm 93")
def positions_ignore_the_past(site: Site) -> np.ndarray | None:
    """With a cache, positions go on behind those of the past."""
    if not site.reference.start:
        return None
    site.details[site.step.name] = "the past is ignored"
    ids = site.reference.position_ids
    return with_rows(site, "wpe", np.arange(ids.shape[1]) + 0 * ids)


@variant("positions", ("wpe", "drop"), solved=True)
def other_positions(site: Site) -> np.ndarray | None:
    """Other rows of wpe are added than those of the positions."""
    ids = nearest_rows(site, "wpe")
    if ids is None or (site.local == "drop" and "wpe" not in site.values):
        return None
    ours = shown(site.reference.position_ids)
    site.details[site.step.name] = f"theirs {shown(ids)}; ours {ours}"
    return with_rows(site, "wpe", ids)


@variant("no positions", "drop")
def no_positions(site: Site) -> np.ndarray:
    """The embedding of its position is added to that of each id."""
    return added(site) - site["wpe"]


@variant("other ids", ("wte", "drop"), "TransformerLens 74, 282", solved=True)
def other_ids(site: Site) -> np.ndarray | None:
    """They read other ids: look for a BOS that was put before them, or another text."""
    if site.reference.input_ids is None:
        return None
    ids = nearest_rows(site, "wte")
    if ids is None:
        return None
    ours = shown(site.reference.input_ids)
    site.details[site.step.name] = f"theirs {shown(ids)}; ours {ours}"
    return with_rows(site, "wte", ids)


@variant("embeddings scaled by sqrt(C)", "drop")
def scaled_embeddings(site: Site) -> np.ndarray:
    """GPT-2 adds the embeddings as they are; the first Transformer scaled them."""
    embeds = site.reference.inputs_embeds
    wte = site["wte"] if embeds is None else embeds
    return added(site) + (math.sqrt(wte.shape[-1]) - 1) * wte


@variant("token type 0 added", "drop")
def token_type_0(site: Site) -> np.ndarray | None:
    """Without token_type_ids nothing is added; zeros for them add the row of id 0."""
    if site.reference.token_type_ids is not None:
        return None
    return added(site) + site.parameter("weight", "wte")[0]


# --- Layer norms


def norm(
    site: Site,
    centered: bool = True,
    ddof: int = 0,
    eps: float | None = None,
    outside: bool = False,
    module: str | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x normalized, the gain and the bias, of a layer norm with other rules."""
    eps = site.eps if eps is None else eps
    x = site.x
    y = x - x.mean(axis=-1, keepdims=True) if centered else x
    variance = (y * y).sum(axis=-1, keepdims=True) / (y.shape[-1] - ddof)
    y = y / (np.sqrt(variance) + eps if outside else np.sqrt(variance + eps))
    return y, site.parameter("weight", module), site.parameter("bias", module)


@each(
    "other eps",
    NORMS,
    (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
    cases="candle 271",
)
def other_eps(site: Site, eps: float) -> np.ndarray | None:
    """GPT-2's layer_norm_epsilon is 1e-5; frameworks have 1e-6, 1e-12 or 1e-3."""
    if eps == site.eps:
        return None
    site.details["eps"] = f"eps {eps:g}, not {site.eps:g}"
    y, gain, bias = norm(site, eps=eps)
    return y * gain + bias


@variant("other eps", NORMS, "candle 271", solved=True)
def solved_eps(site: Site) -> np.ndarray | None:
    """GPT-2's layer_norm_epsilon is 1e-5; frameworks have 1e-6, 1e-12 or 1e-3."""
    if site.theirs is None:
        return None
    y, gain, bias = norm(site, eps=0.0)
    x = site.x
    variance = x.var(axis=-1)
    # theirs - bias = sqrt(variance / (variance + eps)) y gain: the ratio of each row.
    shape = y * gain
    ratio = ((site.theirs - bias) * shape).sum(axis=-1) / (shape * shape).sum(axis=-1)
    solved = variance * (1 / ratio**2 - 1)  # [B, T]
    # Rows of little variance say most about eps.
    weight = np.where(np.isfinite(solved), 1 / variance**2, 0.0)
    eps = float((np.nan_to_num(solved) * weight).sum() / max(weight.sum(), 1e-300))
    if not math.isfinite(eps) or eps <= 0:
        return None
    site.details["eps"] = f"eps {eps:.3g}, not {site.eps:g}"
    y, gain, bias = norm(site, eps=eps)
    return y * gain + bias


@variant(
    "eps outside the root", NORMS, cases="BERT-pytorch 30, annotated-transformer 119"
)
def eps_outside(site: Site) -> np.ndarray:
    """It is 1 / sqrt(variance + eps), and not 1 / (sqrt(variance) + eps)."""
    y, gain, bias = norm(site, outside=True)
    return y * gain + bias


@variant(
    "unbiased variance",
    NORMS,
    cases="Flux 529, allennlp 953, annotated-transformer 119",
)
def unbiased_variance(site: Site) -> np.ndarray:
    """The variance is the sum of squares by C; torch.var divides by C - 1 if not told."""
    y, gain, bias = norm(site, ddof=1)
    return y * gain + bias


@variant("gain dropped", NORMS)
def gain_dropped(site: Site) -> np.ndarray:
    """What is normalized is multiplied by the norm's weight (g); initially that is 1."""
    y, _, bias = norm(site)
    return y + bias


@variant("norm's bias dropped", NORMS)
def norm_bias_dropped(site: Site) -> np.ndarray:
    """GPT-2's norms have a bias (b), which is 0 only initially."""
    y, gain, _ = norm(site)
    return y * gain


@variant("1 added to the gain", NORMS)
def one_added_to_gain(site: Site) -> np.ndarray:
    """GPT-2 stores the gain itself; others, such as Gemma, store its distance from 1."""
    y, gain, bias = norm(site)
    return y * (1 + gain) + bias


@each("RMS norm", NORMS, (True, False))
def rms_norm(site: Site, biased: bool) -> np.ndarray:
    """A layer norm subtracts the mean first; an RMS norm, such as Llama's, does not."""
    y, gain, bias = norm(site, centered=False)
    return y * gain + (bias if biased else 0)


@variant("norm skipped", ("ln_1", "ln_2"))
def norm_skipped(site: Site) -> np.ndarray:
    """Both halves of a block, and the head, read the residual stream through a norm."""
    return site.x


@variant("another norm's parameters", ("ln_1", "ln_2"))
def exchanged_norm(site: Site) -> np.ndarray:
    """ln_1 stands before attention, ln_2 before the MLP."""
    other = site.step.name[:-1] + ("2" if site.local == "ln_1" else "1")
    y, gain, bias = norm(site, module=other)
    return y * gain + bias


@variant("MLP beside attention", "ln_2")
def parallel_mlp(site: Site) -> np.ndarray:
    """The MLP reads what attention has added to; in GPT-J it reads what attention read."""
    x = site["h.i-1"]
    gain, bias = site.parameter("weight"), site.parameter("bias")
    return ops.layer_norm(x, gain, bias, site.eps)


# --- Linear layers


def linear_with(site: Site, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return ops.linear(site.merged(site.x), weight, bias)


@variant("bias dropped", LINEAR)
def bias_dropped(site: Site) -> np.ndarray:
    """Each of a block's linear layers has a bias; only the head has none."""
    bias = site.parameter("bias")
    return linear_with(site, site.parameter("weight"), 0 * bias)


@variant("bias added twice", LINEAR)
def bias_twice(site: Site) -> np.ndarray:
    """Where a layer is split over devices, only one of them adds the bias."""
    return linear_with(site, site.parameter("weight"), 2 * site.parameter("bias"))


@variant("weight transposed", LINEAR, cases="AutoGPTQ 139, nntile 370")
def weight_transposed(site: Site) -> np.ndarray | None:
    """GPT-2's Conv1D weights are [in, out]: x W. A square one fits the wrong way too."""
    weight = site.parameter("weight")
    if weight.shape[0] != weight.shape[1]:
        return None
    return linear_with(site, weight.T, site.parameter("bias"))


@variant("weight in another memory order", LINEAR)
def other_memory_order(site: Site) -> np.ndarray | None:
    """The file has the numbers of [in, out] row by row: they were read as [out, in]."""
    weight = site.parameter("weight")
    if weight.shape[0] == weight.shape[1]:
        return None  # that is the transpose
    return linear_with(
        site, weight.reshape(weight.shape[::-1]).T, site.parameter("bias")
    )


@each(
    "another layer's parameters", (*LINEAR, "ln_1", "ln_2"), ("+1", "-1", "0", "last")
)
def another_layer(site: Site, which: str) -> np.ndarray | None:
    """Layers go by number: beware of h.10 before h.2, and of counting from 1."""
    count, layer = site.reference.config.n_layer, site.layer or 0
    other = {"+1": layer + 1, "-1": layer - 1, "0": 0, "last": count - 1}[which] % count
    if other == layer or (
        which in ("0", "last") and abs(layer - other) in (1, count - 1)
    ):
        return None  # the layer itself, or one of the neighbours
    module = f"h.{other}.{site.local}"
    site.details["layer"] = f"layer {other}'s in layer {layer}"
    if site.local in NORMS:
        y, gain, bias = norm(site, module=module)
        return y * gain + bias
    return linear_with(
        site, site.parameter("weight", module), site.parameter("bias", module)
    )


@each("parameters rounded", (*LINEAR, "lm_head"), ("float16", "bfloat16"))
def rounded_parameters(site: Site, precision: str) -> np.ndarray | None:
    """The parameters were stored in half precision, which these do not fit in."""
    weight = site.parameter("weight")
    fewer = rounded(weight, precision)
    if (fewer == weight).all():
        return None
    site.details["rounded"] = f"to {precision}"
    if site.local == "lm_head":
        return site.x @ fewer.T
    return linear_with(site, fewer, rounded(site.parameter("bias"), precision))


# --- Heads


def heads_by(site: Site, layout: str, letter: str) -> np.ndarray:
    """Return the queries, keys or values of c_attn, if its last axis has this layout."""
    qkv = site.x  # [B, T, 3C]
    heads = site.attention.n_head
    size = {"3": 3, "H": heads, "D": qkv.shape[-1] // 3 // heads}
    array = qkv.reshape(*qkv.shape[:2], *(size[axis] for axis in layout))
    axes = [2 + layout.index(axis) for axis in "3HD"]
    return array.transpose(axes[0], 0, axes[1], 1, axes[2])["qkv".index(letter)]


@each(
    "q, k, v in another order",
    HEADS,
    ("qvk", "kqv", "kvq", "vqk", "vkq"),
    cases="TransformerEngine 413",
)
def other_order(site: Site, order: str) -> np.ndarray | None:
    """c_attn's output is the queries, then the keys, then the values."""
    mine = site.local[-1]
    taken = order["qkv".index(mine)]
    if taken != mine:
        site.details[mine] = f"their {mine} is our {taken}"
    return heads_by(site, "3HD", taken)


@each(
    "heads interleaved",
    HEADS,
    ("H3D", "HD3", "3DH", "D3H", "DH3"),
    cases="TransformerEngine 413, tensor_parallel 103, mlxcel 928",
)
def interleaved(site: Site, layout: str) -> np.ndarray | None:
    """c_attn's output is [3, H, D]: all queries, head by head, then keys, then values."""
    if 1 in (site.attention.n_head, site.attention.head_size):
        plain = "".join(a for a in layout if not one(site, a))
        if plain == "".join(a for a in "3HD" if not one(site, a)):
            return None  # with one head, or heads of one number, that is right
    site.details["layout"] = f"read as [{', '.join(layout)}]"
    return heads_by(site, layout, site.local[-1])


def one(site: Site, axis: str) -> bool:
    return {"H": site.attention.n_head, "D": site.attention.head_size}.get(axis) == 1


@variant("heads split without a transpose", HEADS)
def split_as_view(site: Site) -> np.ndarray | None:
    """[B, T, C] becomes [B, T, H, D] and then, by a transpose, [B, H, T, D]."""
    third = np.split(site.x, 3, axis=-1)["qkv".index(site.local[-1])]
    batch, new, width = third.shape
    heads = site.attention.n_head
    return third.reshape(batch, heads, new, width // heads)


# --- Attention


@each(
    "scale",
    "attn.scores",
    ("1", "1/sqrt(C)", "1/sqrt(H)", "1/D", "1/sqrt(D)", "1/sqrt(D)/(layer + 1)"),
    cases="mlc-llm 3426, tt-metal 56789, HF 44397, TransformerLens 27",
)
def other_scale(site: Site, name: str) -> np.ndarray | None:
    """Scores are q k^T / sqrt(D), where D is the size of a head, and not C or H."""
    heads, size = site.attention.n_head, site.attention.head_size
    scale = {
        "1": 1.0,
        "1/sqrt(C)": 1 / math.sqrt(site.reference.config.n_embd),
        "1/sqrt(H)": 1 / math.sqrt(heads),
        "1/D": 1 / size,
        "1/sqrt(D)": 1 / math.sqrt(size),
        "1/sqrt(D)/(layer + 1)": 1 / math.sqrt(size) / ((site.layer or 0) + 1),
    }[name]
    site.details["scale"] = f"scale {name}"
    return ops.attention_scores(site.x, site.with_past("k"), scale)


@variant("scale", "attn.scores", "mlc-llm 3426, tt-metal 56789, HF 44397", solved=True)
def solved_scale(site: Site) -> np.ndarray | None:
    """Scores are q k^T / sqrt(D), where D is the size of a head, and not C or H."""
    if site.theirs is None or not np.isfinite(site.theirs).all():
        return None
    ours = attention_scores(site)
    ratio = float((site.theirs * ours).sum() / (ours * ours).sum())
    site.details["scale"] = f"{ratio:.4g} times ours"
    return ratio * ours


@variant("q, k, v in another order", "attn.scores")
def scores_transposed(site: Site) -> np.ndarray | None:
    """Queries are rows and keys are columns: q k^T."""
    ours = attention_scores(site)
    if ours.shape[-1] != ours.shape[-2]:
        return None
    site.details["order"] = "k q^T in place of q k^T"
    return ours.swapaxes(-1, -2)


def visible(site: Site, diagonal: int = 0, padding: bool = True) -> np.ndarray:
    """Return which keys each query may see, [B or 1, 1, T, S].

    diagonal: how many keys behind its own position a query sees too.
    """
    new, seen = site.x.shape[-2:]
    mask = np.tri(new, seen, seen - new + diagonal, dtype=bool)[None, None]
    key_mask = site.reference.key_mask
    if padding and key_mask is not None:
        mask = mask & key_mask[:, None, None, :]
    return mask


def padding_hidden(site: Site, scores: np.ndarray) -> np.ndarray | None:
    """Hide the padding alone; None if there is none."""
    if site.reference.key_mask is None:
        return None
    return np.where(site.reference.key_mask[:, None, None, :], scores, -np.inf)


def empty_rows(masked: np.ndarray, choice: str, scores: np.ndarray) -> np.ndarray:
    """Return masked scores with rows that see no key as a port may have them."""
    empty = np.isneginf(masked).all(axis=-1, keepdims=True)
    if choice == "as they are":
        return np.where(empty, scores, masked)
    return np.where(empty, math.nan if choice == "nan" else 0.0, masked)


EMPTY = ("nan", "alike", "as they are")  # NaN, or all keys alike, or unmasked


@each("mask sees one ahead", "attn.masked", (1,), cases="cs249r 1785")
def off_by_one(site: Site, ahead: int) -> np.ndarray | None:
    """A query sees the keys up to its own position: numpy.tri(T, S, S - T)."""
    if site.reference.score_mask is not None:
        return None
    return np.where(visible(site, ahead), site.x, -np.inf)


@each("mask hides the query itself", "attn.masked", ("-inf", *EMPTY))
def strict(site: Site, empty: str) -> np.ndarray | None:
    """A query sees its own key too: the diagonal belongs to what is seen."""
    if site.reference.score_mask is not None:
        return None
    masked = np.where(visible(site, -1), site.x, -np.inf)
    return masked if empty == "-inf" else empty_rows(masked, empty, site.x)


@each(
    "masked scores are 0", "attn.masked", (True, False), cases="LLMs-from-scratch 1048"
)
def zero_fill(site: Site, padding: bool) -> np.ndarray | None:
    """What is hidden must get -inf before the softmax: exp(0) is 1."""
    if site.reference.score_mask is not None:
        return None
    future = np.where(visible(site, padding=False), site.x, 0.0)
    if padding:
        return np.where(visible(site), site.x, 0.0)
    return padding_hidden(site, future)


@each(
    "mask inverted", "attn.masked", [(d, e) for d in (0, -1) for e in ("-inf", *EMPTY)]
)
def inverted(site: Site, choice: tuple[int, str]) -> np.ndarray | None:
    """True means hidden in some libraries, and seen in others."""
    if site.reference.score_mask is not None:
        return None
    diagonal, empty = choice
    keys = site.reference.key_mask
    seen = ~visible(site, diagonal, padding=False)
    if keys is not None:
        seen = seen & keys[:, None, None, :]
    masked = np.where(seen, site.x, -np.inf)
    return masked if empty == "-inf" else empty_rows(masked, empty, site.x)


@variant("no causal mask", "attn.masked")
def no_mask(site: Site) -> np.ndarray | None:
    """GPT-2 is causal: no query sees a key behind its own position."""
    return site.x if site.reference.key_mask is None else padding_hidden(site, site.x)


@variant("padding is seen", "attn.masked")
def padding_seen(site: Site) -> np.ndarray | None:
    """The attention mask hides padded keys from every query."""
    if site.reference.key_mask is None or site.reference.score_mask is not None:
        return None
    return np.where(visible(site, padding=False), site.x, -np.inf)


@each(
    "mask value leaks",
    "attn.masked",
    [(value, how) for value in (-1e4, -1e3, -100.0) for how in ("added", "filled in")],
    cases="minGPT 75, HF 382, 24638",
)
def leak(site: Site, choice: tuple[float, str]) -> np.ndarray | None:
    """Hide with -inf: a number such as -1e4 hides nothing beside scores of its size."""
    value, how = choice
    if site.reference.score_mask is not None:
        return None
    site.details["value"] = f"{value:g} {how}"
    hidden = site.x + value if how == "added" else value
    return np.where(visible(site), site.x, hidden)


@variant("mask value leaks", "attn.masked", "minGPT 75, HF 382, 24638", solved=True)
def solved_leak(site: Site) -> np.ndarray | None:
    """Hide with -inf: a number such as -1e4 hides nothing beside scores of its size."""
    if site.theirs is None or site.reference.score_mask is not None:
        return None
    seen = np.broadcast_to(visible(site), site.x.shape)
    if seen.all() or not np.isfinite(site.theirs[~seen]).all():
        return None
    filled, moved = site.theirs[~seen], (site.theirs - site.x)[~seen]
    how = "filled in" if np.ptp(filled) <= np.ptp(moved) else "added"
    value = float(np.median(filled if how == "filled in" else moved))
    if value == 0:
        return None  # which has a name of its own
    site.details["value"] = f"{value:.4g} {how}"
    hidden = site.x + value if how == "added" else value
    return np.where(seen, site.x, hidden)


@each(
    "softmax over the queries",
    "attn.weights",
    (-2,),
    cases="llms-from-scratch-rs 30, ng-video-lecture 42",
)
@each("softmax over the heads", "attn.weights", (1,), cases="ng-video-lecture 42")
def softmax_over(site: Site, axis: int) -> np.ndarray:
    """The attention weights of a query sum to 1 over its keys, the last axis."""
    moved = np.moveaxis(site.x, axis, -1)
    return np.moveaxis(ops.softmax(moved), -1, axis)


@variant("mask after the softmax", "attn.weights")
def mask_after(site: Site) -> np.ndarray:
    """Masked after the softmax, the attention weights no longer sum to 1."""
    hidden = ~np.isfinite(site.x) | (site.x < -1e3)
    return np.where(hidden, 0.0, ops.softmax(site["attn.scores"]))


@variant("attention weights transposed", "attn.z")
def weights_transposed(site: Site) -> np.ndarray | None:
    """z is the attention weights [T, S] times the values [S, D]."""
    weights = site.x
    if weights.shape[-1] != weights.shape[-2]:
        return None
    return weights.swapaxes(-1, -2) @ site.with_past("v")


def unswapped(z: np.ndarray) -> np.ndarray:
    """[B, H, T, D] -> [B, T, C] as memory has it, with no transpose."""
    return z.reshape(z.shape[0], z.shape[2], -1)


@variant("heads not swapped back", "attn.z")
def not_swapped_in_z(site: Site) -> np.ndarray | None:
    """[B, H, T, D] becomes [B, T, H, D], by a transpose, and then [B, T, C]."""
    ours = OPS["product"](site)
    batch, heads, new, size = ours.shape
    if heads == 1 or new == 1:
        return None
    return unswapped(ours).reshape(batch, new, heads, size).swapaxes(1, 2)


@variant("heads not swapped back", "attn.c_proj")
def not_swapped_back(site: Site) -> np.ndarray | None:
    """[B, H, T, D] becomes [B, T, H, D], by a transpose, and then [B, T, C]."""
    if 1 in site.x.shape[1:3]:
        return None
    return ops.linear(
        unswapped(site.x), site.parameter("weight"), site.parameter("bias")
    )


# --- The residual stream


@variant("residual from the norm", SUMS, cases="picoGPT 22")
def residual_from_norm(site: Site) -> np.ndarray:
    """The sum goes on from the residual stream itself, not from what the norm gave."""
    return site["ln_2" if site.local == "" else "ln_1"] + site.inputs[1]


@variant("no residual", SUMS)
def no_residual(site: Site) -> np.ndarray:
    """Each half of a block adds to the residual stream."""
    return site.inputs[1]


@variant("residual from the block's input", "")
def residual_around_block(site: Site) -> np.ndarray:
    """The MLP adds to what attention has added to already."""
    return site["h.i-1"] + site.inputs[1]


DROPPED = ("drop", "attn.weights", "attn.c_proj", "mlp.c_proj", *SUMS)


@variant("dropout left on", DROPPED, solved=True)
def dropout_left_on(site: Site) -> np.ndarray | None:
    """Dropout is for training: call eval(), or leave it out."""
    if site.theirs is None:
        return None
    ours = OPS[site.step.op](site)
    kept_aside = site.inputs[0] if site.local in SUMS else np.zeros(())
    dropped, theirs = ours - kept_aside, site.theirs - kept_aside
    sized = np.abs(dropped) > 0.05 * np.abs(dropped).max()
    zero = np.abs(theirs) < 0.02 * np.abs(dropped)
    share = float(zero[sized].mean())
    if not 0.01 < share < 0.7:
        return None
    factor = float(np.median(theirs[sized & ~zero] / dropped[sized & ~zero]))
    if factor < 1.005:
        return None
    site.details["dropout"] = f"probability {1 - 1 / factor:.2g}"
    near = np.abs(theirs) < np.abs(theirs - factor * dropped)
    return kept_aside + np.where(near, 0.0, factor * dropped)


# --- The MLP

NAMES = {
    "gelu": "exact GELU",
    "gelu_new": "tanh GELU",
    "quick_gelu": "quick GELU",
    "relu": "ReLU",
    "silu": "SiLU",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu2": "squared ReLU",
    "leaky_relu": "leaky ReLU",
    "mish": "mish",
    "linear": "no activation",
}


def enter_activations() -> None:
    """Enter every activation as what may be there in place of the model's own."""
    for name, cause in NAMES.items():

        def op(site: Site, name: str = name) -> np.ndarray | None:
            function = ops.ACTIVATIONS[name]
            mine = ops.ACTIVATIONS[site.reference.config.activation_function]
            return None if function is mine else function(site.x)

        op.__doc__ = (
            "GPT-2's activation is the tanh approximation of GELU (gelu_new); "
            "config.json's activation_function may name another."
        )
        variant(cause, "mlp.act", "HF 13666, nntile 370" if "gelu" in name else "")(op)


enter_activations()


@each("GELU with a wrong constant", "mlp.act", ("0.44715", "sqrt(2)/pi", "x^2"))
def misspelt_gelu(site: Site, slip: str) -> np.ndarray:
    """It is x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    cubed = 0.44715 if slip == "0.44715" else 0.044715
    factor = math.sqrt(2) / math.pi if slip == "sqrt(2)/pi" else math.sqrt(2 / math.pi)
    x = site.x
    site.details["constant"] = slip
    power = x * x if slip == "x^2" else x * x * x
    return 0.5 * x * (1 + np.tanh(factor * (x + cubed * power)))


# --- The head and the loss


@variant("ln_f skipped", "ln_f", cases="rust-bert 285, llama.cpp 12567")
def last_norm_skipped(site: Site) -> np.ndarray:
    """The head reads the residual stream through ln_f."""
    return site.x


@variant("ln_f skipped", "lm_head", cases="rust-bert 285, llama.cpp 12567")
def head_reads_stream(site: Site) -> np.ndarray:
    """The head reads the residual stream through ln_f."""
    return site["h.n-1"] @ site.parameter("weight").T


@variant("the head is wte", "lm_head", cases="rust-bert 285, llama.cpp 12567")
def head_is_wte(site: Site) -> np.ndarray | None:
    """This model's head is not tied: it has a matrix of its own, lm_head.weight."""
    if site.reference.config.tie_word_embeddings:
        return None
    return site.x @ site.parameter("weight", "wte")[site.reference.columns].T


@variant("logits scaled by 1/sqrt(C)", "lm_head")
def scaled_logits(site: Site) -> np.ndarray:
    """GPT-2 multiplies by the embeddings as they are; T5 scales before a tied head."""
    return linear(site) / math.sqrt(site.x.shape[-1])


@each("loss", "loss", ("labels not shifted", "summed", "padding counted", "in bits"))
def other_loss(site: Site, how: str) -> np.ndarray | None:
    """The mean of -log p of each next id, in nats; labels of -100 do not count."""
    labels = np.asarray(site.reference.labels).reshape(site.x.shape[:-1])
    targets, logits = labels[:, 1:], site.x[:, :-1]
    site.details["loss"] = how
    if how == "labels not shifted":
        return np.asarray(ops.cross_entropy(site.x, labels))
    counted = ~np.isin(targets, ops.IGNORED_LABELS)
    mean = np.asarray(ops.cross_entropy(logits, targets))
    if how == "summed":
        return mean * counted.sum()
    if how == "in bits":
        return mean / math.log(2)
    return None if counted.all() else mean * counted.mean()


def variants_at(local: str) -> Iterator[Variant]:
    """Yield the variants of a step, by its name within a block."""
    for known in VARIANTS:
        if local in known.at:
            yield known
